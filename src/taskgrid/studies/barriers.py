"""Barriers: how much worse than its ends the path from one expert to another is.

With L the mean over the two tasks of a model's loss, theta(0) the expert of the first and theta(1) that
of the second, the barrier of a path theta(t) is

    max over 0 < t < 1 of  L(theta(t)) - (1 - t) L(theta(0)) - t L(theta(1))

(Entezari et al., ICLR 2022). The straight path (1 - t) theta_a + t theta_b is the
point ``a:(1-t),b:t`` of task arithmetic; a second one is the curve of merge method ``bezier``, whose lambda
is t. Where the barrier is highest is looked for on **validation**, by errors; how high it is there is then
measured on test, on other images, with an interval. Both ends are the experts themselves.

A barrier by loss has no interval: the store keeps the mean loss, and of each image whether it is right.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from itertools import combinations
from typing import Any

import pyarrow as pa

from taskgrid.errors import ConfigError
from taskgrid.lattice.points import format_lambda, point_text
from taskgrid.lattice.subsets import canonical_subset, parse_subset
from taskgrid.plugins.cards import Column, StudyCard, TableCard
from taskgrid.plugins.options import Option, Options
from taskgrid.sentences import choices, shown
from taskgrid.studies.between import Measured, on_line
from taskgrid.studies.choosing import first_maximum
from taskgrid.studies.rows import RUN, laid_out
from taskgrid.studies.seam import Choice, Choosing, Curves, Field, Question, Results

CARD = StudyCard(
    title="Barriers",
    paper="Entezari et al., The Role of Permutation Invariance in Linear Mode Connectivity, ICLR 2022",
    rule="the inner point of the path with the most errors above the line between its ends, on val",
    options={
        "t": Option(
            default=[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9],
            kind="series",
            above=0,
            below=1,
            about="how far from the first expert to the second; both ends, 0 and 1, are measured too",
            origin="with its ends 11 points, as many as lambdas from 0 to 1 in tenths",
        ),
        "pairs": Option(
            default=None,
            kind="lists",
            about="lists of two tasks [A, B], whose experts are joined; null is every pair on the grid",
        ),
    },
    tables={
        "paths": TableCard(
            row="a point of a path, on the validation images of both tasks",
            columns={
                "model": None,
                "mode": None,
                "seed": None,
                "method": None,
                "options": None,
                "subset": None,
                "path": Column(
                    kind="text",
                    about="`line`, the straight path of task arithmetic, or `curve`, the one that `bezier` "
                    "trained",
                ),
                "point": None,
                "t": Column(kind="number", about="0 is the first task's expert, 1 the second's"),
                "n": Column(kind="integer", about="number of images of both tasks"),
                "accuracy": Column(kind="number", about="mean over both tasks"),
                "nll": Column(kind="number", about="mean over both tasks"),
                "excess": Column(
                    kind="number",
                    about="how many more errors than on the line between the ends: accuracy there, "
                    "(1 - t) times that of t = 0 plus t times that of t = 1, minus `accuracy`",
                ),
                "low": Column(
                    kind="number",
                    about="lower end of the interval of `excess`: a bootstrap over images, the three models "
                    "resampled together",
                ),
                "high": None,
                "level": None,
                "loss_excess": Column(
                    kind="number", about="`nll` minus that on the line between the ends; no interval"
                ),
            },
        ),
        "pairs": TableCard(
            row="a path from one expert to another",
            columns={
                "model": None,
                "mode": None,
                "seed": None,
                "method": None,
                "options": None,
                "subset": None,
                "path": Column(
                    kind="text",
                    about="`line`, the straight path of task arithmetic, or `curve`, the one that `bezier` "
                    "trained",
                ),
                "point": None,
                "t": Column(kind="number", about="where validation has the most errors above the line"),
                "n": Column(kind="integer", about="number of test images of both tasks"),
                "first": Column(
                    kind="number",
                    about="accuracy of the first task's expert on test, mean over both tasks: t = 0",
                ),
                "second": Column(kind="number", about="the same of the second's: t = 1"),
                "accuracy": Column(kind="number", about="the same of the model at `t`"),
                "barrier": Column(
                    kind="number",
                    about="the barrier by errors on test, at `t`: (1 - t) `first` + t `second` - "
                    "`accuracy`; below zero where the path is better than the line between its ends",
                ),
                "low": Column(
                    kind="number",
                    about="lower end of the interval of `barrier`: a bootstrap over images, the three models "
                    "resampled together",
                ),
                "high": None,
                "level": None,
                "val_barrier": Column(
                    kind="number", about="the same on validation, where `t` was looked for"
                ),
                "loss_barrier": Column(
                    kind="number", about="the barrier by loss on validation (nats), at its own t"
                ),
                "loss_t": Column(kind="number", about="where that is"),
            },
        ),
    },
    figures=("barriers",),
)  # fmt: skip

_LINE, _CURVE = "line", "curve"
_PATHS = {"task_arithmetic": _LINE, "bezier": _CURVE}
"""The methods that have a path, and what it is called."""


class Barriers(Choosing):
    """The study ``barriers``: the paths between two experts, their ends included."""

    def __init__(self, options: Options | None = None) -> None:
        super().__init__(options)
        if not self.options.t:
            raise ConfigError("option 't' of study 'barriers' is empty; give at least one number")
        inner = {Decimal(format_lambda(t)) for t in self.options.t}
        self._places = (Decimal(0), *sorted(inner), Decimal(1))
        for pair in self.options.pairs or ():
            if len({*pair}) != 2 or len(pair) != 2:
                raise ConfigError(
                    f"study 'barriers' has pairs: [{', '.join(pair)}]; give two different tasks"
                )
        self._pairs = {canonical_subset(pair) for pair in self.options.pairs or ()}

    def check(self, field: Field, subsets: Container[tuple[str, ...]]) -> None:
        """Refuse pairs of tasks that are not merged with one another, and a grid without any."""
        for pair in sorted(self._pairs):
            for task in pair:
                if task not in field.trained:
                    raise ConfigError(
                        f"study 'barriers' has pairs with {shown(task)}; "
                        f"{choices(task, field.trained, 'tasks with an expert')}"
                    )
            if pair not in subsets:
                raise ConfigError(
                    f"study 'barriers' joins {' and '.join(pair)}, which are not merged alone; add "
                    f"[{', '.join(pair)}] to grid.subsets.include"
                )
        if not any(pair in subsets for pair in combinations(field.trained, 2)):
            raise ConfigError(
                "study 'barriers' joins the experts of two tasks, and no two are merged alone; write "
                "grid.subsets: {sizes: [2]}, or add a pair to grid.subsets.include"
            )

    def questions(self, subset: tuple[str, ...], field: Field) -> Sequence[Question]:
        """Ask for the path between two experts, of a method that has one."""
        path = _PATHS.get(field.method or "task_arithmetic")
        named = len(subset) == 2 and (not self._pairs or subset in self._pairs)
        return (Question(subset, subset, path),) if named and path else ()

    def points(
        self, question: Question, sweep: Sequence[str], curves: Curves | None
    ) -> Sequence[str]:
        """Want the path, with both ends."""
        return [_point(question.subset, question.about, t) for t in self._places]

    def choose(self, question: Question, curves: Curves) -> Choice:
        """Return the inner point with the most errors above the line; of equal ones the first."""
        points = self.points(question, (), None)
        rows = [curves.correct[curves.points.index(point)] for point in points]
        shares = [
            sum((Fraction(int(c), int(n)) for c, n in zip(row, curves.n, strict=True)), Fraction())
            for row in rows
        ]
        above = [
            on_line(t, shares[0], shares[-1]) - share
            for t, share in zip(self._places, shares, strict=True)
        ]
        return Choice(points[1 + first_maximum(above[1:-1])], at_edge=False)

    def table(self, name: str, results: Results) -> pa.Table:
        """Return one of the tables of paths.

        Raises:
            DataError: if the grid lacks a row.
            ArtifactError: if an outcome behind a row is not stored any more.
        """
        measured, rows = Measured(results), list[dict[str, Any]]()
        for chosen in results.own.to_dict("records"):
            named = {column: chosen[column] for column in (*RUN, "subset")}
            named["path"] = chosen["about"]
            subset = parse_subset(chosen["subset"])
            path = {}
            for t in self._places:
                point = _point(subset, chosen["about"], t)
                scores = measured.scores(named, point, t, "val")
                path[point] = {**named, "point": point, "t": float(t), **scores}
            rows += path.values() if name == "paths" else [_pair(measured, path, chosen["point"])]
        return laid_out(CARD.tables[name], rows)


def _point(subset: Sequence[str], path: str, t: Decimal) -> str:
    first, second = subset
    if path == _CURVE:
        return format_lambda(t)
    return point_text({first: float(1 - t), second: float(t)})


def _pair(measured: Measured, path: Mapping[str, Mapping[str, Any]], point: str) -> dict[str, Any]:
    """Return the row of a path: its barrier on test, beside what validation had.

    Args:
        measured: the grid.
        path: its points on validation, in order.
        point: where its barrier was looked for.
    """
    at = path[point]
    highest = max(list(path.values())[1:-1], key=lambda row: float(row["loss_excess"]))
    tested = measured.scores(at, point, Decimal(str(at["t"])), "test")
    return {
        **at,
        **tested,
        "barrier": tested["excess"],
        "val_barrier": at["excess"],
        "loss_barrier": highest["loss_excess"],
        "loss_t": highest["t"],
    }


STUDY = Barriers
