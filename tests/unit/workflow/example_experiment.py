"""A small experiment for tests of what rules ask."""

from __future__ import annotations

from typing import Any

from taskgrid.config import Experiment, merge_overlay, parse_config

RUN = {"model": "m", "mode": "standard", "seed": "0"}
BLOCK = {**RUN, "method": "task_arithmetic", "block": "00000"}

BASIC: dict[str, Any] = {
    "models": [{"name": "m", "architecture": "taskgrid-vit-4", "pretrained": "s0"}],
    "tasks": [
        "textures",
        {"name": "mnist", "source": "npz", "path": "data/mnist.npz"},
        "handwritten",
    ],
    "finetune": {"recipe": {"steps": 10, "warmup_steps": 1}},
    "grid": {"methods": ["task_arithmetic", "average"], "lambdas": [0, 0.3, 1], "block_size": 4},
    "device": "cpu",
}


def experiment(**changes: Any) -> Experiment:
    """Return an experiment of three tasks, two methods and two blocks."""
    return Experiment(parse_config(merge_overlay(BASIC, changes)))
