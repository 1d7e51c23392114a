"""What a look inside networks might have seen, for tests of rooms that only read tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations_with_replacement, product
from typing import Any

import numpy as np
import pyarrow as pa

from taskgrid.plugins.cards import study_card
from taskgrid.store.columns import card_schema

PARTS = ("q", "k", "v", "attention", "mlp", "block")
LAYERS = ("embedding", "block 0", "block 1", "output")
SIDE = 2
"""Patches along a side."""

Rows = dict[str, list[dict[str, Any]]]


def watched(
    names: Sequence[str],
    model: str,
    mode: str,
    seed: int,
    methods: Sequence[str],
    options: Sequence[str] = ("{}",),
) -> Rows:
    """Return the rows of every table of the study: the expert moves most, later layers more."""
    run = {"model": model, "mode": mode, "seed": seed}
    every = "+".join(sorted(names))
    merges = [
        {"method": method, "options": one, "subset": every, "point": "0.30", "scale": 0.3}
        for method, one in product(methods, options)
    ]
    base = {"method": "zeroshot", "options": "{}", "subset": "", "point": "0.00", "scale": 0.0}
    found: Rows = {table: [] for table in ("norms", "pixels", "similarity", "bias", "weights")}
    for at, task in enumerate(names):
        expert = {
            "method": "expert",
            "options": "{}",
            "subset": task,
            "point": "1.00",
            "scale": 1.0,
        }
        on = {**run, "task": task, "chosen": True, "n": 40}
        for size, network in enumerate([expert, *merges]):
            found["norms"] += [{**on, **network, **row} for row in _norms(at, 1 / (1 + size))]
        for (i, one), (j, other) in combinations_with_replacement(
            enumerate([base, expert, *merges]), 2
        ):
            others = {f"other_{name}": value for name, value in other.items() if name != "scale"}
            # What the class token is before the first block, no image changes.
            for depth, layer in enumerate(LAYERS[1:], start=1):
                cka = 1 - 0.04 * abs(i - j) * depth
                place = {"depth": depth, "layer": layer, "cka": cka, "cosine": 0.9}
                found["similarity"].append({**on, **one, **others, **place})
        for size, network in enumerate([base, *merges]):
            l1 = 0.3 + 0.02 * at - 0.03 * size
            left = {"l1_left": 0.6 * l1 if size == 1 else None, "l2_left": None}
            found["bias"].append({**on, **network, "l1": l1, "l2": 5 * l1, **left})
        found["bias"].append(
            {**on, **expert, "l1": 0.0, "l2": 0.0, "l1_left": None, "l2_left": None}
        )
        found["weights"] += _weights({**run, **expert, "task": None}, 1.0)
        colours = {"red": 200, "green": 20 * at % 255, "blue": 90}
        found["pixels"] += [
            {**run, "task": task, "pixel_y": y, "pixel_x": x, **colours}
            for y in range(4)
            for x in range(4)
        ]
    for size, network in enumerate(merges):
        found["weights"] += _weights({**run, **network, "task": None}, 2.0 + size)
    return found


def measured(study: str, table: str) -> tuple[pa.Table, ...]:
    """Return what the rule of a study saw of two runs for one of its tables; nothing of other studies."""
    if study != "features":
        return ()
    schema = card_schema(study_card("features").tables[table])
    return tuple(
        pa.Table.from_pylist(
            watched(("a", "b"), "m", "standard", seed, ["average"])[table], schema=schema
        )
        for seed in (1, 0)
    )


def _norms(at: int, size: float) -> Iterator[dict[str, Any]]:
    for depth, layer in enumerate(LAYERS):
        for part in PARTS if layer.startswith("block") else ("block",):
            for token in range(1 if layer == "output" else 1 + SIDE * SIDE):
                base = 10.0 + at + token
                moved = size * (0.5 * depth + 0.1 * token)
                yield {
                    **{"layer": layer, "depth": depth, "part": part, "token": token},
                    **{"norm_base": base, "norm_delta": moved},
                    **{"sample_base": base + 0.5, "sample_delta": moved + 0.25},
                }


def _weights(network: dict[str, Any], speed: float) -> list[dict[str, Any]]:
    return [
        {
            **network,
            **{
                "point": f"{scale:.2f}",
                "scale": scale,
                "layer": "all",
                "depth": None,
                "part": "all",
            },
            **{"norm_base": 50.0, "norm_delta": speed * scale},
            "norm": float(np.hypot(50.0, speed * scale)),
        }
        for scale in (0.0, 0.5, 1.0)
    ]
