"""Task vectors on another base: accuracy against the labelled images that an aligner was shown."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from taskgrid.plots import frames, style
from taskgrid.plots.sheet import Sheet
from taskgrid.plugins.cards import FigureCard

CARD = FigureCard(
    title="Transfer to another base",
    category="Another base",
    tables=("transfer/curves",),
    caption="""
    Accuracy on the **test** split of task vectors of another base, the mean over tasks, against the
    labelled images per task that the aligner was shown; aligners that see none are drawn across. Left: the
    expert as it was brought. Right: each task's vector at the λ chosen on **validation**, which takes more
    labelled images than the few. Few-shot is fine-tuning of this base with the same images. Bars and
    bands: 95 % intervals by a bootstrap over draws of the images and over test images; with several seeds
    the mean, and the span of their intervals. Dashed: this base's own experts; dotted: the base
    (zero-shot).
    """,
)

_NAMED = ("study", "model", "seed", "aligner", "options", "images", "coefficient")
_WORDS = {"one": "as brought (λ = 1)", "chosen": "at the chosen λ"}
_NAMES = {"none": "direct", "few_shot": "few-shot"}


@style.styled
def draw(tables: style.Tables, sheet: Sheet) -> Figure:
    """Draw accuracy against images: a row per study and model, a column per coefficient."""
    rows = tables["transfer/curves"]
    if rows.empty:
        return sheet.message("no expert of another base was evaluated yet")
    # So that sums of the same numbers are the same in every order of the table.
    rows = rows.sort_values([key for key in _NAMED if key in rows])
    rows = rows.assign(method=rows["aligner"].map(lambda name: _NAMES.get(name, name)))
    titles = frames.method_titles(rows)
    looks = style.looks(list(titles.values()))
    there = [name for name in _WORDS if (rows["coefficient"] == name).any()]
    by = [key for key in ("study", "model") if key in rows]
    cut = [part for _, part in rows.groupby(by, sort=True)]
    lines = [Line2D([], [], label=title, **look.line()) for title, look in looks.items()]
    figure = sheet.figure(2.1 * len(cut) + 0.3, [*lines, *style.level_handles()])
    axes = figure.subplots(len(cut), len(there), squeeze=False, sharex=True, sharey=True)
    counts = sorted({int(count) for count in rows["images"].dropna() if count})
    several = [key for key in by if rows[key].nunique() > 1]
    for line, part in zip(axes, cut, strict=True):
        for each, coefficient in zip(line, there, strict=True):
            own = part[part["coefficient"] == coefficient]
            _levels(each, own)
            for place, ((method, options), title) in enumerate(titles.items()):
                mine = own[(own["method"] == method) & (own["options"].astype(str) == options)]
                # Lines side by side, so that their bars can be told apart.
                shift = 1.06 ** (place - (len(titles) - 1) / 2)
                _line(each, mine, title, looks[title], shift)
            words = [style.label(str(part[key].iloc[0])) for key in several]
            each.set_title("\n".join([*words, _WORDS[coefficient]]))
            _axis(each, counts)
        line[0].set_ylabel("accuracy on test [%]")
    for each in axes[-1]:
        each.set_xlabel("labelled images per task")
    return figure


def _line(
    axes: Axes,
    rows: pd.DataFrame,
    title: str,
    look: style.Look,
    shift: float,
) -> None:
    seen = rows["images"].fillna(0).astype(int)
    points = rows.groupby(seen).agg(
        mean=("accuracy", "mean"), low=("accuracy_low", "min"), high=("accuracy_high", "max")
    )
    across, points = 100 * points[points.index == 0], 100 * points[points.index > 0]
    for mean, low, high in across.to_numpy(dtype=float):
        # A mark somewhere along it, so that it is told apart as the curves are.
        own = look.line(marker="")
        axes.axhline(mean, label=f"{title}: across", **own)
        axes.plot(0.5, mean, transform=axes.get_yaxis_transform(), **look.marks())
        axes.axhspan(low, high, color=look.colour, alpha=0.12, linewidth=0)
    if points.empty:
        return
    x = points.index.to_numpy(dtype=float) * shift
    axes.vlines(x, points["low"], points["high"], color=look.colour, linewidth=0.8, alpha=0.7)
    axes.plot(x, points["mean"], label=f"{title}: curve", zorder=3, **look.line())


def _levels(axes: Axes, rows: pd.DataFrame) -> None:
    for name, column in (("zero-shot", "zeroshot"), ("experts", "ceiling")):
        level = rows[column].astype(float).mean()
        if np.isfinite(level):
            axes.axhline(
                100 * level,
                color=style.GREY,
                linewidth=1.0,
                linestyle=style.REFERENCE[name],
                label=name,
                zorder=1,
            )


def _axis(axes: Axes, counts: list[int]) -> None:
    if not counts:
        axes.set_xticks([])
        return
    axes.set_xscale("log")
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.minorticks_off()
    axes.set_xlim(counts[0] / 1.5, counts[-1] * 1.5)
