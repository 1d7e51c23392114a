"""Diagonal Fisher information: how much each weight matters to what a network predicts.

    F_j = sum over images x of E_y [ (d log p(y | x, theta) / d theta_j)^2 ]

Matena and Raffel, "Merging Models with Fisher-Weighted Averaging" (NeurIPS 2022), section 3. The sum is
kept, and the number of images beside it. Gradients are those of single images: a gradient of a batch,
squared, would be another quantity (Kunstner et al., NeurIPS 2019).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch.func import functional_call, grad, vmap
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from taskgrid.plugins.cards import StatisticCard
from taskgrid.plugins.options import Option
from taskgrid.provenance.digests import derive_seed
from taskgrid.statistics.seam import Batch, StatisticContext
from taskgrid.store.images import Pixels, pixel_digest
from taskgrid.store.weights import State

CARD = StatisticCard(
    title="Diagonal Fisher information: sums over images of squared gradients",
    paper="Matena and Raffel, Merging Models with Fisher-Weighted Averaging, NeurIPS 2022, section 3",
    options={
        "images": Option(
            default=256,
            kind="integer",
            least=0,
            about="images of each task that it is computed on; 0 takes all",
            origin="FusionBench",
        ),
        "split": Option(
            default="train",
            choices=("train", "val", "test"),
            about="the split they come from; `test` makes what is merged with it transductive",
        ),
        "labels": Option(
            default="sampled",
            choices=("sampled", "exact", "empirical"),
            about="y: one draw from the predictions, all classes by their probability, or the true class",
        ),
    },
)

_GRADIENT_BYTES = 2**30
"""What gradients of single images may take at a time; a single one takes as much as the weights."""


class Fisher:
    """Sums squared gradients of log-probabilities, image by image."""

    def compute(self, context: StatisticContext) -> State:
        """Return F_j for every parameter of the image tower, float32, by its name."""
        head, tower = context.the_head(), context.encoder.tower
        weights = {name: tensor.detach() for name, tensor in tower.named_parameters()}

        def logits(weights: Mapping[str, torch.Tensor], images: torch.Tensor) -> torch.Tensor:
            return head.logits(functional_call(tower, dict(weights), (images,)))

        def log_probability(
            weights: Mapping[str, torch.Tensor], image: torch.Tensor, by: torch.Tensor
        ) -> torch.Tensor:
            return functional.log_softmax(logits(weights, image[None])[0], dim=-1) @ by

        gradients = vmap(grad(log_probability), in_dims=(None, 0, 0))
        totals = {
            name: torch.zeros_like(tensor, dtype=torch.float64) for name, tensor in weights.items()
        }
        size = sum(tensor.numel() * tensor.element_size() for tensor in weights.values())
        at_once = min(context.batch_size, max(1, _GRADIENT_BYTES // size))
        for batch in context.batches():
            with torch.no_grad():
                probabilities = torch.softmax(logits(weights, batch.inputs).double(), dim=-1)
            shares = _shares(context, batch, probabilities)
            rows, classes = shares.nonzero(as_tuple=True)
            # The square of a gradient times the root of a share is that share of the square.
            roots = shares[rows, classes].sqrt().to(batch.inputs.dtype)
            by = functional.one_hot(classes, shares.shape[1]) * roots[:, None]
            for some, cotangents in _parts(at_once, rows, by):
                # Only this kernel of attention works on many gradients at a time.
                with sdpa_kernel(SDPBackend.MATH):
                    found = gradients(weights, batch.inputs[some], cotangents)
                for name, each in found.items():
                    totals[name] += each.square_().sum(dim=0)
        return context.sums(totals)


def draw_labels(probabilities: torch.Tensor, pixels: Pixels, seed: int) -> torch.Tensor:
    """Draw a class for each image; the draw depends on the seed and the image, not on its neighbours.

    Args:
        probabilities: ``(B, C)`` float64.
        pixels: the images, ``(B, S, S, 3)`` uint8.
        seed: what is drawn from.

    Returns:
        ``(B,)`` classes on the device of ``probabilities``.
    """
    drawn = [
        np.random.default_rng(derive_seed("label", seed, pixel_digest(image))).random()
        for image in pixels
    ]
    levels = torch.tensor(drawn, dtype=torch.float64, device=probabilities.device)
    below = probabilities.cumsum(dim=-1) <= levels[:, None]
    # Rounding may leave the last sum a little under one.
    return below.sum(dim=-1).clamp_max(probabilities.shape[1] - 1)


def _shares(context: StatisticContext, batch: Batch, probabilities: torch.Tensor) -> torch.Tensor:
    """Return the weight ``(B, C)`` of each class's squared gradient."""
    if context.options.labels == "exact":
        return probabilities
    if context.options.labels == "empirical":
        labels = batch.labels
    else:
        labels = draw_labels(probabilities, batch.pixels, context.seed)
    return functional.one_hot(labels, probabilities.shape[1]).to(probabilities)


def _parts(size: int, *tensors: torch.Tensor) -> Iterator[tuple[torch.Tensor, ...]]:
    for start in range(0, len(tensors[0]), size):
        yield tuple(tensor[start : start + size] for tensor in tensors)


STATISTIC = Fisher()
