"""Recipes of merge methods that tests make up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from taskgrid.merging.recipe import MergeRecipe
from taskgrid.merging.seam import AnyMerger
from taskgrid.plugins.cards import MergerCard
from taskgrid.plugins.options import Options


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
