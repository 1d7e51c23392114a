"""Outputs: the features of a model that is carried whole, brought under the heads of its new base.

A head is made of class vectors of its own CLIP's text tower, and features of another CLIP say nothing
under it, whatever has been done inside the network. With the rows of W_A and W_B the unit class vectors
of both CLIPs, in one order, R is sought with W_B R = W_A. Under heads of B the features R f then have the
logits that f has under those of A, up to their norm: the same classes are predicted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch.nn import functional

from taskgrid.alignment.maps import Axes, Blocks, Transport
from taskgrid.errors import LineageError
from taskgrid.models.heads import Head

_OUT = "proj"
"""The tensor that writes features: ``(width, D)`` in open_clip's vision transformers."""


def output_map(
    source: Mapping[str, Head], target: Mapping[str, Head]
) -> tuple[torch.Tensor, float]:
    """Return the map of features from one CLIP's output space to another's.

    Args:
        source: task -> head of the base that a model comes from.
        target: task -> head of the base that it is brought to.

    Returns:
        R, ``(D_target, D_source)`` float64, of least norm among those with the least |W_B R - W_A|, and that
        as a fraction of |W_A|. It is 0 for up to D_target independent class vectors.

    Raises:
        LineageError: if both have not the same tasks with the same classes, or none.
    """
    if not source or source.keys() != target.keys():
        raise LineageError(
            "the output is mapped by heads of both bases; give those of the same tasks, at least one"
        )
    for task, head in source.items():
        if head.classes != target[task].classes:
            raise LineageError(
                f"the heads of task {task!r} at both bases have other classes; tasks are found by their "
                "names, which must mean the same in both runs"
            )
    theirs, ours = (
        torch.cat([functional.normalize(heads[task].weight.double()) for task in sorted(source)])
        for heads in (source, target)
    )
    found = torch.linalg.pinv(ours) @ theirs
    missed = (ours @ found - theirs).norm() / theirs.norm()
    return found, float(missed)


def with_output(transport: Transport, found: torch.Tensor) -> Transport:
    """Return a transport of whole models whose features are mapped, too.

    Args:
        transport: the transport.
        found: R, ``(D_target, D_source)``.

    Raises:
        LineageError: if it carries no output of a vision transformer as it is.
    """
    every = transport.map.axes if isinstance(transport.map, Axes) else {}
    axes = every.get(_OUT)
    if axes is None or isinstance(axes, Blocks) or any(one is not None for one in axes[1:]):
        raise LineageError(
            "the output is mapped behind a transport that carries `proj` of a vision transformer; bring "
            "the model over with another aligner"
        )
    inner = axes[0] if axes else None
    return replace(transport, map=Axes({**every, _OUT: (inner, found)}))
