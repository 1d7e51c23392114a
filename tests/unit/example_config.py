"""A small configuration that is good, to be changed."""

from __future__ import annotations

import copy
from typing import Any

GOOD: dict[str, Any] = {
    "models": [{"name": "tiny", "architecture": "taskgrid-vit-4", "pretrained": "s0"}],
    "tasks": [
        {"name": name, "source": "folder", "path": f"data/{name}"} for name in ("a", "b", "c")
    ],
    "finetune": {"recipe": {"steps": 10, "warmup_steps": 1}},
    "grid": {"methods": ["task_arithmetic"], "lambdas": [0, 0.3, 1]},
}


def changed(path: str, value: Any) -> dict[str, Any]:
    config = copy.deepcopy(GOOD)
    *parents, last = path.split("/")
    place: Any = config
    for key in parents:
        place = place[int(key) if isinstance(place, list) else key]
    place[last] = value
    return config
