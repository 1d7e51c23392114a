"""Evaluation of grid points: plans, row keys, the engine, and the rows it leaves.

The public name is looked up when first used, so that a rule which only plans imports no torch.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "EvaluationTask": "taskgrid.evaluation.grid",
    "evaluate_grid": "taskgrid.evaluation.grid",
    "learn_coefficients": "taskgrid.evaluation.coefficients",
}

__all__ = ["EvaluationTask", "evaluate_grid", "learn_coefficients"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
