"""Section `tracking`."""

from __future__ import annotations

from pydantic import StrictBool

from taskgrid.config.sections.values import Section, Text


class TrackingSpec(Section):
    """The MLflow registry."""

    uri: Text | None = None
    """Tracking URI; null is SQLite under `results/`. MLFLOW_TRACKING_URI wins, and is a better place for a
    password than a file. Logs, records and command lines hold neither user nor password."""
    experiment: Text = "taskgrid"
    """Name of the MLflow experiment."""
    points: StrictBool = False
    """Also one child run per grid point, with lambda as a parameter."""
