"""The experiments that runs stand in, one for each kind of record."""

from __future__ import annotations

import re

from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from taskgrid.tracking.records import RecordKind
from taskgrid.tracking.target import Target

EXPERIMENTS: dict[RecordKind, str] = {
    "grid": "{}-grids",
    "subset": "{}",
    "expert": "{}-experts",
    "point": "{}-points",
}
NOTES = {
    "{}-grids": "One run per grid: what it spans, its figures, its scores against subset size.",
    "{}": "One run per merge (method and subset of tasks), below one run per grid. Curves have "
    "lambda as step (step 300 is lambda 0.3); `chosen/...` is the point chosen on validation.",
    "{}-experts": "One run per fine-tuned expert.",
    "{}-points": "One run per grid point, its scale as a parameter: for scatter and contour plots.",
}
LIVE = "live"
"""Tag of a run that a training fills as it goes; its value says which training."""
_FILTER = "\n\nWhat counts now: `tags.superseded = 'false' and tags.in_grid = 'true'`."


def experiment_id(client: MlflowClient, target: Target, template: str) -> str:
    """Return an experiment's id; it is made, or restored, where it is not there.

    Args:
        client: of the registry.
        target: the registry.
        template: one of ``EXPERIMENTS``.
    """
    name = template.format(target.experiment)
    found = client.get_experiment_by_name(name)
    if found is None:
        folder = target.artifacts
        # A folder within the artifacts' own, also of names such as /Users/me/x or ../x.
        location = (folder / re.sub(r"[/\\]|\.\.", "_", name)).as_uri() if folder else None
        # The kind spares people the question which sort of experiment this is.
        tags = {
            "mlflow.note.content": NOTES[template] + _FILTER,
            "mlflow.experimentKind": "custom_model_development",
        }
        try:
            return str(client.create_experiment(name, location, tags))
        except MlflowException:
            # Another machine was faster; no lock file is shared with it.
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)
