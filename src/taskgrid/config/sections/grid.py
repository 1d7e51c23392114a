"""Section `grid`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from pydantic import Field, field_validator, model_validator

from taskgrid.config.sections.plugin import NeedySpec, distinct
from taskgrid.config.sections.sweeps import (
    Entry,
    Lambdas,
    Points,
    Subsets,
    entries_of,
    points_by_subset,
    scales,
)
from taskgrid.config.sections.values import Name, Named, Positive, Section, unique
from taskgrid.lattice.designs import Design
from taskgrid.plugins.cards import merger_card


class MethodSpec(NeedySpec):
    """A merge method (`task_arithmetic`, `average`, ...) with its options."""

    kind = "merger"

    lambdas: Lambdas | None = None
    """Scaling coefficients, if not the grid's; of a method with a threshold in lambda's place, its
    thresholds. A method that has a single model per subset takes none."""
    points: Points | None = None
    """Points with coefficients of their own, if not the grid's."""
    subsets: Subsets | None = None
    """Which tasks are merged, if not the grid's: a method of two tasks takes `{sizes: [2]}`."""
    modes: list[Name] | None = Field(None, min_length=1)
    """Whose experts are merged: labels of modes, names of `experts` and `transport`, `posthoc`. null: all."""

    @model_validator(mode="after")
    def _no_lambda_in_vain(self) -> Self:
        if self.lambdas is not None and not self.has_lambda:
            raise ValueError(
                f"merge method {self.name!r} has one model for each subset and no lambda; remove `lambdas`"
            )
        return self

    @field_validator("modes")
    @classmethod
    def _distinct_modes(cls, value: list[str] | None) -> list[str] | None:
        return None if value is None else unique(value)

    @property
    def has_lambda(self) -> bool:
        """Whether there is something to sweep."""
        return merger_card(self.name).coefficient != "none"


class GridSpec(Section):
    """The grid: methods x subsets x lambdas."""

    methods: Named[MethodSpec] = Field(min_length=1)
    """Merge methods; a bare name will do."""
    subsets: Subsets = Field("all", validate_default=True)
    """`all`, or a union of `sizes`, `up_to`, `leave_out`, `include`, `sample`."""
    lambdas: Lambdas
    """Scaling coefficients, the same for every task of a subset: a list, or start/stop/step."""
    points: Points = Field([])
    """Points with a coefficient for each task, beside `lambdas`: `{mnist: 0.3, dtd: -0.5}`, or a product
    grid, `{mnist: [0.2, 0.4], dtd: [0.1, 0.3]}`. They are measured for the subset of exactly these
    tasks."""
    block_size: Positive = 64
    """Subsets per block at most, a power of two; a block is one job."""

    @field_validator("block_size")
    @classmethod
    def _power_of_two(cls, value: int) -> int:
        if value & (value - 1):
            raise ValueError(
                "use a power of two (blocks then keep their place when a task is added)"
            )
        return value

    @model_validator(mode="after")
    def _distinct_labels(self) -> Self:
        distinct(self.methods)
        return self

    def design_of(self, method: MethodSpec) -> Design:
        """Return which subsets a method merges."""
        design = self.subsets if method.subsets is None else method.subsets
        assert isinstance(design, Design)
        return design

    def lambdas_of(self, method: MethodSpec) -> tuple[str, ...]:
        """Return a method's scaling coefficients as text, in increasing order."""
        if not method.has_lambda:
            return ("1.00",)
        return scales(method.lambdas if method.lambdas is not None else self.lambdas)

    def entries_of(self, method: MethodSpec) -> tuple[Entry, ...]:
        """Return a method's points with coefficients of their own, product grids not spelt out."""
        return entries_of(self.points if method.points is None else method.points)

    def points_of(self, method: MethodSpec) -> Mapping[tuple[str, ...], tuple[str, ...]]:
        """Return a method's points with coefficients of their own, by subset, in order."""
        return points_by_subset(self.entries_of(method))
