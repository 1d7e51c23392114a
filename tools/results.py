"""The page on results: `python -m tools.results METHODS TWO_BASES docs/results.md`.

Made from the tables of finished runs of `presets/methods.yaml` and `presets/two-bases.yaml`, whose folders of
results are named; no number on the page is written by hand, and whatever comes out is reported.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from taskgrid.plugins.cards import merger_card
from taskgrid.results import read_frame, read_grid
from taskgrid.store.atomic import write_text
from tools import two_bases
from tools.pages import interval, markdown, percent

_HEAD = """# Results on the embedded default

Made from the tables of runs of `presets/methods.yaml` and, at the end, `presets/two-bases.yaml` by
`python -m tools.results METHODS TWO_BASES docs/results.md`; whatever order came out is reported. How options
and λ were chosen, what is tested and what *tied* means: [comparison](studies/comparison.md). The methods:
[overview](methods/README.md).

"""

_NOTES = """
Accuracy and normalised accuracy are means over tasks on test, in percent, with 95 % intervals. *chosen*:
the options in which the method's entries differ, and the point; both were chosen on validation. *tied*:
the best of its kind, or not told from it; with one model, or with more than one (‡). *p*: of the paired
test against the best of its kind, corrected by Holm. *sees*: what the merge itself sees of data. *s*:
seconds before λ comes in, on one core of the machine of this run, which may have been busy. *MB*: kept
beside the base. † has seen test images.
"""


def page(methods: pd.DataFrame, grid: pd.DataFrame) -> str:
    """Return the page.

    Args:
        methods: the table ``comparison/methods``.
        grid: rows of the grid, for zero-shot and experts.
    """
    parts = [_HEAD]
    for (model, mode, seed), lines in methods.groupby(["model", "mode", "seed"], sort=True):
        test = grid[(grid["split"] == "test") & (grid["model"] == model)]
        own = test[(test["method"] == "expert") & (test["mode"] == mode) & (test["seed"] == seed)]
        own = own[own["subset"] == own["task"]]
        base = test[test["method"] == "zeroshot"]
        tasks = sorted(own["task"])
        entries = _entries(grid[(grid["mode"] == mode) & (grid["seed"] == seed)])
        parts.append(
            f"## {model}, mode {mode}, seed {seed}\n\n"
            f"{len(tasks)} tasks, all merged: {', '.join(tasks)}; {int(own['n'].sum()):,} test images. "
            f"Zero-shot {percent(base['accuracy'].mean())}, experts on their own tasks "
            f"{percent(own['accuracy'].mean())}.\n\n{_words(lines)}\n\n"
        )
        rows = [_row(line, entries) for line in lines.to_dict("records")]
        parts.append(markdown(_HEADS, rows))
    return "".join([*parts, _NOTES])


_HEADS = ["method", "chosen", "accuracy", "normalised", "tied", "p", "sees", "s", "MB"]


def _words(lines: pd.DataFrame) -> str:
    """Say who is best, and who is tied with it, of each kind."""
    said = []
    for words, kind in (
        ("one model", lines[lines["gives"] == "model"]),
        ("more than one", lines[lines["gives"] != "model"]),
    ):
        if kind.empty:
            continue
        best = kind["best"].iloc[0]
        tied = [f"`{name}`" for name in kind.loc[kind["tied"] & (kind["method"] != best), "method"]]
        others = f"tied with {', '.join(tied)}" if tied else "and none is tied with it"
        said.append(f"Of methods with {words} the best is `{best}`, {others}.")
    return " ".join(said)


def _entries(grid: pd.DataFrame) -> dict[str, set[str]]:
    """Return the options of every entry, by method."""
    return {str(name): set(part["options"]) for name, part in grid.groupby("method")}


def _row(line: Mapping[Any, Any], entries: Mapping[str, set[str]]) -> list[str]:
    method = line["method"]
    marks = ("" if line["gives"] == "model" else " ‡") + (" †" if line["transductive"] else "")
    seconds = line["prepare_seconds"]
    return [
        f"[`{method}`](methods/{method}.md){marks}",
        _chosen(line, entries[method]),
        interval(line, "accuracy"),
        interval(line, "normalized"),
        "yes" if line["tied"] else "",
        "" if pd.isna(line["p_holm"]) else _p(line["p_holm"]),
        line["sees"],
        "" if pd.isna(seconds) else _seconds(seconds),
        f"{line['storage_mb']:.1f}" if line["storage_mb"] else "0",
    ]


def _chosen(line: Mapping[Any, Any], entries: set[str]) -> str:
    own = json.loads(line["options"])
    others = [json.loads(entry) for entry in entries]
    words = [
        f"{name} {value}"
        for name, value in own.items()
        if any(other.get(name) != value for other in others)
    ]
    if merger_card(line["method"]).coefficient != "none":
        words.append(f"λ {line['point']}" + (" (edge)" if line["at_edge"] else ""))
    return ", ".join(words)


def _seconds(value: float) -> str:
    return f"{value:.2g}" if value < 100 else f"{value:.0f}"


def _p(value: float) -> str:
    return "< 0.01" if value < 0.01 else f"{value:.2f}"


if __name__ == "__main__":
    results, across, made = map(Path, sys.argv[1:])
    table = read_frame(results / "tables" / "comparison" / "methods.parquet")
    write_text(made, page(table, read_grid(results)) + two_bases.section(two_bases.read(across)))
