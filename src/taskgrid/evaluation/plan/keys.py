"""Row keys: the digest of everything a measured number depends on, and of nothing else.

A row's number depends on *weights* (which state the encoder holds) and on a *context* (which images
are classified, by which head, how). Names do not enter, apart from the method's: a task that is
renamed, moved in the configuration or joined by others keeps its rows.

Left out on purpose: batch size, device, compilation and the versions of libraries. They move the last
bits of a logit, not the quantity that is measured. ``timing.json`` of a block, and the run records of
the merges that it measured, name the batch size, the device and the version of torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from taskgrid.plugins.registry import is_package
from taskgrid.provenance.code import code_closure
from taskgrid.provenance.digests import digest

_PLUMBING = (
    "taskgrid.config",
    "taskgrid.lattice",
    "taskgrid.machine",
    "taskgrid.merging.learning",
    "taskgrid.merging.recipe",
    "taskgrid.merging.seam",
    "taskgrid.models.card",
    "taskgrid.models.lineage",
    "taskgrid.plugins",
    "taskgrid.provenance",
    "taskgrid.store",
)
"""Modules that name, move and compare: what they deliver is itself in the keys, by digest or value."""

_KERNEL = "taskgrid.evaluation.engine.measure"
_TANGENT_KERNEL = "taskgrid.evaluation.tangent.line"
_CURVES = "taskgrid.evaluation.curves.curves"
_BUDGET = "taskgrid.evaluation.budget.budget"


def computing_code(*modules: str) -> str:
    """Return the digest of modules and all they import, without the plumbing.

    Packages themselves are left out, too: they hand out names. A repaired message in the store or a new
    lattice function must not re-evaluate a grid; an edit of any module that computes must.
    """
    closure = code_closure(*modules)
    return digest(
        {
            module: tree
            for module, tree in closure.items()
            if not is_package(module)
            and not any(module == name or module.startswith(f"{name}.") for name in _PLUMBING)
        }
    )


def kernel_code() -> str:
    """Return the digest of the code that turns weights and images into outcomes."""
    return computing_code(_KERNEL)


def tangent_code() -> str:
    """Return the digest of the code that turns directions and images into outcomes."""
    return computing_code(_TANGENT_KERNEL)


def curves_code() -> str:
    """Return the digest of the code that interpolates between outcomes."""
    return computing_code(_CURVES)


def budget_code() -> str:
    """Return the digest of the code that predicts merges from others."""
    return computing_code(_BUDGET)


def tower_key(
    *,
    layout: str,
    tower: Mapping[str, Any],
    activation: str,
    image_size: int,
    mean: Sequence[float],
    std: Sequence[float],
) -> str:
    """Return the key of the function that weights are put into: the architecture and its input."""
    return digest(
        {
            "layout": layout,
            "tower": dict(tower),
            "activation": activation,
            "image_size": image_size,
            "mean": list(mean),
            "std": list(std),
        }
    )


def images_key(file: str, ids: str) -> str:
    """Return the key of some images in order.

    Args:
        file: digest of the file of decoded, resized images and their labels.
        ids: digest of the names of those that are meant, in the order of the split's manifest.
    """
    return digest({"file": file, "ids": ids})


def context_key(*, images: str, head: str, tower: str, precision: str, kernel: str) -> str:
    """Return the key of a task's part: what any weights are measured on, and how."""
    return digest(
        {"images": images, "head": head, "tower": tower, "precision": precision, "kernel": kernel}
    )


def features_key(
    *,
    images: str,
    tower: str,
    precision: str,
    kernel: str,
    base: str,
    direction: str | None,
    machine: Mapping[str, str | int],
) -> str:
    """Return the key of the features of some images: at theta_0, or moving along a direction.

    These are not rows: they are kept so that no pass is made twice, and found by the same machine's
    settings only, so that a row is the same bit for bit whether they were found or not.

    Args:
        images: ``images_key``.
        tower: ``tower_key``.
        precision: ``fp32`` or ``bf16``.
        kernel: ``tangent_code``.
        base: digest of the base's state.
        direction: digest of the expert that the direction leads to; None for the features at theta_0.
        machine: what moves last bits: batch size, kind of device, version of torch.
    """
    return digest(
        {
            "images": images,
            "tower": tower,
            "precision": precision,
            "kernel": kernel,
            "base": base,
            "direction": direction,
            "machine": dict(machine),
        }
    )


def logits_key(*, row: str, machine: Mapping[str, str | int]) -> str:
    """Return the key of the logits behind a row: found by the same machine's settings only.

    Args:
        row: ``row_key``.
        machine: what moves last bits: batch size, kind of device, compilation, version of torch.
    """
    return digest({"logits": row, "machine": dict(machine)})


def state_key(state_digest: str) -> str:
    """Return the key of weights that exist as a state: the base, or an expert."""
    return digest({"state": state_digest})


def merge_key(
    *,
    method: str,
    options: Mapping[str, Any],
    code: str,
    base: str,
    vectors: Sequence[str],
    seed: int | None = None,
    statistics: Sequence[str] = (),
    learned: str | None = None,
) -> str:
    """Return the key of a merge before a point is chosen.

    Args:
        method: the merge method's name.
        options: all of its options, defaults filled in.
        code: ``computing_code`` of its module.
        base: digest of the base's state.
        vectors: digests of the task vectors in the canonical order of their tasks.
        seed: what its random draws come from; None for a method that draws nothing.
        statistics: digests of the statistics it needs, by name, then in the same order.
        learned: digest of the coefficients that were learned for it; None where nothing was.
    """
    return digest(
        {
            "method": method,
            "options": dict(options),
            "code": code,
            "base": base,
            "vectors": list(vectors),
            "seed": seed,
            "statistics": list(statistics),
            "learned": learned,
        }
    )


def point_key(
    merge: str, scale: float | None, named: Sequence[float] | None = None, own: str | None = None
) -> str:
    """Return the key of a grid point's weights.

    Args:
        merge: ``merge_key``.
        scale: the one coefficient of all tasks; None where each has its own.
        named: the tasks' own coefficients, in canonical order.
        own: digest of the task vector whose model it is, of a method with a model for each task.
    """
    return digest({"merge": merge, "scale": scale, "named": named, "own": own})


def interpolated_key(merge: str, point: str, nodes: Sequence[str], code: str) -> str:
    """Return the key of a point whose logits are interpolated; no exact point has such a key.

    Args:
        merge: ``merge_key``.
        point: lambda as fixed decimals.
        nodes: the lambdas that were evaluated.
        code: ``curves_code``.
    """
    return digest({"merge": merge, "lambda": point, "nodes": list(nodes), "interpolation": code})


def predicted_key(merge: str, point: str, evaluated: Sequence[str], code: str) -> str:
    """Return the key of a point that is predicted from others; no exact point has such a key.

    Args:
        merge: ``merge_key``.
        point: lambda as fixed decimals.
        evaluated: the keys of the points that were evaluated.
        code: ``budget_code``.
    """
    return digest(
        {"merge": merge, "lambda": point, "evaluated": list(evaluated), "prediction": code}
    )


def certainty_key(row: str) -> str:
    """Return the key under which an interpolated row keeps what is certain of it."""
    return digest({"certainty": row})


def row_key(weights: str, context: str) -> str:
    """Return the key of one row: these weights in this context."""
    return digest({"weights": weights, "context": context})
