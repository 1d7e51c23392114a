"""Published numbers beside the run's: like with like, and where zero-shot disagrees, said aloud.

Which numbers are alike is `counterparts`'. Zero-shot accuracy needs no training and no choice, so a
difference beyond chance means that something else differs: the test images, the class names, the
preprocessing or the weights. That is a lineage problem; it has a sentence of its own and is never
hidden in an average.
"""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from taskgrid.analysis.counterparts import AVERAGE, Counterparts, Names, Row, Score
from taskgrid.analysis.literature import flag_words
from taskgrid.lattice.points import point_scale
from taskgrid.lattice.subsets import parse_subset
from taskgrid.store.intervals import wilson

COLUMNS = (
    "model",
    "mode",
    "seed",
    "lineage",
    "source",
    "method",
    "options",
    "lambda_rule",
    "point",
    "scale",
    "subset",
    "task",
    "split",
    "metric",
    "n",
    "run",
    "run_low",
    "run_high",
    "published",
    "published_low",
    "published_high",
    "difference",
    "inside",
    "problem",
    "note",
)
"""The columns of the comparison; scores are fractions.

``subset`` holds the tasks that were merged or, of zero-shot and experts, averaged over; ``task`` is
one of them or ``average``. ``run_low`` and ``run_high``: the run's 95 % interval (Wilson's for a
task, the paired bootstrap of the chosen points for their averages, a bootstrap over counts for other
averages). ``published_low`` and ``published_high``: the smallest and the largest number that the
sources of the lineage print for the same thing. ``difference`` is run minus published; ``inside``:
the published number lies in the run's interval; ``problem``: a lineage problem.
"""

_SAME = ["lineage", "study", "model", "mode", "method", "options", "lambda", "tasks", "task"]
_SAME += ["split", "metric"]


def compare(
    grid: pd.DataFrame, selected: pd.DataFrame, published: pd.DataFrame, names: Names
) -> pd.DataFrame:
    """Set published numbers beside the run's.

    Args:
        grid: rows of the grid.
        selected: the chosen points.
        published: numbers as ``read_numbers`` returns them.
        names: which of the run's names stand for which published ones.

    Returns:
        The columns ``COLUMNS``: one row per published number and run that has its like, in the
        order of the numbers.
    """
    run = Counterparts(grid, selected, names)
    numbers = _with_bands(published)
    rows = [
        _row(number, score)
        for number in numbers.to_dict("records")
        for model, theirs in names.models.items()
        if theirs == number["model"] and number["study"] != "negation"
        for score in run.of(model, number)
    ]
    table = pd.DataFrame(rows, columns=[*COLUMNS])
    table = table.astype({"seed": "Int64", "n": "Int64", "problem": bool})
    return _warn_averages(table)


def problem_sentences(table: pd.DataFrame) -> list[str]:
    """Return a sentence per task whose zero-shot accuracy no source of a lineage agrees with.

    Args:
        table: what ``compare`` returned.
    """
    zeroshot = table[(table["method"] == "zeroshot") & (table["task"] != AVERAGE)]
    sentences = []
    for _, rows in zeroshot.groupby(["model", "lineage", "task", "split"], sort=False):
        if rows["problem"].all():
            nearest = rows.iloc[int(rows["difference"].abs().to_numpy().argmin())]
            sentences.append(_sentence(nearest))
    return sentences


def _sentence(row: pd.Series[Any]) -> str:
    return (
        f"lineage problem: zero-shot accuracy of {row['model']} on {row['task']} ({row['split']}) is "
        f"{100 * row['run']:.2f} %, published {100 * row['published']:.2f} % "
        f"({row['lineage']}: {row['source']}); {row['note']}"
    )


def _with_bands(published: pd.DataFrame) -> pd.DataFrame:
    groups = published.groupby(_SAME, sort=False)
    return published.assign(
        images=published["images"].astype("float64"),
        low=groups["value"].transform("min"),
        high=groups["value"].transform("max"),
        sources=groups["source"].transform("nunique"),
    )


def _row(number: Row, score: Score) -> dict[str, Any]:
    published, lowest, highest = (_share(number[key]) for key in ("value", "low", "high"))
    known = math.isfinite(score.low) and math.isfinite(score.high)
    problem = _problem(number, score)
    remarks = [problem, *_remarks(number, score)] if problem else _remarks(number, score)
    return {
        **score.merge._asdict(),
        "lineage": number["lineage"],
        "source": number["source"],
        "lambda_rule": number["lambda"],
        "point": score.point,
        "scale": point_scale(score.point) if score.point else None,
        "task": score.task,
        "split": number["split"],
        "metric": number["metric"],
        "n": score.n,
        "run": score.value,
        "run_low": score.low,
        "run_high": score.high,
        "published": published,
        "published_low": lowest,
        "published_high": highest,
        "difference": score.value - published,
        "inside": score.low <= published <= score.high if known else None,
        "problem": bool(problem),
        "note": "; ".join(remarks),
    }


def _share(percent: float) -> float:
    return round(percent / 100, 6)  # the printed digits, not 70.4 / 100 = 0.7040000000000001


def _problem(number: Row, score: Score) -> str:
    """Say how a zero-shot accuracy disagrees beyond chance with a published one, if it does."""
    if number["method"] != "zeroshot" or score.n is None:
        return ""
    n = score.n if math.isnan(number["images"]) else min(score.n, int(number["images"]))
    low, high = wilson(number["value"] / 100 * n, n)
    if low <= score.value <= high:
        return ""
    return (
        f"outside of {100 * float(low):.2f} to {100 * float(high):.2f} % (95 %, {n:,} images): "
        "another split, other class names or templates, other preprocessing, or other weights"
    )


def _remarks(number: Row, score: Score) -> list[str]:
    remarks = [number["note"]] if number["note"] else []
    remarks += [flag_words()[flag] for flag in number["flags"].split("+") if flag]
    there = number["images"]
    if score.n is not None and not math.isnan(there) and score.n != there:
        remarks.append(f"{score.n:,} images here, {there:,.0f} there")
    if number["sources"] > 1 and number["low"] < number["high"]:
        remarks.append(
            f"{number['sources']} sources of this lineage print {number['low']:g} to "
            f"{number['high']:g} %"
        )
    return remarks


def _warn_averages(table: pd.DataFrame) -> pd.DataFrame:
    """Name, in the notes of averages, the tasks whose zero-shot accuracy disagrees."""
    found = table[table["problem"] & (table["split"] == "test")]
    notes = table["note"].tolist()
    for place, row in enumerate(table.to_dict("records")):
        if row["task"] != AVERAGE:
            continue
        same = (found["model"] == row["model"]) & (found["lineage"] == row["lineage"])
        tasks = set(found.loc[same, "task"]) & set(parse_subset(row["subset"]))
        if tasks:
            words = f"zero-shot disagrees on {', '.join(sorted(tasks))}: see there"
            notes[place] = "; ".join(filter(None, [notes[place], words]))
    return table.assign(note=notes)
