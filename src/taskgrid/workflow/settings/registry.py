"""The registry: what MLflow is told."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from taskgrid.config import Experiment
from taskgrid.errors import ArtifactError
from taskgrid.plugins.cards import merger_card
from taskgrid.provenance.digests import canonical_json
from taskgrid.store.atomic import read_json
from taskgrid.tracking.project import keep_project, project_of
from taskgrid.tracking.target import shown_uri, withheld
from taskgrid.workflow import paths
from taskgrid.workflow.runs import proven_runs
from taskgrid.workflow.settings import figures


def sync(experiment: Experiment) -> str:
    """Return the settings of the registry, with the configuration that describes the grid's run."""
    # Where a grid was computed is no part of what it is.
    # Where nothing is to be proven, what a proof would need is none either.
    hidden: dict[str, Any] = {
        "tracking": True,
        "device": True,
        **({} if proven_runs(experiment) else {"evaluation": {"proof"}}),
    }
    shown = experiment.config.model_dump(mode="json", exclude=hidden)
    tracking = experiment.config.tracking
    uri = None if tracking.uri is None else shown_uri(tracking.uri)
    return canonical_json({**tracking.model_dump(), "uri": uri, "config": shown})


def secrets(experiment: Experiment) -> dict[str, str]:
    """Return what the registry's job needs in its environment, for settings are written down."""
    return withheld(experiment.config.tracking.uri)


def live(experiment: Experiment, environ: Mapping[str, str] = os.environ) -> list[str]:
    """Return the options by which a training shows its curves as it goes: none without a server."""
    tracking = experiment.config.tracking
    uri = environ.get("MLFLOW_TRACKING_URI") or tracking.uri or ""
    if not uri.startswith(("http://", "https://")):
        return []
    shown = None if tracking.uri is None else shown_uri(tracking.uri)
    where = {"uri": shown, "experiment": tracking.experiment, "results": "results"}
    return ["--tracking", canonical_json(where)]


def keep(results: str | Path) -> None:
    """Let a results folder keep the name of its runs; without it they go by the machine."""
    folder = Path(results).resolve()
    keep_project(folder, project_of(folder))


def attached(experiment: Experiment) -> list[str]:
    """Return the tables and figures that are kept with the grid's run."""
    return [
        paths.SUMMARY,
        *(path for path in figures.files(experiment) if path.endswith(".png")),
        *([paths.PRECISION_TABLE] if proven_runs(experiment) else []),
    ]


def block(experiment: Experiment, mode: str, method: str) -> str:
    """Return the settings of the run records of a block."""
    return canonical_json(
        {
            "points": experiment.config.tracking.points,
            "export": export_command(experiment, mode, method),
        }
    )


def export_command(experiment: Experiment, mode: str, method: str) -> str | None:
    """Return the command that writes a point as a file, names to fill in, where that is what was measured.

    A tangent model that others load is another function, and a method may merge what no weights hold.
    """
    gives = merger_card(experiment.method(method).name).gives
    if experiment.evaluation(mode) == "tangent" or gives not in ("model", "per_task"):
        return None
    point = "{point}@{task}" if gives == "per_task" else "{point}"
    file = f"results/export/{{model}}/{{mode}}/{{seed}}/{method}/{{subset}}/{point}.safetensors"
    return f"snakemake --cores 1 {file}"


def forget_delayed(report: str | Path) -> None:
    """Delete the report of a registry that could not be reached, so that the next call tries again.

    One that cannot be read goes as well: it says nothing that the next does not say.
    """
    path = Path(report)
    try:
        level = not path.exists() or read_json(path)["status"] == "level"
    except ArtifactError:
        level = False
    if not level:
        path.unlink()
