"""Experts of the papers' own code (``task_vectors``, ``tangent_task_arithmetic``): pickles.

``finetuned.pt`` is a pickled ``ImageEncoder``: the CLIP without the blocks of its text tower, the
rest of which stays in it as dead weight. ``linear_finetuned.pt`` is the state of a linearised
encoder: two lists, ``params.{i}`` (theta) and ``params0.{i}`` (theta_0), in the order of the
encoder's parameters, text weights before and after those of the image tower. The lists carry no names;
the image tower's place in them is where ``params0`` equals theta_0, tensor for tensor and bit for bit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch

from taskgrid.errors import LineageError
from taskgrid.experts.format import Converted, ExpertFormat
from taskgrid.experts.open_clip import tower_of
from taskgrid.experts.source import ExpertFile
from taskgrid.models.card import ModelCard
from taskgrid.models.tower import build_tower
from taskgrid.store.weights import State

_LISTED = re.compile(r"^(?P<root>(?:.*\.)?)params(?P<base>0?)\.(?P<place>\d+)$")


def convert(
    checkpoint: ExpertFile, card: ModelCard, base: Mapping[str, torch.Tensor], what: str
) -> Converted:
    """Return the image tower of a pickled encoder, or theta of a linearised one.

    Raises:
        LineageError: if there is no such tower in it, or it was linearised at another theta_0.
    """
    state, _ = checkpoint.read()
    matches = [match for key in state if (match := _LISTED.match(key))]
    if not any(match["base"] for match in matches):
        return tower_of(state, checkpoint, card, base, what)
    theta, origin = [_at(state, matches, kind) for kind in ("", "0")]
    if len(theta) != len(origin):
        raise LineageError(
            f"{what} has {len(theta)} parameters, but its theta_0 has {len(origin)}; fetch it again"
        )
    with torch.device("meta"):
        names = [name for name, _ in build_tower(card).named_parameters()]
    start = _place(origin, [base[name] for name in names], names, what)
    tower = {name: theta[start + offset] for offset, name in enumerate(names)}
    return Converted(
        # What is no parameter was not trained.
        {**{key: tensor.clone() for key, tensor in base.items() if key not in tower}, **tower},
        {"source_layout": "params", "projection": "own", "trained_as": "linear"},
        (
            f"{len(state) - len(names)} tensors beside the image tower's weights were left out "
            "(theta_0, the text tower)",
            "it was trained as a tangent model at theta_0: put into the plain tower, its weights "
            "compute something else than was trained",
        ),
    )


def _at(state: State, matches: list[re.Match[str]], base: str) -> list[torch.Tensor]:
    """Return one of the two lists in the order of its numbers."""
    chosen = {int(match["place"]): state[match[0]] for match in matches if match["base"] == base}
    return [chosen[place] for place in sorted(chosen)]


def _place(
    origin: list[torch.Tensor], base: list[torch.Tensor], names: list[str], what: str
) -> int:
    """Return where in ``params0`` the image tower begins."""
    shapes, own = [tensor.shape for tensor in origin], [tensor.shape for tensor in base]
    starts = [
        start
        for start in range(len(shapes) - len(own) + 1)
        if shapes[start : start + len(own)] == own
    ]
    if not starts:
        raise LineageError(
            f"{what} is no linearised encoder of this architecture: none of its {len(shapes)} "
            f"parameters in a row have the shapes of the image tower's {len(own)}; give the "
            "architecture that it was made with"
        )
    for start in starts:
        if all(map(_equal, base, origin[start : start + len(base)])):
            return start
    name, ours, theirs = next(
        found
        for found in zip(names, base, origin[starts[0] :], strict=False)
        if not _equal(*found[1:])
    )
    gap = float((ours.double() - theirs.double()).abs().max())
    raise LineageError(
        f"{what} was linearised at another theta_0: its {name!r} differs from the base's by up to "
        f"{gap:.3g}; give the base that it was made with (pretrained weights and activation)"
    )


def _equal(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    # A file in half precision holds theta_0 as half precision shows it.
    return torch.equal(ours.to(theirs.dtype), theirs)


FORMAT = ExpertFormat(convert, usual=("finetuned.pt",))
