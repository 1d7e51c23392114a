"""The study seam: what a question wants measured, how it chooses, and the tables that are its own.

A study sees counts and tables, never weights or images. Of each subset it has any number of questions. It
says which points a question wants on validation, is asked again with their curves until it wants no
more, and chooses. The test split is then read for the chosen point alone. The choice is stored beside the
rows and never made twice. From the finished grid a study makes tables of its own, and figures draw those.

A study is one module with a ``CARD`` and a class ``STUDY``, made from its options, and one line in the
registry.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from taskgrid.plugins.options import Options
from taskgrid.store.outcome import Outcome

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Field:
    """What a study may know before anything is measured.

    Attributes:
        trained: tasks with an expert, sorted.
        control: tasks that are measured and have none, sorted.
        scaled: whether a point's number is a coefficient of the task vectors, which may be negative.
        method: the merge method; empty where any is meant.
    """

    trained: tuple[str, ...]
    control: tuple[str, ...] = ()
    scaled: bool = True
    method: str = ""


@dataclass(frozen=True)
class Question:
    """What a study asks of one subset.

    Attributes:
        subset: the merged tasks, sorted.
        tasks: the tasks that are measured, sorted; they need no expert.
        about: tells the questions of one subset apart, e.g. ``svhn``; empty where there is one.
    """

    subset: tuple[str, ...]
    tasks: tuple[str, ...]
    about: str = ""


@dataclass(frozen=True)
class Curves:
    """Validation results of one question at every point; counts, so that sums are exact.

    Attributes:
        subset: the tasks that are merged, sorted.
        points: coefficients as text, in order; P of them.
        tasks: the T tasks that are measured.
        n: samples of each task, shape (T,).
        correct: samples classified correctly, shape (P, T).
        expert: the same for each task's own expert, 0 where it has none, shape (T,).
        zeroshot: the same for the base, shape (T,).
    """

    subset: tuple[str, ...]
    points: tuple[str, ...]
    tasks: tuple[str, ...]
    n: Counts
    correct: Counts
    expert: Counts
    zeroshot: Counts


@dataclass(frozen=True)
class Choice:
    """The point that a study chose.

    Attributes:
        point: coefficients as text.
        at_edge: whether it is the first or last of several: the best one may then lie outside of what
            was swept.
        met: whether it meets what the study asks; where nothing does, the choice is what comes nearest.
    """

    point: str
    at_edge: bool
    met: bool = True


@dataclass(frozen=True)
class Brought:
    """How experts of another base came to this one.

    Attributes:
        aligner: who brought them.
        options: its options.
        images: how many images of each task it saw, 0 for all that there are; None where it sees none.
        draw: which draw of them.
        mode: their mode, as their own run calls it.
        carry: whether their vectors were brought here, or they themselves: ``vector`` or ``model``.
    """

    aligner: str
    options: Mapping[str, Any] = field(default_factory=dict)
    images: int | None = None
    draw: int = 0
    mode: str = ""
    carry: str = "vector"


@dataclass(frozen=True)
class Results:
    """The finished grid, from which a study makes its tables.

    Attributes:
        label: the study's name in tables.
        grid: rows of the grid, columns of ``results/tables/grid.parquet``.
        selected: the chosen points of all studies, columns of ``results/tables/selected.parquet``.
        find: finds outcomes by row key, with hits and predicted classes of every image.
        tasks: the tasks in the order of the configuration.
        costs: what merges cost, columns of ``results/tables/costs.csv``; None where nobody counted.
        measured: of a study whose card says ``measured``, what its rule saw of each run for this table.
        brought: the modes of the grid whose experts are another base's, and how they came here.
    """

    label: str
    grid: pd.DataFrame
    selected: pd.DataFrame
    find: Callable[[Iterable[str]], Mapping[str, Outcome]]
    tasks: tuple[str, ...]
    costs: pd.DataFrame | None = None
    measured: tuple[pa.Table, ...] = ()
    brought: Mapping[str, Brought] = field(default_factory=dict)

    @property
    def own(self) -> pd.DataFrame:
        """The points that the study itself chose."""
        chosen: pd.DataFrame = self.selected[self.selected["study"] == self.label]
        return chosen


class Study(Protocol):
    """A question asked of the grid."""

    def check(self, field: Field, subsets: Container[tuple[str, ...]]) -> None:
        """Refuse options that the tasks do not fit, before anything is measured.

        Args:
            field: all tasks of the experiment.
            subsets: all subsets that are merged.

        Raises:
            ConfigError: if something that the options name would never be asked.
        """
        ...

    def questions(self, subset: tuple[str, ...], field: Field) -> Sequence[Question]:
        """Return what is asked of a subset; nothing, where the study does not cover it.

        A block of the grid may know no more tasks than its own questions need: these must be the same
        ones when ``field`` is restricted to them.

        Raises:
            ConfigError: if the subset cannot be asked what the options say.
        """
        ...

    def points(
        self, question: Question, sweep: Sequence[str], curves: Curves | None
    ) -> Sequence[str]:
        """Return the points that are wanted on validation.

        Args:
            question: one of ``questions``.
            sweep: the configured points of its subset, in order.
            curves: what is known: the curves of all that was wanted so far; None when asked first. The
                study is content when it wants nothing that is not among their points.
        """
        ...

    def choose(self, question: Question, curves: Curves) -> Choice:
        """Return the chosen point; whatever else was swept must not change the choice."""
        ...

    def table(self, name: str, results: Results) -> pa.Table:
        """Return one of the tables on the study's card; asked only of a study whose card names any."""
        ...


class Choosing:
    """What a study need not say: one question of each subset, on its own tasks, over the whole sweep."""

    def __init__(self, options: Options | None = None) -> None:
        self.options = options or Options()

    def check(self, field: Field, subsets: Container[tuple[str, ...]]) -> None:
        """Refuse nothing."""

    def questions(self, subset: tuple[str, ...], field: Field) -> Sequence[Question]:
        """Ask of every subset how it does on its own tasks."""
        return (Question(subset, subset),) if subset else ()

    def points(
        self, question: Question, sweep: Sequence[str], curves: Curves | None
    ) -> Sequence[str]:
        """Want the configured points."""
        return sweep

    def table(self, name: str, results: Results) -> pa.Table:
        """Refuse: there are none."""
        raise NotImplementedError(f"{type(self).__name__} has no table {name!r}")


class Reading(Choosing):
    """A study that measures nothing: it reads what the grid holds."""

    def questions(self, subset: tuple[str, ...], field: Field) -> Sequence[Question]:
        """Ask nothing."""
        return ()

    def choose(self, question: Question, curves: Curves) -> Choice:
        """Refuse: nothing was asked."""
        raise NotImplementedError(f"{type(self).__name__} chooses nothing")
