"""The doctor: an experiment as a whole."""

from __future__ import annotations

from taskgrid.config import Experiment
from taskgrid.provenance.digests import canonical_json
from taskgrid.tracking.target import shown_uri


def needs(experiment: Experiment) -> str:
    """Return the settings of looking for what is missing: the whole configuration."""
    config = experiment.config.model_dump(mode="json")
    if uri := experiment.config.tracking.uri:
        config["tracking"]["uri"] = shown_uri(uri)
    return canonical_json(config)
