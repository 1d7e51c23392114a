"""The result in one table: what every method makes of all tasks, between zero-shot and the experts."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from taskgrid.plots.frames import merge_titles
from taskgrid.plots.style import label
from taskgrid.plugins.cards import merger_card
from taskgrid.report.sheets import REFERENCES, Cell, Head, Row, Sheet, head_of, percent

SEEN = " †"
"""Behind methods that have seen test images."""

Line = Mapping[Hashable, Any]
"""A line of the summary."""

_RUN = ["model", "mode", "seed"]
_METHOD = ["method", "options"]


def headline(
    summary: pd.DataFrame, tasks: Sequence[str], transductive: Collection[tuple[str, str]] = ()
) -> Sheet:
    """Return the result: of each run the base, the experts, and every method's largest merge, best first.

    Where a method merged all tasks it is that merge, at its chosen point; else the mean over the largest
    subsets there are, below the others.

    Args:
        summary: what ``analysis.summary.summarise`` returned.
        tasks: all tasks, in the order of their columns.
        transductive: method and options of merges that have seen test images.
    """
    lines = result_lines(summary)
    titles = merge_titles(summary)
    telling = [key for key in _RUN if lines[key].nunique() > 1]
    partial = bool((~lines["whole"]).any())
    keeps = bool(lines["bits_per_weight"].gt(0)[~lines["row"].eq("expert")].any())
    heads = [
        Head("method"),
        *(head_of(key) for key in telling),
        *([Head("tasks merged")] if partial else []),
        Head("λ", "the scaling coefficient, chosen on validation", number=True),
        Head("accuracy [%]", "mean over the tasks on test, with its 95 % interval", number=True),
        Head("normalised [%]", "each task's accuracy by its own expert's; with interval", True),
        Head("over zero-shot", "points of accuracy above the pre-trained model", number=True),
        *([head_of("bits_per_weight", number=True)] if keeps else []),
        *(Head(f"{label(task)} [%]", "accuracy on test", number=True) for task in tasks),
    ]
    zeroshot = lines[lines["row"] == "zeroshot"].set_index(_RUN)["accuracy"]
    rows = []
    for line in lines.to_dict("records"):
        base = zeroshot[tuple(line[key] for key in _RUN)]
        gain = None if line["row"] == "zeroshot" or not line["whole"] else line["accuracy"] - base
        name = (line["method"], line["options"])
        cells = [
            Cell(REFERENCES.get(line["row"]) or titles[name] + SEEN * (name in transductive)),
            *(Cell(str(line[key])) for key in telling),
            *([Cell(_merged(line, len(tasks)))] if partial else []),
            _coefficient(line),
            percent(line["accuracy"], line["accuracy_low"], line["accuracy_high"]),
            percent(line["normalized"], line["normalized_low"], line["normalized_high"]),
            percent(gain, signed=True),
            *([_bits(line)] if keeps else []),
            *(percent(line[task]) for task in tasks),
        ]
        rows.append(Row(cells, _kind(line)))
    return Sheet(heads, rows, total=len(rows))


def result_lines(summary: pd.DataFrame) -> pd.DataFrame:
    """Return the lines of a summary that are its result, in the order of ``headline``.

    ``whole`` says which are about all tasks; ``best`` marks the merge of all tasks that is best in its model.
    """
    frame = summary.assign(whole=summary["row"] != "size")
    largest = frame.sort_values(["whole", "size"], kind="stable").drop_duplicates(
        [*_RUN, *_METHOD], keep="last"
    )
    best_first = {"model": True, "whole": False, "size": False, "accuracy": False}
    by = largest.assign(size=largest["size"].where(~largest["whole"]))
    order = by.sort_values(list(best_first), ascending=list(best_first.values()), kind="stable")
    lines = largest.loc[order.index]
    merges = lines[lines["row"] == "all"]
    return lines.assign(best=lines.index.isin(merges.drop_duplicates("model").index))


def sentences(summary: pd.DataFrame, tasks: Sequence[str]) -> Iterator[str]:
    """Say the result in words, for each model; of methods that keep more than one model say it twice."""
    lines, titles = result_lines(summary), merge_titles(summary)
    several = lines["model"].nunique() > 1
    for model, part in lines.groupby("model", sort=True):
        about = f"{model}: " if several else ""
        merges = part[part["row"] == "all"]
        if merges.empty:
            yield (
                f"{about}No merge of all {len(tasks)} tasks was chosen here: the table shows the largest "
                "subsets there are, as means over them."
            )
            continue
        single = merges[~merges["bits_per_weight"].gt(0)]
        whose = f"{about}Of all merges of the {len(tasks)} tasks"
        for line in merges.head(1).to_dict("records"):
            same = part[(part["mode"] == line["mode"]) & (part["seed"] == line["seed"])]
            gain = line["accuracy"] - same.loc[same["row"] == "zeroshot", "accuracy"].iloc[0]
            yield (
                f"{whose}, {_scored(line, titles)}. "
                f"That is {100 * abs(gain):.1f} points {'above' if gain > 0 else 'below'} zero-shot, and "
                f"{100 * line['normalized']:.1f} % of what the tasks' own experts reach."
            )
        if single.head(1).index.equals(merges.head(1).index):
            continue
        for line in single.head(1).to_dict("records"):
            yield f"{about}Of those that leave a single model, {_scored(line, titles)}."


def _scored(line: Line, titles: Mapping[tuple[str, str], str]) -> str:
    coefficient = _coefficient(line).text
    at = f" at λ = {coefficient}" if coefficient else ""
    low, high = 100 * line["accuracy_low"], 100 * line["accuracy_high"]
    return (
        f"{titles[line['method'], line['options']]}{at} does best on test: "
        f"{100 * line['accuracy']:.1f} % (95 % interval {low:.1f} to {high:.1f})"
    )


def _merged(line: Line, tasks: int) -> str:
    if line["row"] in REFERENCES:
        return ""
    if line["whole"]:
        return f"all {tasks}"
    return f"{line['size']}, mean of {line['subsets']}"


def _coefficient(line: Line) -> Cell:
    """Return the chosen coefficient, of a single merge by a method that has one."""
    if line["row"] != "all" or merger_card(line["method"]).coefficient == "none":
        return Cell()
    return Cell(line["point"], beside="edge" if line["edges"] else "")


def _bits(line: Line) -> Cell:
    bits = line["bits_per_weight"]
    return Cell() if pd.isna(bits) else Cell(f"{bits:.3g}", repr(bits))


def _kind(line: Line) -> str:
    return "reference" if line["row"] in REFERENCES else "best" if line["best"] else ""
