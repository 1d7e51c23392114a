"""The experiments that runs stand in, one for each kind of record, and what their pages open with."""

from __future__ import annotations

from mlflow.entities import Experiment
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from taskgrid.tracking.records import RecordKind
from taskgrid.tracking.target import Target
from taskgrid.tracking.views import CURRENT, VIEWS

EXPERIMENTS: dict[RecordKind, str] = {
    "grid": "{}-grids",
    "subset": "{}",
    "expert": "{}-experts",
    "point": "{}-points",
}
NOTES: dict[RecordKind, str] = {
    "grid": "One run per grid: what it spans, its figures, its scores against subset size.",
    "subset": "One run per merge. **Views**, above, has the chosen points and the curves over lambda."
    "\n\nA merge is a method and a subset of tasks. `chosen/...` is its point chosen on validation, "
    "`curve/...` the sweep, with lambda as step (step 300 is lambda 0.3).",
    "expert": "One run per fine-tuned expert. **Views**, above, has them with their accuracies on test.",
    "point": "One run per grid point, its lambda as a parameter: for scatter and contour plots.",
}
LIVE = "live"
"""Tag of a run that a training fills as it goes; its value says which training."""
_NOTE = "mlflow.note.content"
_FILTER = f"\n\nWhat counts now: `{CURRENT}`."


def experiment_id(client: MlflowClient, target: Target, kind: RecordKind) -> str:
    """Return an experiment's id; it is made, or restored, where it is not there.

    Its views and, where nobody changed it, its description are brought level.

    Args:
        client: of the registry.
        target: the registry.
        kind: of the records whose runs it holds.
    """
    name = EXPERIMENTS[kind].format(target.experiment)
    wanted = _tags(kind)
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, tags=wanted))
        except MlflowException:
            # Another machine was faster; no lock file is shared with it.
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    _bring_level(client, found, wanted)
    return str(found.experiment_id)


def _tags(kind: RecordKind) -> dict[str, str]:
    views = VIEWS.get(kind, ())
    return {
        _NOTE: NOTES[kind] + _FILTER,
        # The kind spares people the question which sort of experiment this is.
        "mlflow.experimentKind": "custom_model_development",
        **{view.tag: view.value(len(views) - place) for place, view in enumerate(views)},
    }


def _bring_level(client: MlflowClient, found: Experiment, wanted: dict[str, str]) -> None:
    said = found.tags.get(_NOTE, "")
    # Every description of ours ends with the filter.
    own = not said or said.endswith(_FILTER)
    for key, value in wanted.items():
        if found.tags.get(key) != value and (own or key != _NOTE):
            client.set_experiment_tag(found.experiment_id, key, value)
