"""Task addition: one model for several tasks (Ilharco et al., ICLR 2023, section 4).

Lambda is chosen as by Ortiz-Jimenez et al. (NeurIPS 2023, appendix B): the largest mean, over the
merged tasks, of validation accuracy relative to the task's own expert; the smallest lambda wins a
tie. The chosen model is then measured on test. Negative lambdas belong to other questions: they are
measured when the configuration has them, and chosen only when it has no others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from taskgrid.analysis.selection import best_normalized, edges
from taskgrid.lattice.points import lambda_value
from taskgrid.plugins.cards import StudyCard
from taskgrid.studies.seam import Choice, Curves

CARD = StudyCard(
    title="Task addition",
    paper="Ilharco et al., Editing Models with Task Arithmetic, ICLR 2023, section 4",
    rule="first maximum of mean normalised accuracy on val",
)


@dataclass(frozen=True)
class Addition:
    """The study ``addition``: every subset, on its own tasks."""

    name: str = "addition"
    rule: str = "first maximum of mean normalised accuracy on val"

    def covers(self, subset: Sequence[str]) -> bool:
        """Return True: every subset is an addition."""
        return len(subset) > 0

    def sweep(self, lambdas: Sequence[str]) -> tuple[str, ...]:
        """Return the configured coefficients."""
        return tuple(lambdas)

    def tasks(self, subset: Sequence[str]) -> tuple[str, ...]:
        """Return the merged tasks."""
        return tuple(subset)

    def choose(self, curves: Curves) -> Choice:
        """Return the first maximum of mean normalised accuracy."""
        adding = [at for at, scale in enumerate(curves.lambdas) if lambda_value(scale) >= 0]
        allowed = adding or list(range(len(curves.lambdas)))
        index = best_normalized(curves, allowed)
        return Choice(curves.lambdas[index], index in edges(allowed))


STUDY = Addition()
