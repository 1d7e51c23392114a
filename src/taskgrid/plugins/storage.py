"""What methods keep beside theta_0 that do not come down to a single model."""

from __future__ import annotations

from dataclasses import dataclass

_WORD = 32


@dataclass(frozen=True, kw_only=True)
class Storage:
    """What answers for T merged tasks, beside theta_0; vectors count as float32.

    Attributes:
        shared: bits per weight that are kept once.
        task: bits per weight that are kept for each task.
        numbers: float32 numbers that are kept for each task.
    """

    shared: int = 0
    task: int = 0
    numbers: int = 0

    def bits_per_weight(self, weights: int, tasks: int) -> float:
        """Return the bits per weight of the model.

        Args:
            weights: floating weights of the image tower.
            tasks: the merged tasks.
        """
        return self.shared + tasks * (self.task + _WORD * self.numbers / weights)

    def megabytes(self, weights: int, tasks: int) -> float:
        """Return how much it is, in MB of 10^6 bytes; arguments as for ``bits_per_weight``."""
        return weights * self.bits_per_weight(weights, tasks) / 8e6

    def words(self) -> str:
        """Say it as a formula in T, the number of merged tasks: ``32 + T bits per weight``."""
        bits = [f"{self.shared}"] if self.shared else []
        bits += ["T" if self.task == 1 else f"{self.task} T"] if self.task else []
        parts = [f"{' + '.join(bits)} bits per weight"] if bits else []
        if self.numbers:
            count = "T" if self.numbers == 1 else f"{self.numbers} T"
            parts.append(f"{count} numbers")
        return ", ".join(parts) or "nothing"


EXPERTS = Storage(task=_WORD)
"""All experts: what the merged models are compared with."""

MODEL = Storage()
"""A single model takes the place of theta_0."""
