"""The point at which the worst merged task does best on validation, and which task that is on test."""

from __future__ import annotations

import pyarrow as pa

from taskgrid.plugins.cards import Column, StudyCard, TableCard
from taskgrid.studies.seam import Choice, Choosing, Curves, Question, Results

CARD = StudyCard(
    title="The worst task",
    rule="first maximum of the smallest accuracy on val",
    tables={
        "tasks": TableCard(
            row="a subset, at the point chosen for it",
            columns={
                "method": None,
                "subset": None,
                "worst": Column(kind="text", about="the task with the smallest accuracy on test"),
                "accuracy": None,
            },
        )
    },
    figures=("worst",),
)


class Worst(Choosing):
    def choose(self, question: Question, curves: Curves) -> Choice:
        smallest = (curves.correct / curves.n).min(axis=1)
        return Choice(curves.points[int(smallest.argmax())], at_edge=False)

    def table(self, name: str, results: Results) -> pa.Table:
        grid, rows = results.grid, []
        test = grid[(grid["split"] == "test") & grid["in_subset"].astype(bool)]
        for chosen in results.own.itertuples():
            own = test[(test["method"] == chosen.method) & (test["subset"] == chosen.subset)]
            worst = own[own["point"] == chosen.point].sort_values(["accuracy", "task"]).iloc[0]
            rows.append((chosen.method, chosen.subset, worst["task"], worst["accuracy"]))
        columns = ("method", "subset", "worst", "accuracy")
        return pa.table({key: [row[at] for row in rows] for at, key in enumerate(columns)})


STUDY = Worst
