"""The views that MLflow's pages open with: which runs, which columns and charts, in which order.

MLflow (3.17) keeps saved views as tags of an experiment, ``mlflow.sharedViewState.<key>``; its pages list
them under "Views", and a link that ends in ``viewStateShareKey=<key>`` opens one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from taskgrid.tracking.records import RecordKind

CURRENT = "tags.superseded = 'false' and tags.in_grid = 'true'"
"""The filter of what counts now."""

_TAG = "mlflow.sharedViewState."
_MADE = 1_800_000_000_000
"""A moment in milliseconds: the pages list the youngest view first."""


@dataclass(frozen=True)
class View:
    """A saved view.

    Attributes:
        key: what it is called in links.
        name: what it is called in the pages.
        sort: metric by which runs are sorted, the largest first.
        columns: kind (``metrics``, ``params``, ``tags``, ``attributes``) and name of each column, and its
            width in pixels.
        charts: charts, as ``curve``, ``scatter`` and ``bars`` make them.
        drawn: whether it opens with the charts.
    """

    key: str
    name: str
    sort: str
    columns: tuple[tuple[str, str, int], ...]
    charts: tuple[Mapping[str, Any], ...] = field(default=())
    drawn: bool = False

    @property
    def tag(self) -> str:
        """Name of the experiment's tag that holds it."""
        return f"{_TAG}{self.key}"

    def value(self, made: int) -> str:
        """Return the tag's value.

        Args:
            made: its place in the list, the largest first.
        """
        return json.dumps(
            {"name": self.name, "createdAt": _MADE + made, "state": json.dumps(self._state())}
        )

    def page(self, experiment: str) -> str:
        """Return the page, behind the address of a server, that opens with the view."""
        asked = {"workflowType": "machine_learning", "viewStateShareKey": self.key}
        if self.drawn:
            asked["compareRunsMode"] = "CHART"
        return f"/#/experiments/{experiment}/runs?{urlencode(asked)}"

    def _state(self) -> dict[str, Any]:
        ids = {f"{kind}.`{name}`": width for kind, name, width in self.columns}
        return {
            "searchFilter": CURRENT,
            "orderByKey": f"metrics.`{self.sort}`",
            "orderByAsc": False,
            "startTime": "ALL",
            "lifecycleFilter": "Active",
            "modelVersionFilter": "All Runs",
            "datasetsFilter": [],
            "selectedColumns": list(ids),
            "columnOrder": [_RUN_NAME, *ids],
            "columnWidths": {_RUN_NAME: _NAME_WIDTH, **ids},
            "runsHiddenMode": "FIRST_20_RUNS",
            "hideEmptyCharts": True,
            "compareRunCharts": [
                {"uuid": f"{self.key}-{place}", **chart} for place, chart in enumerate(self.charts)
            ],
            "compareRunSections": [
                {
                    "uuid": _SECTION,
                    "name": self.name,
                    "display": True,
                    "isReordered": True,
                    "columns": 1,
                    "cardHeight": 400,
                }
            ],
            "isAccordionReordered": True,
        }


_RUN_NAME = "attributes.`Run Name`"
_NAME_WIDTH = 170
_SECTION = "taskgrid"
_CARD: Mapping[str, Any] = {
    "metricSectionId": _SECTION,
    "deleted": False,
    "isGenerated": False,
    "runsCountToCompare": 20,
}


def curve(title: str, *metrics: str, axis: str | None = None) -> Mapping[str, Any]:
    """Return a chart of curves, over another metric or else over steps."""
    across = (
        {"xAxisKey": "metric", "selectedXAxisMetricKey": axis} if axis else {"xAxisKey": "step"}
    )
    return {
        **_CARD,
        "type": "LINE",
        "displayName": title,
        "metricKey": metrics[0],
        "selectedMetricKeys": list(metrics),
        "lineSmoothness": 0,
        "scaleType": "linear",
        "xAxisScaleType": "linear",
        "useGlobalXaxisKey": False,
        **across,
    }


def scatter(title: str, x: str, y: str) -> Mapping[str, Any]:
    """Return a chart with a dot for each run."""
    axes = {"xaxis": {"key": x, "type": "METRIC"}, "yaxis": {"key": y, "type": "METRIC"}}
    return {**_CARD, "type": "SCATTER", "displayName": title, **axes, "runsCountToCompare": 100}


def bars(title: str, metric: str) -> Mapping[str, Any]:
    """Return a chart with a bar for each run."""
    return {**_CARD, "type": "BAR", "displayName": title, "metricKey": metric}


VIEWS: Mapping[RecordKind, tuple[View, ...]] = {
    "subset": (
        View(
            key="chosen",
            name="Chosen points",
            sort="size",
            columns=(
                ("metrics", "size", 60),
                ("metrics", "lambda", 75),
                ("metrics", "chosen/test_accuracy", 165),
                ("metrics", "chosen/test_accuracy_low", 195),
                ("metrics", "chosen/test_accuracy_high", 200),
                ("metrics", "chosen/test_normalized", 180),
                ("tags", "method", 120),
                ("tags", "mode", 100),
                ("tags", "seed", 60),
                ("tags", "tasks", 400),
            ),
            charts=(
                scatter("Normalised accuracy on test by size", "size", "chosen/test_normalized"),
                scatter("Chosen λ by size", "size", "lambda"),
                bars("Accuracy on test", "chosen/test_accuracy"),
            ),
        ),
        View(
            key="curves",
            name="Curves over λ",
            sort="size",
            columns=(
                ("tags", "method", 130),
                ("metrics", "size", 60),
                ("metrics", "lambda", 80),
                ("metrics", "chosen/val_normalized", 160),
            ),
            charts=(
                curve(
                    "Normalised accuracy on validation over λ",
                    "curve/val/mean_normalized",
                    axis="curve/lambda",
                ),
                curve(
                    "Accuracy on validation over λ", "curve/val/mean_accuracy", axis="curve/lambda"
                ),
            ),
            drawn=True,
        ),
    ),
    "expert": (
        View(
            key="experts",
            name="Experts",
            sort="accuracy/test",
            columns=(
                ("metrics", "accuracy/test", 125),
                ("metrics", "accuracy/test_low", 140),
                ("metrics", "accuracy/test_high", 145),
                ("metrics", "accuracy/zeroshot_test", 175),
                ("metrics", "accuracy/val", 115),
                ("attributes", "Duration", 100),
                ("attributes", "Dataset", 220),
                ("tags", "mode", 100),
                ("tags", "seed", 60),
            ),
            charts=(
                curve("Accuracy on validation", "curve/val/accuracy"),
                curve("Loss", "curve/train/loss"),
                bars("Accuracy on test", "accuracy/test"),
            ),
        ),
    ),
}
"""The views of each kind of record that has an experiment of its own, the first the one to open with."""


def pages(experiments: Mapping[RecordKind, str]) -> Iterable[tuple[str, str]]:
    """Return the views of some experiments, by id: what each is called, and its page."""
    for kind, views in VIEWS.items():
        if kind in experiments:
            for view in views:
                yield view.name, view.page(experiments[kind])
