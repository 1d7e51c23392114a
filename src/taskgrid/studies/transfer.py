"""Task vectors on another base: how many labelled images does it take, and would fine-tuning do as well?

Experts that an aligner brought to this base (``transport``) are lines of a plot of accuracy against the
labelled images per task that the aligner saw. The floor is zero-shot, the ceiling this base's own experts.
Two lines matter: the vector as it is (aligner ``none``), and the base fine-tuned with the same images
(``few_shot``); every other line is compared with both on the same test images, and with ``few_shot`` at the
same draws of training images.

Scores are means over tasks, of the vector as it came (coefficient ``one``) and at the lambda that validation
chose for each task (``chosen``), which takes more labelled images than the few.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from taskgrid.errors import ArtifactError
from taskgrid.plugins.cards import Column, StudyCard, TableCard
from taskgrid.plugins.options import Option, Options
from taskgrid.provenance.digests import canonical_json, derive_seed
from taskgrid.store.intervals import Interval, percentiles
from taskgrid.studies.rows import laid_out
from taskgrid.studies.seam import Brought, Reading, Results

if TYPE_CHECKING:
    import pandas as pd

CARD = StudyCard(
    title="Transfer to another base",
    paper="Kawamoto et al., Cross-Model Transfer of Task Vectors via Few-Shot Orthogonal Alignment, "
    "arXiv 2505.12021",
    options={
        "study": Option(default="addition", about="the study whose chosen points are read"),
        "method": Option(
            default="task_arithmetic", about="the merge method that scales a single vector there"
        ),
        "ceiling": Option(
            default=None,
            kind="text",
            about="the mode of the target's own experts; null is the one that the brought experts have in "
            "their own run",
        ),
        "draws": Option(default=2000, least=1, most=1_000_000, about="bootstrap samples"),
    },
    tables={
        "curves": TableCard(
            row="an aligner with its options, at a number of images per task; means over tasks",
            columns={
                "model": None,
                "seed": Column(kind="integer", about="seed of the experts that were brought"),
                "aligner": Column(
                    kind="text",
                    about="how they were brought; `none` is the vector as it is, `few_shot` fine-tuning in "
                    "its place",
                ),
                "options": Column(kind="text", about="its options, as JSON with sorted keys"),
                "images": Column(
                    kind="integer",
                    about="images of each task that the aligner saw, 0 for all that there are; null where "
                    "it sees none",
                ),
                "repeats": Column(kind="integer", about="how many draws of them the line is a mean of"),
                "coefficient": Column(
                    kind="text",
                    about="`one`: the expert as it was brought; `chosen`: each task's vector at the lambda "
                    "that validation chose",
                ),
                "tasks": None,
                "accuracy": Column(
                    kind="number", about="accuracy on test, the mean over tasks and draws"
                ),
                "accuracy_low": Column(
                    kind="number",
                    about="lower end of the interval of `accuracy`: a bootstrap over draws and test images",
                ),
                "accuracy_high": Column(kind="number", about="upper end of it"),
                "level": None,
                "zeroshot": Column(kind="number", about="accuracy of the base on the same images"),
                "ceiling": Column(
                    kind="number",
                    about="accuracy of the base's own experts, each on its task; null where there are none",
                ),
                "recovered": Column(
                    kind="number",
                    about="`accuracy` on the way from `zeroshot`, 0, to `ceiling`, 1; null where that is no "
                    "way up",
                ),
                "over_direct": Column(
                    kind="number",
                    about="`accuracy` minus that of the vector as it is; null where aligner `none` is not "
                    "configured, and for itself",
                ),
                "over_direct_low": Column(
                    kind="number",
                    about="lower end of its interval: both see the same test images",
                ),
                "over_direct_high": Column(kind="number", about="upper end of it"),
                "over_few_shot": Column(
                    kind="number",
                    about="`accuracy` minus that of fine-tuning with the same images; null where there is "
                    "none, and for itself",
                ),
                "over_few_shot_low": Column(
                    kind="number",
                    about="lower end of its interval: both see the same draws and the same test images",
                ),
                "over_few_shot_high": Column(kind="number", about="upper end of it"),
            },
        )
    },
    figures=("transfer",),
)  # fmt: skip

LEVEL = 0.95
"""Coverage of the intervals."""

DIRECT, FEW_SHOT = "none", "few_shot"
"""The aligners that the others are compared with."""

Floats = NDArray[np.float64]

Hits: TypeAlias = dict[str, dict[int, Floats]]
"""Task -> draw of the training images -> which test images are right, ``(n,)``."""


class Line(NamedTuple):
    """What is drawn as a point of a line: all but the draw of the images."""

    model: str
    seed: int
    aligner: str
    options: str
    images: int | None


class Transfer(Reading):
    """The study ``transfer``: a row per line, number of images and coefficient."""

    def table(self, name: str, results: Results) -> pa.Table:
        """Return the curves; no row where no expert was brought.

        Raises:
            ArtifactError: if an outcome behind a row is not stored any more.
        """
        rows: list[dict[str, Any]] = []
        for coefficient, found in (
            ("one", _brought(results)),
            ("chosen", _at_chosen_points(results, self.options)),
        ):
            lines = _lines(found, results)
            for line in sorted(lines, key=_order):
                row = {"coefficient": coefficient, **self._row(line, lines, coefficient)}
                rows.append({**row, **_levels(line, row, results, self.options.ceiling)})
        return laid_out(CARD.tables[name], rows)

    def _row(self, line: Line, lines: Mapping[Line, Hits], coefficient: str) -> dict[str, Any]:
        hits, seeds = lines[line], (*line, coefficient)
        parts = [np.stack(list(draws.values())) for draws in hits.values()]
        row = {
            **line._asdict(),
            "repeats": min(map(len, parts)),
            "tasks": "+".join(sorted(hits)),
            "level": LEVEL,
            **self._mean("accuracy", parts, seeds),
        }
        for name, aligner, images in (
            ("over_direct", DIRECT, None),
            ("over_few_shot", FEW_SHOT, line.images),
        ):
            other = _other(line, lines, aligner, images)
            pairs = [] if other is None else _differences(hits, other, images is not None)
            row |= self._mean(name, pairs, seeds)
        return row

    def _mean(
        self, name: str, parts: Sequence[Floats], seeds: tuple[Any, ...]
    ) -> dict[str, float | None]:
        if not parts:
            return dict.fromkeys((name, f"{name}_low", f"{name}_high"))
        seed = derive_seed("transfer", name, *map(str, seeds))
        interval = interval_over_draws(parts, self.options.draws, seed)
        mean = float(np.mean([part.mean() for part in parts]))
        return {name: mean, f"{name}_low": interval.low, f"{name}_high": interval.high}


def interval_over_draws(parts: Sequence[Floats], samples: int, seed: int) -> Interval:
    """Return the bootstrap interval of a mean over tasks, draws of training images and test images.

    Each task's draws are resampled, and so are its test images, which all draws are measured on. With a
    single draw the interval is that of the test images alone.

    Args:
        parts: of each task, scores ``(draws, n)``.
        samples: bootstrap samples.
        seed: of the samples.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    total = np.zeros(samples)
    for part in parts:
        # Images on which all draws did the same are one cell of a multinomial.
        cells, counts = np.unique(part, axis=1, return_counts=True)
        draws, n = part.shape
        images = generator.multinomial(n, counts / n, size=samples) / n
        times = generator.multinomial(draws, np.full(draws, 1 / draws), size=samples) / draws
        total += ((images @ cells.T) * times).sum(axis=1) / len(parts)
    return percentiles(total, LEVEL)


def _vectors(results: Results) -> list[str]:
    """Return the modes whose vectors were brought: of whole models the question is another."""
    return [mode for mode, how in results.brought.items() if how.carry == "vector"]


def _brought(results: Results) -> pd.DataFrame:
    """Return the test rows of experts of another base, each on its own task."""
    grid = results.grid
    own = (grid["method"] == "expert") & (grid["subset"] == grid["task"])
    return grid[own & (grid["split"] == "test") & grid["mode"].isin(_vectors(results))]


def _at_chosen_points(results: Results, options: Options) -> pd.DataFrame:
    """Return the test rows of their vectors alone, where validation chose lambda."""
    chosen = results.selected
    chosen = chosen[(chosen["study"] == options.study) & (chosen["method"] == options.method)]
    on = ["model", "mode", "seed", "method", "options", "subset", "point"]
    grid = results.grid
    alone = (grid["subset"] == grid["task"]) & grid["mode"].isin(_vectors(results))
    found = grid[alone & (grid["split"] == "test")].merge(chosen[on].drop_duplicates(), on=on)
    # Entries of the method that differ in options scale a single vector alike.
    return found.sort_values("options").drop_duplicates(["model", "mode", "seed", "task"])


def _lines(rows: pd.DataFrame, results: Results) -> dict[Line, Hits]:
    keys = _keys(rows)
    found = _found(keys.values(), results)
    lines: dict[Line, Hits] = {}
    for (model, mode, seed, task), key in sorted(keys.items()):
        how: Brought = results.brought[mode]
        line = Line(model, seed, how.aligner, canonical_json(dict(how.options)), how.images)
        lines.setdefault(line, {}).setdefault(task, {})[how.draw] = found[key]
    return lines


def _levels(
    line: Line, row: Mapping[str, Any], results: Results, ceiling: str | None
) -> dict[str, float | None]:
    """Return where a line lies between zero-shot and the target's own experts."""
    tasks = set(row["tasks"].split("+"))
    modes = {ceiling} if ceiling else {how.mode for how in results.brought.values()}
    grid = results.grid
    here = grid[
        (grid["split"] == "test") & (grid["model"] == line.model) & grid["task"].isin(list(tasks))
    ]
    experts = here[(here["method"] == "expert") & (here["subset"] == here["task"])]
    experts = experts[experts["mode"].isin(list(modes - set(results.brought)))]
    low = _mean_over(here[here["method"] == "zeroshot"], tasks)
    high = _mean_over(experts, tasks)
    recovered = None
    if low is not None and high is not None and high > low:
        recovered = (row["accuracy"] - low) / (high - low)
    return {"zeroshot": low, "ceiling": high, "recovered": recovered}


def _mean_over(rows: pd.DataFrame, tasks: set[str]) -> float | None:
    by_task = rows.groupby("task")["accuracy"].mean()
    return float(by_task.mean()) if set(by_task.index) == tasks else None


def _other(line: Line, lines: Mapping[Line, Hits], aligner: str, images: int | None) -> Hits | None:
    """Return the line of an aligner beside another line; of several the first by its options."""
    same = [
        other
        for other in lines
        if (other.model, other.seed, other.aligner, other.images)
        == (line.model, line.seed, aligner, images)
    ]
    return None if line.aligner == aligner or not same else lines[min(same, key=_order)]


def _differences(own: Hits, other: Hits, drawn: bool) -> list[Floats]:
    """Return each task's differences by draw; what saw no drawn images stands beside every draw."""
    found = []
    for task in sorted(own.keys() & other.keys()):
        theirs = other[task]
        if not drawn:
            theirs = dict.fromkeys(own[task], next(iter(theirs.values())))
        common = sorted(own[task].keys() & theirs.keys())
        if not common:
            return []
        found.append(np.stack([own[task][draw] - theirs[draw] for draw in common]))
    return found


def _found(keys: Iterable[str], results: Results) -> Mapping[str, Floats]:
    wanted = set(keys)
    found = results.find(wanted)
    if lost := sorted(wanted - found.keys()):
        raise ArtifactError(
            f"{len(lost)} outcomes behind transported experts are not in the store any more; delete their "
            "rows under results/eval and run again"
        )
    return {key: outcome.hits().astype(np.float64) for key, outcome in found.items()}


def _keys(rows: pd.DataFrame) -> dict[tuple[str, str, int, str], str]:
    names = ("model", "mode", "seed", "task", "key")
    columns = zip(*(rows[name] for name in names), strict=True)
    return {(model, mode, int(seed), task): key for model, mode, seed, task, key in columns}


def _order(line: Line) -> tuple[Any, ...]:
    return (*line[:4], -1 if line.images is None else line.images)


STUDY = Transfer
