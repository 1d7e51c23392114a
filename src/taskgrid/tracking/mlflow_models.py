"""MLflow's registry of models, written from what lies in the results: the same weights, the same version."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from taskgrid.tracking.mlflow_artifacts import put_files
from taskgrid.tracking.models import CARD, CURRENT, FOLDER, RegisteredModel
from taskgrid.tracking.target import Target

_DIGEST = "digest"


def register_models(
    client: MlflowClient,
    target: Target,
    models: Sequence[RegisteredModel],
    runs: Mapping[str, str],
) -> int:
    """Bring the registered models level.

    The files come first, then the version, then its alias, so that whoever dies between any two of them
    leaves nothing that the next call does not complete.

    Args:
        client: of the registry.
        target: the registry.
        models: the models.
        runs: ids of the records' current runs, by ``point_id``.

    Returns:
        How many versions were made.
    """
    made = 0
    for model in models:
        _ensure(client, model)
        versions = client.search_model_versions(f"name = '{model.name}'")
        version = next((each for each in versions if _is_of(each, model, target)), None)
        if version is None:
            version = _create(client, target, model, runs[model.point_id])
            made += 1
        elif version.description != model.card:
            put_files(client, target, str(version.run_id), (), {CARD: model.card}, FOLDER)
            client.update_model_version(model.name, version.version, model.card)
        aliases = client.get_registered_model(model.name).aliases
        if str(aliases.get(CURRENT)) != str(version.version):
            client.set_registered_model_alias(model.name, CURRENT, version.version)
    return made


def _ensure(client: MlflowClient, model: RegisteredModel) -> None:
    try:
        client.get_registered_model(model.name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        client.create_registered_model(model.name, dict(model.tags))


def _is_of(version: ModelVersion, model: RegisteredModel, target: Target) -> bool:
    tags = version.tags
    return tags.get(_DIGEST) == model.digest and tags.get("project") == target.project


def _create(client: MlflowClient, target: Target, model: RegisteredModel, run: str) -> ModelVersion:
    put_files(client, target, run, model.files, {CARD: model.card}, FOLDER)
    return client.create_model_version(
        model.name,
        f"{client.get_run(run).info.artifact_uri}/{FOLDER}",
        run,
        {**model.tags, _DIGEST: model.digest, "project": target.project},
        description=model.card,
    )
