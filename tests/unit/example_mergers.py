"""Merge methods as tests use them: made-up recipes, states to merge, what methods need beside weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from taskgrid.merging.recipe import MergeRecipe
from taskgrid.merging.seam import AnyMerger, Sources, learned_names
from taskgrid.plugins.cards import MergerCard, statistic_card
from taskgrid.plugins.options import Options
from taskgrid.store.weights import State

TASKS = ("cars", "dtd", "mnist", "svhn")


def recipe_of(
    merger: AnyMerger,
    name: str = "made_up",
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
    **card: Any,
) -> MergeRecipe:
    """Return the recipe of a method that is not registered; ``card`` is what its card says."""
    said = MergerCard(**{"title": name, **card})
    return MergeRecipe(name, said, merger, Options(options), seed)


def near(base: Mapping[str, torch.Tensor], seed: int, size: float = 0.02) -> State:
    """Return weights near others; what is not floating is copied."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: (tensor + size * tensor.abs().mean() * _noise(tensor, generator)).to(tensor.dtype)
        if tensor.is_floating_point()
        else tensor.clone()
        for name, tensor in base.items()
    }


def near_by_factors(base: Mapping[str, torch.Tensor], seed: int, rank: int = 1) -> State:
    """Return weights near others as LoRA leaves them: matrices have changes of low rank."""
    generator = torch.Generator().manual_seed(seed)
    found = {name: tensor.clone() for name, tensor in base.items()}
    for name, tensor in base.items():
        if tensor.dim() == 2:
            rows, columns = tensor.shape
            b = torch.randn(rows, rank, generator=generator, dtype=torch.float64)
            a = torch.randn(rank, columns, generator=generator, dtype=torch.float64)
            found[name] = (tensor.double() + 0.2 * tensor.abs().mean() * b @ a).to(tensor.dtype)
    return found


def _noise(tensor: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return torch.randn(tensor.shape, generator=generator)


def _positive(base: State, seed: int) -> State:
    """Something positive for every weight, and a number of images."""
    generator = torch.Generator().manual_seed(seed)
    found = {
        name: torch.rand(tensor.shape, generator=generator) + 0.1
        for name, tensor in base.items()
        if tensor.is_floating_point()
    }
    return found | {"images": torch.tensor(8 + seed)}


def _grams(base: State, seed: int) -> State:
    """Gram matrices of the inputs of every matrix, diagonals for vectors, and a number of images."""
    generator = torch.Generator().manual_seed(seed)
    found = {"images": torch.tensor(8 + seed)}
    for name, tensor in base.items():
        if tensor.is_floating_point() and tensor.dim() > 1 and tensor.numel():
            inputs = torch.randn(50, tensor[0].numel(), generator=generator)
            found[name] = inputs.T @ inputs
        elif tensor.is_floating_point() and tensor.dim() == 1:
            found[name] = torch.rand(len(tensor), generator=generator) + 0.1
    return found


STATISTICS: dict[str, Callable[[State, int], State]] = {
    "fisher": _positive,
    "fisher_base": _positive,
    "gram": _grams,
}
"""What stands for each statistic where laws are tested: (base, seed) -> State. One line per statistic
that a registered method needs."""


def sources_of(
    recipe: MergeRecipe, base: State, vectors: Mapping[str, State], learned_seed: int = 0
) -> Sources:
    """Give a method all that its card asks for, made up."""

    def statistic(name: str, task: str) -> State:
        return STATISTICS[name](base, sum(map(ord, task)))

    def learned(tasks: Sequence[str]) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(learned_seed)
        count = len(learned_names(base))
        found = {task: torch.rand(count, generator=generator) for task in tasks}
        # Parts of directions, for methods that learn tensors: linear in the vectors, where there are any,
        # and so zero where no expert moves.
        parts = {
            f"{task}/{name}": 0.1
            * _noise(base[name], generator)
            * (vectors[task][name] if task in vectors else float(name != "frozen"))
            for task in vectors or TASKS
            for name in learned_names(base)
        }
        # What belongs to all tasks together, for methods that learn such.
        bend = {
            f"bend/{name}": 0.01 * _noise(base[name], generator) * float(name != "frozen")
            for name in learned_names(base)
        }
        return found | parts | bend

    return Sources(vectors.__getitem__, statistic, learned)


def given_to(recipe: MergeRecipe, base: State, tasks: Sequence[str]) -> dict[str, Any]:
    """Return the same as arguments of ``merge``."""
    sources, given = sources_of(recipe, base, {}), {}
    if recipe.card.needs:
        assert sources.statistic is not None
        given["statistics"] = {
            name: {task: sources.statistic(name, task) for task in tasks}
            if statistic_card(name).per == "task"
            else sources.statistic(name, "")
            for name in recipe.card.needs
        }
    if recipe.learns:
        assert sources.learned is not None
        given["learned"] = sources.learned(tuple(tasks))
    return given
