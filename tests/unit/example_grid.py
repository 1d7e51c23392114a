"""A tiny world for tests of evaluation: a random tower, experts near it, tasks of random images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from taskgrid.evaluation.engine.material import Material
from taskgrid.evaluation.opening.memory import EvaluationTask, Held, vectors_of
from taskgrid.models.card import ModelCard
from taskgrid.models.heads import Head
from taskgrid.models.tower import build_tower
from taskgrid.provenance import derive_seed
from taskgrid.store.weights import State, digest_state

SIZE = 8
CLASSES = 4
MEAN, STD = (0.5, 0.4, 0.6), (0.25, 0.3, 0.2)


@dataclass(frozen=True)
class World:
    """A base, its experts, and heads with images."""

    base: State
    card: ModelCard
    experts: dict[str, State]
    tasks: dict[str, EvaluationTask]


def world(names: Sequence[str] = ("a", "b", "c"), val: int = 13, test: int = 21) -> World:
    """Return a world whose tasks depend on their own name alone."""
    card = _card("")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        start = build_tower(card).state_dict()
    base = _randomised(start, "base", 0.3)
    card = _card(digest_state(base))
    return World(
        base=base,
        card=card,
        experts={name: _randomised(base, name, 0.15) for name in names},
        tasks={name: _task(name, val, test, card) for name in names},
    )


def held(small: World) -> Held:
    """Return a world as a call holds it."""
    vectors = vectors_of(small.base, small.experts, None)
    return Held(small.base, small.card, small.tasks, vectors, small.experts)


def memory(small: World) -> Material:
    """Return what an engine measures of a world."""
    return held(small).material()


def _card(base: str) -> ModelCard:
    vision = {"image_size": SIZE, "patch_size": 4, "width": 16, "layers": 2, "head_width": 8}
    return ModelCard(
        architecture="tiny",
        pretrained="random",
        activation="gelu",
        tower={"embed_dim": 12, "vision_cfg": vision, "quick_gelu": False},
        image_size=SIZE,
        mean=MEAN,
        std=STD,
        interpolation="bicubic",
        logit_scale=20.0,
        base=base,
        text="text",
    )


def _randomised(state: State, name: str, by: float) -> State:
    generator = torch.Generator().manual_seed(derive_seed("example", name))
    return {
        key: tensor.detach() + by * torch.randn(tensor.shape, generator=generator)
        for key, tensor in state.items()
    }


def _task(name: str, val: int, test: int, card: ModelCard) -> EvaluationTask:
    random = np.random.default_rng(derive_seed("task", name))
    rows = random.normal(size=(CLASSES, 12))
    weight = 20.0 * rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def examples(count: int) -> tuple[np.ndarray, np.ndarray]:
        pixels = random.integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)
        return pixels, random.integers(0, CLASSES, count)

    head = Head(
        torch.from_numpy(weight).float(),
        tuple("wxyz"),
        {"kind": "head", "task": name, **card.lineage()},
    )
    return EvaluationTask(head, examples(val), examples(test))
