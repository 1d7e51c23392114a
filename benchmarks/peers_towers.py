"""Small towers with experts, on which merges are compared: random, awkward, and really trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from open_clip.transformer import VisionTransformer

from taskgrid.store.weights import State, load_state
from taskgrid.vectors import TaskVector

TASKS = ("a", "b", "c", "d")
IMAGES = 50
FROZEN = (
    "transformer.resblocks.0.ln_1.weight",
    "transformer.resblocks.0.attn.out_proj.weight",
)
"""Tensors of the awkward tower that no expert changes."""

UNCHANGED = ("conv1.weight", "transformer.resblocks.1.mlp.c_fc.weight")
"""Tensors of the awkward tower that the first expert does not change."""


@dataclass(frozen=True)
class Towers:
    """A base with its experts.

    Attributes:
        base: theta_0.
        experts: task -> theta_t.
        statistics: name -> task -> statistic.
    """

    base: State
    experts: Mapping[str, State]
    statistics: Mapping[str, Mapping[str, State]] = field(default_factory=dict)


def random_towers() -> Towers:
    """Return a tower of open_clip with random experts."""
    base, random = _tower(), torch.Generator().manual_seed(1)
    experts = {
        task: {k: t + 0.02 * torch.randn(t.shape, generator=random) for k, t in base.items()}
        for task in TASKS
    }
    return _with_statistics(base, experts)


def awkward_towers() -> Towers:
    """Return the tower with experts that are easy to get wrong.

    All weights are multiples of 2^-12, so that float32 adds and subtracts them exactly: many entries are
    zero, many cancel exactly, and many have the magnitude at which a cut is made.
    """
    base = {k: (t * 2**10).round() / 2**10 for k, t in _tower().items()}
    random = torch.Generator().manual_seed(2)
    vectors: dict[str, State] = {task: {} for task in TASKS}
    for key, start in base.items():
        for task in TASKS:
            steps = torch.randint(-160, 161, start.shape, generator=random)
            steps[torch.rand(start.shape, generator=random) < 0.3] = 0
            vectors[task][key] = steps / 2**12
        opposite = torch.rand(start.shape, generator=random) < 0.2
        vectors["b"][key] = torch.where(opposite, -vectors["a"][key], vectors["b"][key])
        for task in TASKS:
            if key in FROZEN or (key in UNCHANGED and task == TASKS[0]):
                vectors[task][key].zero_()
    experts = {
        task: {k: base[k] + t for k, t in vector.items()} for task, vector in vectors.items()
    }
    return _with_statistics(base, experts)


def trained_towers(results: Path) -> Towers | None:
    """Return the experts of a finished run of the embedded default; None where there is none."""
    bases = sorted(results.glob("models/*/base.safetensors"))
    if not bases:
        return None
    name = bases[0].parent.name
    base, _ = load_state(bases[0])
    files = sorted(results.glob(f"vectors/{name}/standard/0/*.safetensors"))
    experts = {f.stem: TaskVector.load(f).apply_to(base, 1.0) for f in files}
    return _with_statistics(base, experts) if experts else None


def _tower() -> State:
    torch.manual_seed(0)
    tower = VisionTransformer(
        image_size=32, patch_size=8, width=64, layers=2, heads=4, mlp_ratio=4, output_dim=32
    )
    return {k: t.detach().clone() for k, t in tower.state_dict().items() if t.is_floating_point()}


def _with_statistics(base: State, experts: Mapping[str, State]) -> Towers:
    """Add statistics as of made-up gradients and inputs, of sizes that differ as real ones do."""
    random = torch.Generator().manual_seed(3)
    fisher: dict[str, State] = {}
    gram: dict[str, State] = {}
    for task in experts:
        fisher[task] = {"images": torch.tensor(IMAGES)}
        gram[task] = {"images": torch.tensor(IMAGES)}
        for key, start in base.items():
            sizes = torch.randn(start.shape, generator=random, dtype=torch.float64).mul(2).exp()
            fisher[task][key] = (IMAGES * 1e-5 * sizes).float()
            if start.dim() == 2 and "resblocks" in key:
                inputs = torch.randn(4 * start.shape[1], start.shape[1], generator=random)
                inputs *= torch.randn(start.shape[1], generator=random).exp()
                gram[task][key] = inputs.T @ inputs
    return Towers(base, experts, {"fisher": fisher, "gram": gram})
