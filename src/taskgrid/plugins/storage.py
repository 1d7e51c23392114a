"""What methods keep beside theta_0 that do not come down to a single model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

_WORD = 32


class Tower(NamedTuple):
    """The size of an image tower: floating weights, and the dimension of its features."""

    weights: int
    features: int


@dataclass(frozen=True, kw_only=True)
class Storage:
    """What answers for T merged tasks, beside theta_0; vectors count as float32.

    Attributes:
        shared: bits per weight that are kept once.
        task: bits per weight that are kept for each task.
        numbers: float32 numbers that are kept for each task.
        rank: the option that is the rank r of two maps of features of d dimensions, which are kept for each
            task: 2 r d float32 numbers more.
        square: whether a map of these features is kept for each task, written out: d^2 float32 numbers more.
        single_if: values of options with which it is a single model after all. With others it keeps what is
            said here at most.
    """

    shared: int = 0
    task: int = 0
    numbers: int = 0
    rank: str = ""
    square: bool = False
    single_if: Mapping[str, Any] = field(default_factory=dict)

    def bits_per_weight(self, tower: Tower, tasks: int, options: Mapping[str, Any]) -> float:
        """Return the bits per weight of the model.

        Args:
            tower: the size of the image tower.
            tasks: how many are merged.
            options: the method's options.
        """
        named = self.single_if.items()
        if named and all(options.get(name) == value for name, value in named):
            return 0.0
        maps = 2 * int(options[self.rank]) * tower.features if self.rank else 0
        maps += tower.features**2 if self.square else 0
        return self.shared + tasks * (self.task + _WORD * (self.numbers + maps) / tower.weights)

    def megabytes(self, tower: Tower, tasks: int, options: Mapping[str, Any]) -> float:
        """Return how much it is, in MB of 10^6 bytes; arguments as for ``bits_per_weight``."""
        return tower.weights * self.bits_per_weight(tower, tasks, options) / 8e6

    def words(self) -> str:
        """Say it as a formula in T, the number of merged tasks: ``32 + T bits per weight``."""
        bits = [f"{self.shared}"] if self.shared else []
        bits += ["T" if self.task == 1 else f"{self.task} T"] if self.task else []
        parts = [f"{' + '.join(bits)} bits per weight"] if bits else []
        if self.numbers:
            count = "T" if self.numbers == 1 else f"{self.numbers} T"
            parts.append(f"{count} numbers")
        if self.rank:
            parts.append(f"2 {self.rank} d T numbers")
        if self.square:
            parts.append("d² T numbers")
        single = ", ".join(f"{name}: {value}" for name, value in self.single_if.items())
        said = ", ".join(parts) or "nothing"
        return f"{said} at most, nothing with {single}" if single else said


EXPERTS = Storage(task=_WORD)
"""All experts: what the merged models are compared with."""

MODEL = Storage()
"""A single model takes the place of theta_0."""
