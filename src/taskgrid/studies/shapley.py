"""Shapley values: what each task vector contributes to the merge of all (Shapley 1953).

The tasks are the players, and the value of a set is what its merge, at the point that was chosen for
it, gains over the base in mean accuracy on test:

    v(S) = 1/T sum_t [ a_S(t) - a_0(t) ],      v({}) = 0,

where a_S(t) is the accuracy of the merge of S on task t, and a_0(t) that of the base. A task outside of S
is answered by the base, as one who knows which task an image belongs to would do, or, with ``outside``,
by the merge itself, which may help or harm it. The value of a task is its mean gain over all orders in
which the tasks can join,

    phi_i = sum_{S without i} |S|! (T - |S| - 1)! / T! [ v(S + i) - v(S) ],

and all values add up to v of all tasks. It is linear in v, and v is a mean over images: so every image has
values of its own, their means are the tasks' values, and resampling images gives intervals in which all
subsets see the same images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NoReturn

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from taskgrid.errors import ArtifactError, ConfigError, DataError
from taskgrid.lattice.subsets import subset_name, subset_of_number
from taskgrid.plugins.cards import Column, StudyCard, TableCard
from taskgrid.plugins.options import Option, Options
from taskgrid.provenance.digests import derive_seed
from taskgrid.store.outcome import Outcome
from taskgrid.studies.rows import RUN, laid_out
from taskgrid.studies.seam import Field, Reading, Results

CARD = StudyCard(
    title="Shapley values of tasks",
    paper="Shapley, A Value for n-Person Games, Contributions to the Theory of Games II, 1953",
    options={
        "score": Option(
            default="accuracy",
            choices=("accuracy", "normalized_accuracy"),
            about="what the value of a subset is a mean of",
        ),
        "outside": Option(
            default=False,
            about="measure the tasks outside a subset on its merge (needs evaluation.outside), instead of "
            "answering them with the base",
        ),
        "tasks": Option(
            default=None,
            kind="names",
            about="the tasks that are players; null is all that have an expert",
        ),
        "study": Option(default="addition", about="the study whose chosen points are valued"),
        "draws": Option(default=2000, least=1, most=1_000_000, about="bootstrap samples"),
    },
    tables={
        "values": TableCard(
            row="a task's contribution to the merge of all tasks, by one method",
            columns={
                "model": None,
                "mode": None,
                "seed": None,
                "method": None,
                "options": None,
                "task": None,
                "value": Column(
                    kind="number",
                    about="the task's Shapley value: its mean gain in the mean score on test over all orders "
                    "in which tasks join; those of all tasks add up to the gain of their merge over the base",
                ),
                "share": Column(
                    kind="number",
                    about="`value` as a share of the sum over tasks; null where that is zero",
                ),
                "low": None,
                "high": None,
                "level": None,
                "alone": Column(
                    kind="number",
                    about="gain of the merge of this task alone, its value if it were the first to join",
                ),
            },
        )
    },
    figures=("shapley",),
)

LEVEL = 0.95
"""Coverage of the intervals."""

_SETS_AT_ONCE = 1024
_DRAWS_AT_ONCE = 64

Floats = NDArray[np.float64]

Keys = Mapping[tuple[str, str], str]
"""Keys of test rows by (subset, task)."""


def shapley_weights(players: int) -> Floats:
    """Return what the value of each set counts for each player: ``weights @ v`` are the Shapley values.

    Args:
        players: T of them; player i is bit i of a set's number.

    Returns:
        Shape (T, 2**T).
    """
    sets = np.arange(1 << players)
    sizes = np.array([number.bit_count() for number in range(1 << players)])
    orders = math.factorial(players)
    joining = [math.factorial(k) * math.factorial(players - k - 1) / orders for k in range(players)]
    weights = np.empty((players, len(sets)))
    for player in range(players):
        inside = (sets >> player) & 1 == 1
        weights[player, inside] = np.take(joining, sizes[inside] - 1)
        weights[player, ~inside] = -np.take(joining, sizes[~inside])
    return weights


class Shapley(Reading):
    """The study ``shapley``: exact values from the grid, intervals from the stored outcomes."""

    def check(self, field: Field, subsets: Container[tuple[str, ...]]) -> None:
        """Refuse a grid that lacks a subset of the players."""
        players = sorted(self.options.tasks or field.trained)
        for size in range(1, len(players) + 1):
            for subset in combinations(players, size):
                if subset not in subsets:
                    raise ConfigError(
                        f"study 'shapley' needs every subset of its {len(players)} tasks, and "
                        f"{'+'.join(subset)} is not on the grid; use grid.subsets: all, name fewer tasks in "
                        "the study's option `tasks`, or take shapley out of studies"
                    )

    def table(self, name: str, results: Results) -> pa.Table:
        """Return the values of every run and method that merges every subset of the players.

        Raises:
            DataError: if there is none, or a player has no expert.
            ArtifactError: if an outcome behind a row is not stored any more.
        """
        test = results.grid[results.grid["split"] == "test"]
        chosen = results.selected[results.selected["study"] == self.options.study]
        on = [*RUN, "subset", "point"]
        merged = test.merge(chosen[on].drop_duplicates([*RUN, "subset"]), on=on)
        games: dict[tuple[Any, ...], _Game] = {}
        for run, part in merged.groupby(list(RUN), sort=True):
            model, mode, seed, method, _ = run
            own = test[test["model"] == model]
            experts = own[
                (own["method"] == "expert") & (own["mode"] == mode) & (own["seed"] == seed)
            ]
            games[run] = _Game(
                words=f"{method} ({model}, {mode}, seed {seed})",
                players=self._players(set(experts["subset"]), results.tasks),
                merges=_keys(part),
                base=_keys(own[own["method"] == "zeroshot"]),
                experts=_keys(experts),
                options=self.options,
                find=results.find,
            )
        whole = {run: game for run, game in games.items() if not game.lacking}
        for game in () if whole else games.values():
            game.refuse()
        rows = [
            {**dict(zip(RUN, run, strict=True)), **row}
            for run, game in whole.items()
            for row in game.rows()
        ]
        return laid_out(CARD.tables[name], rows)

    def _players(self, trained: set[str], tasks: Sequence[str]) -> tuple[str, ...]:
        wanted: list[str] = self.options.tasks or [task for task in tasks if task in trained]
        for task in wanted:
            if task not in trained:
                raise DataError(
                    f"task {task!r} has no expert, so it has no Shapley value; leave it out of `tasks` of "
                    "the study 'shapley'"
                )
        return tuple(sorted(wanted))


@dataclass(frozen=True)
class _Game:
    """The merges of one run by one method, as a game of its tasks."""

    words: str
    players: tuple[str, ...]
    merges: Keys
    base: Keys
    experts: Keys
    options: Options
    find: Callable[[Iterable[str]], Mapping[str, Outcome]]

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield a row per player, without what names the run."""
        games = [game for task in self.players if (game := self._on(task)) is not None]
        if not games:
            raise DataError(
                f"no expert of {self.words} gets anything right on test, so nothing can be normalised; set "
                "`score: accuracy` of the study 'shapley'"
            )
        values = np.mean([game.values for game in games], axis=0)
        alone = np.mean([game.alone for game in games], axis=0)
        drawn = np.mean([game.drawn for game in games], axis=0)
        low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
        total = math.fsum(values)
        for place, task in enumerate(self.players):
            yield {
                "task": task,
                "value": float(values[place]),
                "share": float(values[place] / total) if abs(total) > 1e-12 else None,
                "low": _known(low[place]),
                "high": _known(high[place]),
                "level": LEVEL,
                "alone": float(alone[place]),
            }

    def _sets(self, task: str) -> list[int]:
        """Return the sets whose merge is measured on a task."""
        own = 1 << self.players.index(task)
        return [
            number
            for number in range(1, 1 << len(self.players))
            if self.options.outside or number & own
        ]

    def _name(self, number: int) -> str:
        return subset_name(subset_of_number(number, self.players))

    @property
    def lacking(self) -> tuple[str, ...]:
        """The subsets without a row that the values need."""
        found = {
            self._name(number): None
            for task in self.players
            for number in self._sets(task)
            if (self._name(number), task) not in self.merges
        }
        return tuple(found)

    def refuse(self) -> NoReturn:
        """Say what is lacking."""
        advice = "evaluate all of them, or name fewer `tasks`"
        if self.options.outside:
            advice = f"set evaluation.outside to true, and {advice}"
        raise DataError(
            f"Shapley values need every subset of the {len(self.players)} tasks: {len(self.lacking)} of "
            f"{(1 << len(self.players)) - 1} lack a row on test at a point that "
            f"{self.options.study!r} chose for {self.words}, e.g. {self.lacking[0]}; {advice}"
        )

    def _on(self, task: str) -> _Played | None:
        """Return what the game comes to on the images of a task; None where it has no score."""
        normalised = self.options.score == "normalized_accuracy"
        base = self._hits([self.base["", task]])[0]
        ceiling = self._hits([self.experts[task, task]])[0] if normalised else np.ones_like(base)
        if not ceiling.any():
            return None
        weights, sets = shapley_weights(len(self.players)), self._sets(task)
        each = np.zeros((len(self.players), len(base)))
        alone = np.zeros(len(self.players))
        for start in range(0, len(sets), _SETS_AT_ONCE):
            numbers = sets[start : start + _SETS_AT_ONCE]
            gains = self._hits([self.merges[self._name(number), task] for number in numbers]) - base
            each += weights[:, numbers] @ gains
            for number, gain in zip(numbers, gains, strict=True):
                if number.bit_count() == 1:
                    alone[number.bit_length() - 1] = gain.sum() / ceiling.sum()
        seed = derive_seed("shapley", self.base["", task])
        return _Played(
            values=each.sum(axis=1) / ceiling.sum(),
            alone=alone,
            drawn=_bootstrap(each, ceiling, self.options.draws, seed),
        )

    def _hits(self, keys: Sequence[str]) -> Floats:
        found = self.find(set(keys))
        if lost := [key for key in keys if key not in found]:
            raise ArtifactError(
                f"{len(lost)} outcomes behind {self.words} are not in the store any more; delete its rows "
                "under results/eval and run again"
            )
        return np.stack([found[key].hits() for key in keys]).astype(np.float64)


@dataclass(frozen=True)
class _Played:
    """Of T players on one task's images: values and gains alone, shape (T,), and (draws, T) resampled."""

    values: Floats
    alone: Floats
    drawn: Floats


def _bootstrap(each: Floats, ceiling: Floats, draws: int, seed: int) -> Floats:
    """Resample images: sums of ``each``, shape (T, n), over those of ``ceiling``; shape (draws, T)."""
    generator = np.random.Generator(np.random.PCG64(seed))
    n = len(ceiling)
    parts = []
    for start in range(0, draws, _DRAWS_AT_ONCE):
        rows = min(_DRAWS_AT_ONCE, draws - start)
        places = generator.integers(0, n, (rows, n)) + n * np.arange(rows)[:, None]
        times = np.bincount(places.ravel(), minlength=rows * n).reshape(rows, n).astype(np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            parts.append((times @ each.T) / (times @ ceiling)[:, None])
    return np.concatenate(parts)


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _keys(rows: pd.DataFrame) -> Keys:
    columns = zip(rows["subset"], rows["task"], rows["key"], strict=True)
    return {(subset, task): key for subset, task, key in columns}


STUDY = Shapley
