"""The doctor: an experiment as a whole."""

from __future__ import annotations

from taskgrid.config import Experiment
from taskgrid.provenance.digests import canonical_json


def needs(experiment: Experiment) -> str:
    """Return the settings of looking for what is missing: the whole configuration."""
    return canonical_json(experiment.config.model_dump(mode="json"))
