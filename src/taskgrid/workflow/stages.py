"""The settings of every stage, under the names by which rules ask for them."""

from taskgrid.workflow.settings import (
    data,
    doctor,
    evaluate,
    experts,
    export,
    figures,
    finetune,
    lattice,
    merge,
    model,
    precision,
    registry,
    statistics,
    studies,
    tables,
    vectors,
)

__all__ = [
    "data",
    "doctor",
    "evaluate",
    "experts",
    "export",
    "figures",
    "finetune",
    "lattice",
    "merge",
    "model",
    "precision",
    "registry",
    "statistics",
    "studies",
    "tables",
    "vectors",
]
