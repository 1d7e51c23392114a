"""Small networks that are trained here in a second or two: for what happens between two of them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.func import functional_call
from torch.nn import functional

from taskgrid.alignment.spaces import RES, Axis, Spaces, mlp_space, spaces_of
from taskgrid.models.tower import build_tower
from taskgrid.store.weights import State
from tests.unit.example_grid import world

Batches = Callable[[torch.Generator], tuple[torch.Tensor, torch.Tensor]]

INPUTS, CLASSES = 32, 10


def trained(
    module: nn.Module, batches: Batches, seed: int, *, steps: int, lr: float = 1e-3
) -> State:
    """Train all of a module from what it holds; return its state in float64."""
    generator = torch.Generator().manual_seed(seed)
    module.requires_grad_(True)
    optimiser = torch.optim.Adam(module.parameters(), lr=lr)
    for _ in range(steps):
        inputs, labels = batches(generator)
        loss = functional.cross_entropy(module(inputs), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return {key: one.detach().double() for key, one in module.state_dict().items()}


def loss_of(
    module: nn.Module, inputs: torch.Tensor, labels: torch.Tensor
) -> Callable[[State], torch.Tensor]:
    """Return the loss of weights, as a function of them."""

    def loss(state: State) -> torch.Tensor:
        narrow = {key: one.float() for key, one in state.items()}
        return functional.cross_entropy(functional_call(module, narrow, (inputs,)), labels)

    return loss


def barrier(loss: Callable[[State], torch.Tensor], one: State, two: State) -> float:
    """Return by how much the loss halfway is over the mean loss of the ends."""
    middle = {key: (one[key] + two[key]) / 2 for key in one}
    with torch.no_grad():
        return float(loss(middle) - (loss(one) + loss(two)) / 2)


# ------------------------------------------------------------------------------------- MLPs


def mlp(width: int) -> nn.Sequential:
    layers = {
        "first": nn.Linear(INPUTS, width),
        "one": nn.ReLU(),
        "second": nn.Linear(width, width),
        "two": nn.ReLU(),
        "third": nn.Linear(width, CLASSES),
    }
    return nn.Sequential(OrderedDict(layers))


def mlp_spaces(width: int) -> Spaces:
    """The first hidden layer stands in the place of the residual stream."""
    stream, hidden = Axis((RES,)), Axis((mlp_space(0),))
    axes: dict[str, tuple[Axis | None, ...]] = {
        "first.weight": (stream, None),
        "first.bias": (stream,),
        "second.weight": (hidden, replace(stream, reads=True)),
        "second.bias": (hidden,),
        "third.weight": (None, replace(hidden, reads=True)),
        "third.bias": (None,),
    }
    return Spaces(axes, {RES: width, mlp_space(0): width}, heads=1, blocks=1)


@cache
def teacher() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(77)
        return mlp(20).requires_grad_(False)


def points(generator: torch.Generator, count: int = 256) -> tuple[torch.Tensor, torch.Tensor]:
    """Points of a normal distribution, in the classes that a random network gives them."""
    inputs = torch.randn(count, INPUTS, generator=generator)
    scores = teacher()(inputs)
    return inputs, (scores - scores.mean(dim=0)).argmax(dim=1)


@cache
def mlps(width: int, steps: int = 300) -> tuple[nn.Sequential, State, State]:
    """Two MLPs from different initialisations, for the same task; and the module."""
    found = []
    for seed in (1, 2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = mlp(width)
        found.append(trained(module, points, seed, steps=steps))
    return module, found[0], found[1]


# ------------------------------------------------------------------------------------ towers


@cache
def digits() -> tuple[torch.Tensor, torch.Tensor]:
    found = load_digits()
    images = torch.from_numpy(np.asarray(found.images, dtype=np.float32) / 8 - 1)
    return images[:, None].expand(-1, 3, -1, -1).contiguous(), torch.from_numpy(found.target).long()


def some_digits(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = digits()
    rows = torch.randint(len(labels), (64,), generator=generator)
    return images[rows], labels[rows]


def blank_tower(seed: int, width: int = 64, layers: int = 2) -> tuple[nn.Module, Spaces]:
    """A tower whose features are logits of ten classes, with random LayerNorms; and its spaces."""
    vision = {"image_size": 8, "patch_size": 4, "width": width, "layers": layers, "head_width": 16}
    card = replace(
        world(("a",)).card, tower={"embed_dim": CLASSES, "vision_cfg": vision, "quick_gelu": False}
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = build_tower(card)
    generator = torch.Generator().manual_seed(seed)
    for name, one in module.named_parameters():
        if "ln_" in name:
            one.data.add_(0.1 * torch.randn(one.shape, generator=generator))
    shapes = {key: tuple(one.shape) for key, one in module.state_dict().items()}
    return module, spaces_of(card, shapes)


@cache
def towers() -> tuple[nn.Module, Spaces, State, State]:
    """Two towers that learned digits from different initialisations; module and spaces."""
    found = []
    for seed in (1, 2):
        module, spaces = blank_tower(seed)
        found.append(trained(module, some_digits, seed, steps=100, lr=2e-3))
    return module, spaces, found[0], found[1]
