"""Task analogies: "A is to B as C is to D" (Ilharco et al., ICLR 2023, section 5).

Where D has no expert, tau_C + tau_B - tau_A stands in for its task vector: the model
theta_0 + x (tau_C + tau_B - tau_A), x > 0, is measured on D. The x of the highest **validation** accuracy
on D is chosen, of equal ones the smallest; so a little labelled data of D is used, and of no other kind. At
x = 0 there is no analogy: it is where the curve starts, and is never chosen. Where nothing beats the base
on validation, the choice is not met.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from taskgrid.errors import ConfigError
from taskgrid.lattice.points import format_lambda, point_text, read_point
from taskgrid.lattice.subsets import canonical_subset
from taskgrid.plugins.cards import Column, StudyCard, TableCard
from taskgrid.plugins.options import Option, Options
from taskgrid.sentences import choices, shown
from taskgrid.studies.beside import LEVEL, ChosenPoint, chosen_points
from taskgrid.studies.rows import laid_out
from taskgrid.studies.seam import Choice, Choosing, Curves, Field, Question, Results

CARD = StudyCard(
    title="Task analogies",
    paper="Ilharco et al., Editing Models with Task Arithmetic, ICLR 2023, section 5",
    rule="first maximum of accuracy on the fourth task on val",
    options={
        "quadruples": Option(
            default=None,
            kind="lists",
            about='lists of four tasks [A, B, C, D], "A is to B as C is to D"; D may have no expert',
        ),
        "lambdas": Option(
            default=[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0],
            kind="series",
            above=0,
            about="the coefficients of C + B - A that are tried",
            origin="a coarser grid than the papers' for additions, over the same range",
        ),
    },
    tables={
        "quadruples": TableCard(
            row="an analogy, made by one method",
            columns={
                "model": None,
                "mode": None,
                "seed": None,
                "method": None,
                "options": None,
                "a": Column(kind="text", about="the task that is to `b` as `c` is to `task`"),
                "b": Column(kind="text", about="the task that `a` is to"),
                "c": Column(kind="text", about="the task that is to `task` as `a` is to `b`"),
                "task": Column(kind="text", about="the fourth task, on which the model is measured"),
                "point": None,
                "x": Column(kind="number", about="the coefficient of `c` + `b` - `a`"),
                "met": None,
                "at_edge": None,
                "n": None,
                "zeroshot": Column(kind="number", about="accuracy of the base on the task's test images"),
                "accuracy": Column(kind="number", about="accuracy of the model made by analogy on them"),
                "gain": Column(kind="number", about="`accuracy` minus `zeroshot`"),
                "low": Column(
                    kind="number",
                    about="lower end of the interval of `gain`: a bootstrap over images, both models "
                    "resampled together",
                ),
                "high": None,
                "level": None,
                "flips": Column(
                    kind="integer", about="test images of the task whose predicted class changed"
                ),
                "others": Column(
                    kind="number",
                    about="accuracy on them of the best expert of `a`, `b` and `c` as it is (the best on "
                    "test: an upper limit of what no analogy would reach)",
                ),
                "expert": Column(
                    kind="number", about="accuracy on them of the task's own expert; null where it has none"
                ),
            },
        )
    },
    figures=("analogy",),
)  # fmt: skip

_START = "0.00"


class Quadruple(NamedTuple):
    """A is to B as C is to D."""

    a: str
    b: str
    c: str
    d: str

    @property
    def subset(self) -> tuple[str, ...]:
        """The tasks whose vectors are added."""
        return canonical_subset((self.a, self.b, self.c))

    @property
    def about(self) -> str:
        """How it is called: ``A:B::C:D``."""
        return f"{self.a}:{self.b}::{self.c}:{self.d}"

    def point(self, x: float) -> str:
        """Return the point of x (tau_C + tau_B - tau_A)."""
        return point_text({self.a: -x, self.b: x, self.c: x})


class Analogy(Choosing):
    """The study ``analogy``: a model for a fourth task, from the vectors of three."""

    def __init__(self, options: Options | None = None) -> None:
        super().__init__(options)
        if not self.options.quadruples or not self.options.lambdas:
            raise ConfigError(
                "study 'analogy' needs `quadruples`, lists of four tasks such as [print_digits, "
                "street_digits, print_letters, street_letters], and at least one of `lambdas`, in its options"
            )
        for number in self.options.lambdas:
            format_lambda(number)
        self._named = {}
        for given in self.options.quadruples:
            if len(given) != 4 or len(set(given)) != 4:
                raise ConfigError(
                    f"study 'analogy' has quadruples: [{', '.join(given)}]; give four different tasks"
                )
            quadruple = Quadruple(*given)
            self._named[quadruple.about] = quadruple

    def check(self, field: Field, subsets: Container[tuple[str, ...]]) -> None:
        """Refuse quadruples whose tasks are not there, or not merged with one another."""
        known = (*field.trained, *field.control)
        for about, quadruple in self._named.items():
            for task in quadruple[:3]:
                if task not in field.trained:
                    raise ConfigError(
                        f"quadruples: analogy {shown(about, quotes=False)} adds the vector of {shown(task)}; "
                        f"{choices(task, field.trained, 'tasks with an expert')}"
                    )
            if quadruple.d not in known:
                raise ConfigError(
                    f"quadruples: analogy {shown(about, quotes=False)} is measured on {shown(quadruple.d)}; "
                    f"{choices(quadruple.d, known, 'tasks')}"
                )
            if quadruple.subset not in subsets:
                raise ConfigError(
                    f"quadruples: analogy {shown(about, quotes=False)} needs the merge of its first three "
                    f"tasks; add [{', '.join(quadruple.subset)}] to grid.subsets.include"
                )

    def questions(self, subset: tuple[str, ...], field: Field) -> Sequence[Question]:
        """Ask for every quadruple of a subset; of a method without a scale nothing."""
        return tuple(
            Question(subset, (quadruple.d,), about)
            for about, quadruple in self._named.items()
            if field.scaled and quadruple.subset == subset
        )

    def points(
        self, question: Question, sweep: Sequence[str], curves: Curves | None
    ) -> Sequence[str]:
        """Want zero and the own lambdas."""
        quadruple = self._named[question.about]
        return (_START, *(quadruple.point(x) for x in sorted(set(self.options.lambdas))))

    def choose(self, question: Question, curves: Curves) -> Choice:
        """Return the first maximum of accuracy on the fourth task."""
        own = self.points(question, (), None)[1:]
        correct = [int(curves.correct[curves.points.index(point), 0]) for point in own]
        best = correct.index(max(correct))
        met = correct[best] > curves.zeroshot[0]
        return Choice(own[best], best == len(own) - 1 > 0, bool(met))

    def table(self, name: str, results: Results) -> pa.Table:
        """Return the table of quadruples.

        Raises:
            DataError: if the grid lacks a row.
            ArtifactError: if an outcome behind a row is not stored any more.
        """
        rows = [_row(chosen, self._named[chosen.row["about"]]) for chosen in chosen_points(results)]
        return laid_out(CARD.tables[name], rows)


def _row(chosen: ChosenPoint, quadruple: Quadruple) -> dict[str, Any]:
    a, b, c, d = quadruple
    test = chosen.tests[d]
    others = [chosen.experts[other, d] for other in (a, b, c) if (other, d) in chosen.experts]
    return {
        **chosen.run,
        **{"a": a, "b": b, "c": c, "task": d},
        "point": chosen.row["point"],
        "x": read_point(chosen.row["point"]).of(b),
        **{name: chosen.row[name] for name in ("met", "at_edge")},
        "n": test.n,
        "zeroshot": test.base,
        "accuracy": test.accuracy,
        "gain": test.accuracy - test.base,
        "low": test.change.low,
        "high": test.change.high,
        "level": LEVEL,
        "flips": test.flips,
        "others": max(others, default=None),
        "expert": chosen.experts.get((d, d)),
    }


STUDY = Analogy
