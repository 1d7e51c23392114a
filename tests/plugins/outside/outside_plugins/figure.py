"""How well the worst task of each subset does."""

from __future__ import annotations

from matplotlib.figure import Figure

from taskgrid.plots import style
from taskgrid.plots.sheet import Sheet
from taskgrid.plugins.cards import FigureCard

CARD = FigureCard(
    title="The worst task of each subset",
    category="Merging",
    tables=("worst/tasks",),
    caption="Accuracy on **test** of the worst merged task, at the point chosen on **validation**.",
)


@style.styled
def draw(tables: style.Tables, sheet: Sheet) -> Figure:
    rows = tables["worst/tasks"].sort_values("accuracy")
    figure = sheet.figure(0.6 + 0.15 * len(rows))
    axes = figure.subplots()
    axes.barh([f"{row.subset} ({row.method})" for row in rows.itertuples()], rows["accuracy"])
    axes.set_xlabel("accuracy of the worst task on test")
    return figure
