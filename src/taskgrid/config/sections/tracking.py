"""Section `tracking`."""

from __future__ import annotations

from pydantic import StrictBool, field_validator

from taskgrid.config.sections.values import Section, Text

_LONGEST = 200


class TrackingSpec(Section):
    """The MLflow registry."""

    uri: Text | None = None
    """Tracking URI; null is SQLite under `results/`. MLFLOW_TRACKING_URI wins, and is a better place for a
    password than a file. Logs, records and command lines hold neither user nor password."""
    experiment: Text = "taskgrid"
    """Name of the MLflow experiment."""
    points: StrictBool = False
    """Also one child run per grid point, with lambda as a parameter."""

    models: StrictBool = False
    """Also write the experts, and what each method merges of all tasks, as whole CLIPs and register them as
    models: as much disk as the base takes, twice, for each."""

    @field_validator("experiment")
    @classmethod
    def _a_name(cls, value: str) -> str:
        if not value.strip() or not value.isprintable() or {".", ".."} & set(value.split("/")):
            raise ValueError("this is no name of an experiment; give one such as taskgrid")
        if len(value.encode()) > _LONGEST:
            raise ValueError(f"a name of an experiment has at most {_LONGEST} bytes; shorten it")
        return value
