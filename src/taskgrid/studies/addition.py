"""Task addition: one model for several tasks (Ilharco et al., ICLR 2023, section 4).

Lambda is chosen as by Ortiz-Jimenez et al. (NeurIPS 2023, appendix B): the largest mean, over the
merged tasks, of validation accuracy relative to the task's own expert; the smallest lambda wins a
tie. The chosen model is then measured on test. Negative lambdas belong to other questions: they are
measured when the configuration has them, and chosen only when it has no others.
"""

from __future__ import annotations

from taskgrid.lattice.points import point_scale
from taskgrid.plugins.cards import StudyCard
from taskgrid.studies.choosing import best_normalized, edges
from taskgrid.studies.seam import Choice, Choosing, Curves, Question

CARD = StudyCard(
    title="Task addition",
    paper="Ilharco et al., Editing Models with Task Arithmetic, ICLR 2023, section 4",
    rule="first maximum of mean normalised accuracy on val",
)


class Addition(Choosing):
    """The study ``addition``: every subset, on its own tasks."""

    def choose(self, question: Question, curves: Curves) -> Choice:
        """Return the first maximum of mean normalised accuracy."""
        scales = [point_scale(point) for point in curves.points]
        adding = [at for at, scale in enumerate(scales) if scale is None or scale >= 0]
        allowed = adding or list(range(len(curves.points)))
        index = best_normalized(curves, allowed)
        # A point with coefficients of its own lies on no sweep, and so on no edge of one.
        swept = [at for at in allowed if scales[at] is not None]
        return Choice(curves.points[index], index in edges(swept))


STUDY = Addition
