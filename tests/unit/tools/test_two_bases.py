"""What is said of two bases is what the tables and the experts say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from taskgrid.store.weights import save_state
from tools import two_bases

INTERVAL = {"": 0.0, "_low": -0.02, "_high": 0.02}


def around(name: str, value: float | None) -> dict[str, float | None]:
    return {f"{name}{end}": None if value is None else value + by for end, by in INTERVAL.items()}


def line(aligner: str, options: str, images: int | None, coefficient: str, accuracy: float) -> Any:
    over = None if aligner == "none" else 0.04
    return {
        **{"aligner": aligner, "options": options, "images": images, "repeats": 3},
        **{"coefficient": coefficient},
        **around("accuracy", accuracy),
        **around("over_direct", over),
        **around("over_few_shot", None),
    }


def test_the_section_says_what_the_tables_say() -> None:
    both = {"model": "s1", "study": "addition", "size": 2, "subset": "a+b"}
    grid = pd.DataFrame(
        {
            "model": model,
            "mode": mode,
            "method": method,
            "subset": subset,
            "task": task,
            "split": "test",
        }
        | {"accuracy": accuracy}
        for model, mode, method, subset, task, accuracy in (
            ("s1", None, "zeroshot", "", "a", 0.4),
            ("s1", None, "zeroshot", "", "b", 0.5),
            ("s0", None, "zeroshot", "", "a", 0.1),
            ("s1", "standard", "expert", "a", "a", 0.9),
            ("s1", "standard", "expert", "a", "b", 0.2),
            ("s1", "direct", "expert", "a", "a", 0.3),
        )
    )
    selected = pd.DataFrame(
        [
            {**both, "mode": "both-direct", "method": "zipit", "point": "1.00"}
            | around("test_accuracy", 0.6),
            {**both, "mode": "both-direct", "method": "fs_merge", "point": "1.00"}
            | around("test_accuracy", 0.7),
            {**both, "mode": "standard", "method": "average", "point": "1.00"}
            | around("test_accuracy", 0.8),
            {**both, "mode": "direct", "method": "average", "point": "1.00"}
            | around("test_accuracy", 0.33),
        ]
    )
    pairs = pd.DataFrame(
        [
            {
                "model": "s1",
                "mode": "both-direct",
                "path": "line",
                "first": 0.5,
                "second": 0.6,
                "t": 0.25,
            }
            | {"barrier": 0.3, "low": 0.2, "high": 0.4},
        ]
    )
    weights = json.dumps({"by": "weights", "residual": "match"})
    curves = pd.DataFrame(
        [
            line("none", "{}", None, "one", 0.41),
            line("none", "{}", None, "chosen", 0.45),
            line("rebasin", weights, None, "one", 0.42),
            line("orthogonal", "{}", 4, "one", 0.51),
        ]
    )
    cosines = pd.DataFrame(
        {"mode": mode, "task": "a", "cosine": cosine}
        for mode, cosine in (("direct", 0.01), ("turned-4-0", 0.1), ("turned-4-1", 0.2))
    )
    channels = pd.DataFrame([{"space": "queries", "same": 0.011, "matched": 0.449}])
    said = two_bases.section(two_bases.Run(grid, selected, curves, pairs, cosines, channels))
    assert "Zero-shot, s1 has 45.0, its own experts have 90.0." in said
    merged = [row for row in said.splitlines() if "methods/" in row]
    assert merged == [
        "| one base | [`average`](methods/average.md) | 1.00 | 80.0 (78.0 to 82.0) |",
        "| two bases, direct | [`fs_merge`](methods/fs_merge.md) | 1.00 | 70.0 (68.0 to 72.0) |",
        "| two bases, direct | [`zipit`](methods/zipit.md) | 1.00 | 60.0 (58.0 to 62.0) |",
    ]
    assert "| two bases, direct | line | 50.0 | 60.0 | 0.25 | 30.0 (20.0 to 40.0) |" in said
    assert "| none |  | 3 | 41.0 (39.0 to 43.0) | 45.0 (43.0 to 47.0) |  |  |" in said
    assert "| [`rebasin`](aligners/rebasin.md) (weights) |  | 3 | 42.0 (40.0 to 44.0) |  |" in said
    assert "| [`orthogonal`](aligners/orthogonal.md) | 4 | 3 | 51.0 (49.0 to 53.0) |  |" in said
    assert "| turned-4 | 0.150 (0.100 to 0.200) |" in said
    assert "| queries | 0.01 | 0.45 |" in said


def test_vectors_are_compared_with_those_of_the_targets_own_experts(tmp_path: Path) -> None:
    def write(place: str, state: dict[str, torch.Tensor], **known: str) -> None:
        file = tmp_path / place
        file.parent.mkdir(parents=True, exist_ok=True)
        save_state(file, state, {"kind": "x"})
        file.with_name("expert.json").write_text(json.dumps(known))

    base = torch.tensor([1.0, 2.0, 3.0])
    write("models/s1/base.safetensors", {"w": base})
    experts = "experts/s1/{}/0/a/expert.safetensors"
    write(experts.format("standard"), {"w": base + torch.tensor([1.0, 0.0, 0.0])})
    write(experts.format("direct"), {"w": base + torch.tensor([3.0, 4.0, 0.0])}, carry="vector")
    write(experts.format("direct-whole"), {"w": base * 2}, carry="model")
    (found,) = two_bases.cosines(tmp_path)
    assert (found["mode"], found["task"]) == ("direct", "a")
    assert found["cosine"] == pytest.approx(0.6, rel=1e-6)
