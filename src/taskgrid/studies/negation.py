"""Task negation: forget one task and keep the rest (Ilharco et al., ICLR 2023, section 3).

The model theta_0 + lambda tau_t with lambda < 0 is measured on the target t and on control tasks. On
**validation**, among the lambdas at which every control task keeps a share ``keep`` of its zero-shot
accuracy, the one with the lowest target accuracy is chosen; of equal ones the weakest. The papers keep
95 % of ImageNet's (Ortiz-Jimenez et al., NeurIPS 2023, appendix B). A lambda of zero negates nothing: it
is where the curve starts, and is never chosen. Where no lambda keeps the control, the one that keeps most
of it is the choice, and the choice is not met.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from decimal import Decimal
from fractions import Fraction
from statistics import fmean
from typing import Any

import pyarrow as pa

from taskgrid.errors import ConfigError
from taskgrid.lattice.points import MOST_DECIMALS, format_lambda, point_scale
from taskgrid.lattice.subsets import parse_subset
from taskgrid.plugins.cards import Column, StudyCard, TableCard
from taskgrid.plugins.options import Option, Options
from taskgrid.sentences import choices
from taskgrid.studies.beside import LEVEL, ChosenPoint, chosen_points, flips_of
from taskgrid.studies.rows import laid_out
from taskgrid.studies.seam import Choice, Choosing, Curves, Field, Question, Results

CARD = StudyCard(
    title="Task negation",
    paper="Ilharco et al., Editing Models with Task Arithmetic, ICLR 2023, section 3",
    rule="lowest accuracy on the target on val, among the points at which the control is kept",
    options={
        "targets": Option(
            default=None,
            kind="names",
            about="the tasks to forget; null is every task with an expert that is no control",
        ),
        "control": Option(
            default=None,
            kind="names",
            about="the tasks to keep, with an expert or without; null is every task without one",
        ),
        "lambdas": Option(
            default=[
                -0.05, -0.1, -0.15, -0.2, -0.25, -0.3, -0.35, -0.4, -0.45, -0.5,
                -0.55, -0.6, -0.65, -0.7, -0.75, -0.8, -0.85, -0.9, -0.95, -1.0,
            ],
            kind="series",
            below=0,
            about="the coefficients that are tried",
            origin="both papers: -1 to 0 in steps of 0.05",
        ),
        "keep": Option(
            default=0.95,
            above=0,
            most=1,
            about="the share of its zero-shot accuracy that every control task keeps",
            origin="both papers",
        ),
        "refine": Option(
            default=0,
            least=0,
            most=20,
            about="how often the interval between the last lambda that keeps the control and the first "
            "that does not is halved",
        ),
    },
    tables={
        "targets": TableCard(
            row="a task, negated by one method",
            columns={
                "model": None,
                "mode": None,
                "seed": None,
                "method": None,
                "options": None,
                "task": Column(kind="text", about="the target: the task that is to be forgotten"),
                "point": None,
                "scale": None,
                "met": None,
                "at_edge": None,
                "n": None,
                "zeroshot": Column(kind="number", about="accuracy of the base on the target's test images"),
                "accuracy": Column(kind="number", about="accuracy of the negated model on them"),
                "drop": Column(kind="number", about="`zeroshot` minus `accuracy`"),
                "low": Column(
                    kind="number",
                    about="lower end of the interval of `drop`: a bootstrap over images, both models "
                    "resampled together",
                ),
                "high": None,
                "level": None,
                "flips": Column(
                    kind="integer", about="test images of the target whose predicted class changed"
                ),
                "control": Column(kind="text", about="the control tasks, joined by `+`"),
                "control_n": Column(kind="integer", about="number of their test images"),
                "control_zeroshot": Column(
                    kind="number", about="mean accuracy of the base over the control tasks, on test"
                ),
                "control_accuracy": Column(
                    kind="number", about="mean accuracy of the negated model over them"
                ),
                "keep": Column(
                    kind="number",
                    about="the share of its zero-shot accuracy that each of them was to keep on validation",
                ),
                "control_kept": Column(
                    kind="number",
                    about="accuracy on test relative to zero-shot, of the control task that keeps least",
                ),
                "control_flips": Column(
                    kind="integer", about="test images of the control whose predicted class changed"
                ),
            },
        )
    },
    figures=("negation",),
)  # fmt: skip

_START = "0.00"


class Negation(Choosing):
    """The study ``negation``: every task alone, at negative lambdas, beside the control."""

    def __init__(self, options: Options | None = None) -> None:
        super().__init__(options)
        if not self.options.lambdas:
            raise ConfigError(
                "option 'lambdas' of study 'negation' is empty; give at least one number"
            )
        self._base = (_START, *(format_lambda(value) for value in self.options.lambdas))

    def check(self, field: Field, subsets: Container[tuple[str, ...]]) -> None:
        """Refuse an experiment without a control, and targets that are never negated."""
        control, known = self._control(field), (*field.trained, *field.control)
        if not control:
            raise ConfigError(
                "study 'negation' needs a control, a task that is to be kept: add one without an expert to "
                "tasks, e.g. {name: catalogue, expert: false}, or name tasks in the study's option `control`"
            )
        for task in control:
            if task not in known:
                raise ConfigError(
                    f"study 'negation' has the control task {task!r}; {choices(task, known, 'tasks')}"
                )
        for task in self.options.targets or ():
            if task in control:
                raise ConfigError(
                    f"study 'negation' has {task!r} as a target and as control; take it out of one of them"
                )
            if task not in field.trained:
                raise ConfigError(
                    f"study 'negation' has the target {task!r}; "
                    f"{choices(task, field.trained, 'tasks with an expert')}"
                )
            if (task,) not in subsets:
                raise ConfigError(
                    f"study 'negation' has the target {task!r}, which is not on the grid alone; add "
                    f"[{task}] to grid.subsets.include"
                )

    def questions(self, subset: tuple[str, ...], field: Field) -> Sequence[Question]:
        """Ask of a single task how it and the control do; of a method without a scale nothing."""
        control, targets = self._control(field), self.options.targets or field.trained
        if len(subset) != 1 or not field.scaled or not control:
            return ()
        if subset[0] in control or subset[0] not in targets:
            return ()
        return (Question(subset, tuple(sorted((*subset, *control)))),)

    def points(
        self, question: Question, sweep: Sequence[str], curves: Curves | None
    ) -> Sequence[str]:
        """Want zero and the own lambdas; then, if asked to refine, more where the control gives way."""
        if curves is None or len(set(curves.points) - set(self._base)) >= self.options.refine:
            return self._base
        between = self._between(curves)
        return self._base if between is None else (*self._base, between)

    def choose(self, question: Question, curves: Curves) -> Choice:
        """Return the lowest target accuracy at which the control is kept."""
        negative = _outwards(curves)
        (target,) = (curves.tasks.index(task) for task in question.subset)
        admissible = self._admissible(curves)
        met = [at for at in negative if at in admissible]
        if met:
            best, edge = min(met, key=lambda at: int(curves.correct[at, target])), negative[-1]
        else:
            best, edge = max(negative, key=lambda at: _kept(curves, at)), negative[0]
        return Choice(curves.points[best], len(negative) > 1 and best == edge, bool(met))

    def table(self, name: str, results: Results) -> pa.Table:
        """Return the table of targets.

        Raises:
            DataError: if the grid lacks a row.
            ArtifactError: if an outcome behind a row is not stored any more.
        """
        rows = [{**_row(chosen), "keep": self.options.keep} for chosen in chosen_points(results)]
        return laid_out(CARD.tables[name], rows)

    def _control(self, field: Field) -> tuple[str, ...]:
        return tuple(sorted(set(self.options.control or field.control)))

    def _between(self, curves: Curves) -> str | None:
        """Return the middle of the last lambda that keeps the control and the first that does not."""
        last, admissible = Decimal(_START), self._admissible(curves)
        for at in _outwards(curves):
            first = Decimal(curves.points[at])
            if at not in admissible:
                middle = round((last + first) / 2, MOST_DECIMALS)
                return None if middle in (last, first) else format_lambda(middle)
            last = first
        return None

    def _admissible(self, curves: Curves) -> set[int]:
        # The decimal as it is written: 0.95 is 19/20 and not what a float makes of it.
        keep = Fraction(repr(self.options.keep))
        return {at for at in range(len(curves.points)) if _kept(curves, at) >= keep}


def _kept(curves: Curves, at: int) -> Fraction:
    """Return the smallest share of its zero-shot accuracy that a control task has at a point."""
    shares = [
        Fraction(int(curves.correct[at, place]), int(curves.zeroshot[place]))
        for place, task in enumerate(curves.tasks)
        if task not in curves.subset and curves.zeroshot[place]
    ]
    return min(shares, default=Fraction(1))


def _outwards(curves: Curves) -> list[int]:
    """Return the places of negative lambdas, the weakest first."""
    scales = {at: point_scale(point) for at, point in enumerate(curves.points)}
    found = {at: scale for at, scale in scales.items() if scale is not None and scale < 0}
    return sorted(found, key=lambda at: -found[at])


def _row(chosen: ChosenPoint) -> dict[str, Any]:
    (target,) = parse_subset(chosen.row["subset"])
    own = chosen.tests[target]
    control = {task: test for task, test in chosen.tests.items() if task != target}
    return {
        **chosen.run,
        "task": target,
        **{name: chosen.row[name] for name in ("point", "scale", "met", "at_edge")},
        "n": own.n,
        "zeroshot": own.base,
        "accuracy": own.accuracy,
        "drop": own.base - own.accuracy,
        "low": -own.change.high,
        "high": -own.change.low,
        "level": LEVEL,
        "flips": own.flips,
        "control": "+".join(control),
        "control_n": sum(test.n for test in control.values()),
        "control_zeroshot": fmean(test.base for test in control.values()),
        "control_accuracy": fmean(test.accuracy for test in control.values()),
        "control_kept": min(
            (test.accuracy / test.base for test in control.values() if test.base), default=None
        ),
        "control_flips": flips_of(control.values()),
    }


STUDY = Negation
