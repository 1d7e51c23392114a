"""Ready-made experts: read, brought into the base's layout, and held against the base."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

import torch

from taskgrid.errors import ConfigError, LineageError
from taskgrid.experts import open_clip, task_vectors, transformers
from taskgrid.experts.format import ExpertFormat
from taskgrid.experts.source import ExpertSource, locate
from taskgrid.machine.meter import Meter
from taskgrid.models.card import ModelCard
from taskgrid.models.hub.weights import check_finite
from taskgrid.sentences import unknown
from taskgrid.store.weights import Lineage, State

FORMATS: Final[Mapping[str, ExpertFormat]] = MappingProxyType(
    {
        "transformers": transformers.FORMAT,
        "open_clip": open_clip.FORMAT,
        "task_vectors": task_vectors.FORMAT,
    }
)
"""The formats by name."""

FARTHEST: Final = 0.5
"""How far an expert may be from theta_0, in norms of theta_0.

Fine-tuning moves a CLIP by some hundredths. Two models that were pre-trained apart are about
sqrt(2) apart, whatever their shapes have in common.
"""


@dataclass(frozen=True)
class Imported:
    """A ready-made expert.

    Attributes:
        state: theta_t; keys, shapes and dtypes of the base.
        lineage: what it was made from and where it comes from, for its file's header.
        notes: sentences for a person: what was left out, taken from elsewhere or not known.
        distance: ``|theta_t - theta_0| / |theta_0|``.
    """

    state: State
    lineage: Lineage
    notes: tuple[str, ...]
    distance: float


def read_expert(
    format: str,
    location: str,
    task: str,
    card: ModelCard,
    base: Mapping[str, torch.Tensor],
    *,
    file: str | None = None,
    revision: str | None = None,
    cache: str | Path | None = None,
    offline: bool = False,
    progress: Meter | None = None,
    farthest: float = FARTHEST,
) -> Imported:
    """Read a ready-made expert of a base.

    Args:
        format: ``transformers``, ``open_clip`` or ``task_vectors``.
        location: a repository of the hub (``owner/name``), a folder, or a file.
        task: the task's name here.
        card: the base's card.
        base: theta_0.
        file: the file in the repository or folder; None takes the format's usual name.
        revision: commit, tag or branch of the repository; None is its newest commit.
        cache: the hub's cache; None is that of the hub's clients.
        offline: never use the network.
        progress: told how far a download is.
        farthest: largest distance from theta_0, in norms of theta_0, of a file that does not say its base.

    Raises:
        ConfigError: if there is no such format.
        RemoteError: if a repository or revision does not exist or cannot be reached.
        ArtifactError: if the file does not exist, is damaged, or is a pickle that asks for more than
            tensors.
        LineageError: if the expert does not belong to the base: another architecture, activation,
            layout or theta_0, or no fine-tuned model at all; or if the base or it holds NaN.
    """
    if format not in FORMATS:
        raise ConfigError(unknown("format of experts", format, FORMATS))
    # Else the base's own would be found in an expert that lacks them, and blamed on it.
    check_finite(
        base,
        f"the base ({card.architecture} {card.pretrained}) has",
        "fetch its weights again, or choose another base",
    )
    chosen = FORMATS[format]
    request = ExpertSource(location, file, revision, cache, offline, progress)
    checkpoint = locate(request, chosen.usual, chosen.beside)
    what = f"the expert of task {task!r} ({checkpoint.name})"
    converted = chosen.convert(checkpoint, card, base, what)
    _check_fit(converted.state, base, what, card)
    dtypes = sorted({_name(t) for t in converted.state.values() if t.is_floating_point()})
    state = {key: converted.state[key].to(base[key].dtype) for key in sorted(base)}
    distance = _distance(state, base)
    if distance == 0:
        raise LineageError(
            f"{what} is the base itself, bit for bit; give the fine-tuned checkpoint, not the one it "
            "started from"
        )
    # What an aligner brought here whole, from another base, is far away and belongs to this one.
    if distance > farthest and not converted.proven:
        raise LineageError(
            f"{what} was not fine-tuned from this base ({card.architecture} {card.pretrained}): it is "
            f"{distance:.2f} norms of theta_0 away, and fine-tuning stays below {farthest:g}; give the "
            "base that it was made from"
        )
    notes = list(converted.notes)
    if dtypes != ["float32"]:
        notes.append(f"stored as {', '.join(dtypes)}, converted to float32")
    lineage = {
        "kind": "expert",
        **card.lineage(),
        "task": task,
        "format": format,
        **checkpoint.provenance,
        **converted.lineage,
        "stored_dtype": ",".join(dtypes),
    }
    return Imported(state, lineage, tuple(notes), distance)


def _check_fit(
    state: Mapping[str, torch.Tensor],
    base: Mapping[str, torch.Tensor],
    what: str,
    card: ModelCard,
) -> None:
    for key in sorted(base.keys() | state.keys()):
        if key not in state:
            raise LineageError(
                f"{what} lacks {key!r}, which the base has; fetch the whole checkpoint"
            )
        if key not in base:
            raise LineageError(
                f"{what} holds {key!r:.200}, which the base does not have; give the architecture that it "
                f"was made with ({card.architecture!r} is in use)"
            )
        if state[key].shape != base[key].shape:
            raise LineageError(
                f"{what} has shape {tuple(state[key].shape)} for {key!r}, but the base has "
                f"{tuple(base[key].shape)}; give the architecture that it was made with "
                f"({card.architecture!r} is in use)"
            )
        if state[key].is_floating_point() != base[key].is_floating_point():
            raise LineageError(
                f"{what} has {key!r} as {_name(state[key])}, but the base as {_name(base[key])}; give a "
                "checkpoint that is not quantised"
            )
    check_finite(state, f"{what} has", "fetch it again")


def _distance(state: State, base: Mapping[str, torch.Tensor]) -> float:
    moved = size = 0.0
    for key, tensor in base.items():
        if tensor.is_floating_point():
            moved += _norm(state[key] - tensor) ** 2
            size += _norm(tensor) ** 2
    return math.sqrt(moved / size) if size else math.inf


def _norm(tensor: torch.Tensor) -> float:
    return float(torch.linalg.vector_norm(tensor, dtype=torch.float64))


def _name(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
