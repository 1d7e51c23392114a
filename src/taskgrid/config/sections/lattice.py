"""Section `lattice`."""

from __future__ import annotations

from dataclasses import fields
from typing import Literal, Self

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from taskgrid.config.sections.sweeps import Lambdas, Subsets, scales
from taskgrid.config.sections.values import SECTION, refused
from taskgrid.lattice.budgets import BudgetSpec, least_audit
from taskgrid.lattice.designs import Design


@dataclass(frozen=True, kw_only=True, config=SECTION)
class LatticeSpec(BudgetSpec):
    """A lattice on a budget: some merges evaluated, the others predicted, the error stated."""

    lambdas: Lambdas
    """Scaling coefficients; each has a budget of its own."""
    subsets: Subsets = Field("all", validate_default=True)
    """Which merges are asked for; as in `grid.subsets`."""
    split: Literal["val", "test"] = "val"
    """Which images."""

    @model_validator(mode="after")
    def _merges(self) -> Self:
        with refused():
            texts = self.scales()
        if not all(float(scale) for scale in texts):
            raise ValueError("at lambda 0 every merge is the base; give other lambdas")
        if self.audit < (needed := least_audit(self.level)):
            raise ValueError(
                f"an audit of {self.audit} merges says nothing at level {self.level}; "
                f"audit at least {needed}, or lower the level"
            )
        return self

    @property
    def spent(self) -> BudgetSpec:
        """How much is evaluated."""
        return BudgetSpec(**{each.name: getattr(self, each.name) for each in fields(BudgetSpec)})

    def design(self) -> Design:
        """Return which merges are asked for."""
        assert isinstance(self.subsets, Design)
        return self.subsets

    def scales(self) -> tuple[str, ...]:
        """Return the coefficients as text, increasing."""
        return scales(self.lambdas)
