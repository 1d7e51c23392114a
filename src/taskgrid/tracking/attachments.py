"""What a person opens in a run: its numbers as a row, its curve as a figure. Made of the record alone."""

from __future__ import annotations

import csv
import io
from collections import defaultdict

from taskgrid.tracking.records import RunRecord

ROW = "row.csv"
FIGURE = "curve.svg"

_CURVE = "curve/"


def attachments(record: RunRecord) -> dict[str, str]:
    """Return files by name, as text; whoever has the record can make them again.

    A row holds what the run is, its settings and its single numbers. A grid's run has files of its own.
    """
    if record.kind == "grid":
        return {}
    found = {ROW: _row(record)}
    curves = {key: curve for key, curve in _curves(record).items() if len(curve) > 1}
    if curves:
        # Imported late: a second that only what is new should cost.
        from taskgrid.tracking.drawing import merge_curve, training_curve

        draw = training_curve if record.kind == "expert" else merge_curve
        found[FIGURE] = draw(record.name, curves, _numbers(record))
    return found


def _row(record: RunRecord) -> str:
    values: dict[str, object] = {"name": record.name, **record.params, **_numbers(record)}
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(values.keys())
    writer.writerow(values.values())
    return stream.getvalue()


def _numbers(record: RunRecord) -> dict[str, float]:
    return {key: value for key, value, _ in record.metrics if not key.startswith(_CURVE)}


def _curves(record: RunRecord) -> dict[str, dict[int, float]]:
    """Return curves by what they are of: step -> value."""
    found: dict[str, dict[int, float]] = defaultdict(dict)
    for key, value, step in record.metrics:
        if key.startswith(_CURVE):
            found[key.removeprefix(_CURVE)][step] = value
    return dict(found)
