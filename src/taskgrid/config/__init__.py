"""The configuration: typed, validated, with messages for people."""

from taskgrid.config.experiment import Experiment
from taskgrid.config.load import merge_overlay, parse_config, read_config
from taskgrid.config.schema import (
    Config,
    EvaluationSpec,
    FinetuneSpec,
    GridSpec,
    MethodSpec,
    ModelSpec,
    ModeSpec,
    RecipeSpec,
    SplitSpec,
    SubsetSpec,
    TaskSpec,
    TrackingSpec,
)

__all__ = [
    "Config",
    "EvaluationSpec",
    "Experiment",
    "FinetuneSpec",
    "GridSpec",
    "MethodSpec",
    "ModeSpec",
    "ModelSpec",
    "RecipeSpec",
    "SplitSpec",
    "SubsetSpec",
    "TaskSpec",
    "TrackingSpec",
    "merge_overlay",
    "parse_config",
    "read_config",
]
