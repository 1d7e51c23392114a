"""What features of networks on the same images are to each other: CKA, cosines, distances; in float64."""

from __future__ import annotations

from collections.abc import Sequence

import torch

_STILL = 1e-12
"""Features whose squared deviations are less than this share of their squares are the same for all images."""


def linear_cka(features: Sequence[torch.Tensor]) -> list[list[float | None]]:
    """Return the linear CKA of every pair of networks.

        CKA(X, Y) = |Y^T X|^2 / (|X^T X| |Y^T Y|),    X and Y centred over images, Frobenius norms

    Kornblith et al., "Similarity of Neural Network Representations Revisited" (ICML 2019). It is the same
    number from Gram matrices of images, |Y^T X|^2 = tr(X X^T Y Y^T), which are taken where there are no more
    images than channels.

    Args:
        features: of each network ``(n, channels)``, of the same n images; channels may differ.

    Returns:
        ``[i][j]`` in [0, 1]; None where the features of one are the same for all images.
    """
    centred = [one.double() - one.double().mean(dim=0) for one in features]
    few = all(len(one) <= one.shape[1] for one in centred)
    # HSIC: of Gram matrices the inner product, of features the square of what they share.
    held = [one @ one.T for one in centred] if few else centred

    def hsic(one: torch.Tensor, two: torch.Tensor) -> float:
        return float((one * two).sum() if few else (one.T @ two).square().sum())

    own = [
        hsic(each, each) ** 0.5
        if float(flat.square().sum()) > _STILL * float(whole.double().square().sum())
        else 0.0
        for each, flat, whole in zip(held, centred, features, strict=True)
    ]
    return [
        [
            min(1.0, hsic(one, two) / (size * other)) if size and other else None
            for two, other in zip(held, own, strict=True)
        ]
        for one, size in zip(held, own, strict=True)
    ]


def mean_cosine(one: torch.Tensor, two: torch.Tensor) -> float | None:
    """Return the cosine of the features ``(n, channels)`` of two networks, mean over images.

    None where one of an image's is zero.
    """
    a, b = one.double(), two.double()
    sizes = a.norm(dim=1) * b.norm(dim=1)
    if not bool((sizes > 0).all()):
        return None
    return float(((a * b).sum(dim=1) / sizes).mean().clamp(-1.0, 1.0))


def distances(one: torch.Tensor, two: torch.Tensor) -> tuple[float, float]:
    """Return how far features ``(n, channels)`` of two networks are from each other.

    Returns:
        ``|z - z'|`` as mean over images and channels: the representation bias of Yang et al.,
        "Representation Surgery" (ICML 2024); and the norm of ``z - z'``, mean over images.
    """
    apart = one.double() - two.double()
    return float(apart.abs().mean()), float(apart.norm(dim=1).mean())
