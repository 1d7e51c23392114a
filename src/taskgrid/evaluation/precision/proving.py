"""Making the proof that a reduced precision does what float32 does: every image passes twice.

Looked at are the base on every task, each expert on its own, and one merge of all tasks on every one.
The logits are those of the engine and its kernel, so what is proven is what rows are made by.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from taskgrid.evaluation.engine.engine import Engine
from taskgrid.evaluation.engine.listening import Listens
from taskgrid.evaluation.engine.material import LabelledImages, Material, TaskMaterial
from taskgrid.evaluation.plan.planner import Plan
from taskgrid.evaluation.plan.setting import Request, Split
from taskgrid.evaluation.precision.comparison import Comparison, Kind, compare
from taskgrid.evaluation.precision.proof import Digests, Probe, Proof
from taskgrid.lattice.subsets import parse_subset
from taskgrid.machine.devices import device_name
from taskgrid.merging.recipe import MergeRecipe
from taskgrid.models.batches import BatchChoice
from taskgrid.provenance.digests import derive_seed

OpenListener = Callable[[str], Listens]
"""Opens the bench that measures in a precision."""


def few_images(material: Material, most: int) -> Material:
    """Return a material with at most so many images per split, the same ones every time."""
    return replace(
        material,
        tasks={
            name: replace(task, images=partial(_drawn_of, task, most))
            for name, task in material.tasks.items()
        },
    )


def _drawn_of(task: TaskMaterial, most: int, split: Split) -> LabelledImages:
    every = task.images(split)
    places = drawn(len(every), most)
    return LabelledImages(every.pixels, every.rows[places], every.labels[places])


def drawn(n: int, most: int) -> NDArray[np.int64]:
    """Return which of n images are compared: at most so many, increasing.

    They are drawn, because a split's order may be that of its classes.
    """
    if n <= most:
        return np.arange(n)
    generator = np.random.Generator(np.random.PCG64(derive_seed("precision", n, most)))
    return np.sort(generator.choice(n, most, replace=False))


def prove_with_engines(
    plan: Plan,
    material: Material,
    recipe: MergeRecipe,
    *,
    images: int,
    tolerance: float,
    device: torch.device | str = "cpu",
    batch_size: BatchChoice = "auto",
    compiled: bool = False,
    advance: Callable[[int], None] = lambda count: None,
) -> Proof:
    """Measure in float32 and in the precision of a plan, one after the other, and compare.

    Args:
        plan: a merge of all tasks at one lambda; its setting has the reduced precision.
        material: base, experts, vectors, heads, images.
        recipe: how to merge, as the plan's method says.
        images: images per task at most.
        tolerance: largest difference of accuracies that is allowed, as a fraction.
        device: where to compute.
        batch_size: images per forward pass; ``auto`` takes what fits.
        compiled: whether whole batches of the reduced precision pass through ``torch.compile``, as those
            of the grid do, in batches no larger than the smallest set of images; float32 never does.
        advance: told of images as they pass.
    """
    device = torch.device(device)
    few = few_images(material, images)
    fewest = min(min(request.n, images) for _, request in _requests(plan))
    engines: list[Engine] = []

    def opened(precision: str) -> Listens:
        # What fits is found out once; by the second engine it may have been halved.
        asked = engines[-1].batch_size if engines else batch_size
        reduced = precision != "fp32"
        if compiled and reduced and engines:
            # Only whole batches are compiled, so every set of images has to hold one.
            asked = min(engines[-1].batch_size, fewest)
        engines.append(
            Engine(
                few,
                recipe,
                device=device,
                batch_size=asked,
                precision=precision,
                compiled=compiled and reduced,
                needs=plan.method.needs,
            )
        )
        return engines[-1]

    compared = comparisons(plan, opened, images, advance)
    machine = engines[-1].machine
    return Proof(
        precision=plan.setting.precision,
        device=device.type,
        machine=machine_name(device),
        torch=torch.__version__,
        batch_size=int(machine["batch_size"]),
        compiled=bool(machine["compiled"]),
        tolerance=tolerance,
        digests=Digests.of(plan.setting),
        probe=_probe(plan),
        comparisons=compared,
    )


def comparisons(
    plan: Plan, open_listener: OpenListener, images: int, advance: Callable[[int], None]
) -> tuple[Comparison, ...]:
    """Compare all that a proof looks at; the benches are opened one after the other.

    Args:
        plan: as for ``prove_with_engines``.
        open_listener: opens the bench of a precision.
        images: images per task at most.
        advance: told of images as they pass.
    """
    asked = [
        (kind, replace(request, n=min(request.n, images))) for kind, request in _requests(plan)
    ]

    def heard(precision: str) -> tuple[list[NDArray[Any]], list[NDArray[np.int64]]]:
        bench = open_listener(precision)
        logits, labels = [], []
        for _, request in asked:
            logits.append(bench.listen(request)[1])
            labels.append(bench.labels(request.task, request.split))
            advance(request.n)
        return logits, labels

    exact, labels = heard("fp32")
    reduced, _ = heard(plan.setting.precision)
    return tuple(
        compare(kind, request.task, *found)
        for (kind, request), *found in zip(asked, exact, reduced, labels, strict=True)
    )


def passes(plan: Plan, images: int) -> int:
    """Return how many images pass through the encoder for a proof."""
    return 2 * sum(min(request.n, images) for _, request in _requests(plan))


def machine_name(device: torch.device) -> str:
    """Return what a device is called."""
    if device.type == "cuda":
        return device_name(device)
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"


def _requests(plan: Plan) -> Iterator[tuple[Kind, Request]]:
    setting, tasks = plan.setting, plan.setting.experts
    for task in tasks:
        yield "base", setting.zeroshot(task, "val")
    for task in tasks:
        yield "experts", setting.expert(task, task, "val")
    for subset, scale in _merges(plan):
        for task in tasks:
            yield "merge", plan.merged(parse_subset(subset), scale, task, "val")


def _merges(plan: Plan) -> Sequence[tuple[str, str]]:
    return [(subset, scale) for subset in plan.subsets for scale in plan.lambdas if float(scale)]


def _probe(plan: Plan) -> Probe | None:
    for subset, scale in _merges(plan):
        return Probe(
            plan.method.name,
            subset,
            scale,
            plan.point_key(parse_subset(subset), scale, parse_subset(subset)[0]),
        )
    return None
