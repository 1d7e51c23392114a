"""What a sweep takes: scaling coefficients, points with coefficients per task, subsets."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import cache
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    model_validator,
)

from taskgrid.config.sections.values import Name, Number, Section, refused, unique
from taskgrid.lattice.designs import Design
from taskgrid.lattice.points import format_lambda, point_order, point_product
from taskgrid.lattice.subsets import canonical_subset

MOST_POINTS = 1 << 16
"""A product grid of more points is refused."""
MOST_LAMBDAS = 4096
"""A sweep of more coefficients is refused."""


class LambdaRange(Section):
    """Evenly spaced scaling coefficients, both ends included: steps that miss the last are refused."""

    start: Number
    """First value."""
    stop: Number
    """Last value."""
    step: Annotated[Number, Field(gt=0)]
    """Distance between neighbours."""

    def values(self) -> list[Decimal]:
        """Return the values as exact decimals."""
        start, stop, step = self._decimals()
        return [start + i * step for i in range(int((stop - start) / step) + 1)]

    def _decimals(self) -> tuple[Decimal, Decimal, Decimal]:
        return Decimal(str(self.start)), Decimal(str(self.stop)), Decimal(str(self.step))

    @model_validator(mode="after")
    def _ends(self) -> Self:
        start, stop, step = self._decimals()
        if stop < start:
            raise ValueError(f"stop {self.stop} is below start {self.start}")
        if (count := (stop - start) / step + 1) > MOST_LAMBDAS:
            raise ValueError(
                f"step {self.step} gives {count:.3g} numbers, more than {MOST_LAMBDAS}; take a larger one"
            )
        if (stop - start) % step:
            last = stop - (stop - start) % step
            raise ValueError(
                f"steps of {self.step} from start {self.start} miss stop {self.stop}; write "
                f"stop: {last.normalize():f}, or a step that meets it"
            )
        return self


def _shape(value: Any) -> str | None:
    if isinstance(value, dict | BaseModel | Design):
        return "[mapping]"
    if isinstance(value, list | tuple):
        return "[list]"
    return "[text]" if isinstance(value, str) else None


def _sweep(value: LambdaRange | list[float]) -> LambdaRange | list[float]:
    with refused():
        scales(value)
    return value


Lambdas = Annotated[
    Annotated[LambdaRange, Tag("[mapping]")] | Annotated[list[Number], Tag("[list]")],
    Discriminator(
        _shape,
        custom_error_type="shape",
        custom_error_message="write a list of numbers, or a mapping with start, stop and step",
    ),
    AfterValidator(_sweep),
]


def _some_keys(value: Any) -> Any:
    if value == {}:
        raise ValueError("give at least one of sizes, up_to, leave_out, include, sample")
    return value


def _whole(value: Any) -> Any:
    return Design(everything=True) if value == "all" else value


Subsets = Annotated[
    Annotated[Design, Tag("[mapping]")] | Annotated[Literal["all"], Tag("[text]")],
    Discriminator(
        _shape,
        custom_error_type="shape",
        custom_error_message="write all, or a mapping with sizes, up_to, leave_out, include or sample",
    ),
    BeforeValidator(_some_keys),
    AfterValidator(_whole),
]
"""A design; the text ``all`` is read as the design of everything."""


def _coefficients(value: Any) -> Any:
    # Looked at before the union is, which would say one sentence per alternative.
    listed = value if isinstance(value, list) else [value]
    if not listed or any(
        isinstance(one, bool) or not isinstance(one, int | float) for one in listed
    ):
        raise ValueError("write a number, or a list of numbers for a product grid")
    return value


def _few(value: dict[str, float | list[float]]) -> dict[str, float | list[float]]:
    if not value:
        raise ValueError("a point needs a coefficient for at least one task")
    count = math.prod(len(one) for one in value.values() if isinstance(one, list))
    if count > MOST_POINTS:
        raise ValueError(f"this product grid has {count} points, more than {MOST_POINTS}; thin it")
    with refused():
        for one in value.values():
            for number in one if isinstance(one, list) else [one]:
                format_lambda(number)
    return value


Points = list[
    Annotated[
        dict[Name, Annotated[float | list[float], BeforeValidator(_coefficients)]],
        AfterValidator(_few),
    ]
]
"""Points of their own: task -> its coefficient, or task -> its coefficients for a product grid."""


def scales(chosen: LambdaRange | list[float]) -> tuple[str, ...]:
    """Return coefficients as text, in increasing order.

    Raises:
        ValueError: if there is none, or one stands twice.
    """
    values = chosen.values() if isinstance(chosen, LambdaRange) else chosen
    if not values:
        raise ValueError("lambdas is empty; give at least one number")
    if len(values) > MOST_LAMBDAS:
        raise ValueError(f"lambdas has {len(values)} numbers, more than {MOST_LAMBDAS}; thin it")
    texts = [format_lambda(value) for value in values]
    return tuple(sorted(unique(texts), key=float))


Entry: TypeAlias = tuple[tuple[str, tuple[float, ...]], ...]


def entries_of(chosen: Sequence[dict[str, float | list[float]]]) -> tuple[Entry, ...]:
    """Return entries of ``points``: the tasks of each with all their coefficients."""
    return tuple(
        tuple((task, tuple(one) if isinstance(one, list) else (one,)) for task, one in each.items())
        for each in chosen
    )


@cache
def points_by_subset(entries: tuple[Entry, ...]) -> Mapping[tuple[str, ...], tuple[str, ...]]:
    """Return the points of each subset that has some, as texts, in order."""
    found: dict[tuple[str, ...], set[str]] = {}
    for entry in map(dict, entries):
        found.setdefault(canonical_subset(entry), set()).update(point_product(entry))
    return {subset: tuple(sorted(texts, key=point_order)) for subset, texts in found.items()}
