"""A transport as a file: each map along an axis once, and in the header which axis of which tensor has it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from taskgrid.alignment.maps import Axes, AxisMap, Blocks, End, Instead, Map, TensorMap, Transport
from taskgrid.errors import LineageError
from taskgrid.provenance.digests import canonical_json, digest
from taskgrid.store import seals
from taskgrid.store.weights import Lineage, State, digest_state, load_state, save_state

_MAPS = "maps"
"""Name of the entry in the header that says which key uses which tensors; what is one vector has none."""


def save_transport(path: str | Path, found: Transport, lineage: Mapping[str, str]) -> str:
    """Write a transport as safetensors; maps that are equal are written once.

    Args:
        path: where it goes.
        found: the transport.
        lineage: what it was made from; the digests of both bases are added.

    Returns:
        The digest of its tensors and of what they are used for.

    Raises:
        ArtifactError: if the file system refuses to write.
        LineageError: if it is made of something else than maps along axes.
    """
    tensors, maps = _encoded(found.map)
    ends = {"base": found.target.base, "source_base": found.source.base}
    header = {} if maps is None else {_MAPS: maps}
    return _digest(save_state(path, tensors, {**lineage, **ends, **header}), maps)


def read_transport(path: str | Path, source: End, target: End) -> tuple[Transport, Lineage]:
    """Read a transport, bit for bit as it was written, and its lineage with its digest.

    Args:
        path: where it is.
        source: the base that vectors come from.
        target: the base that they go to.

    Raises:
        ArtifactError: if the file is missing, damaged, or no transport.
        LineageError: if it is one between other bases.
    """
    tensors, lineage = load_state(path)
    text = lineage.pop(_MAPS, None)
    lineage["digest"] = _digest(lineage["digest"], text)
    for name, end in (("source_base", source), ("base", target)):
        if lineage.get(name) != end.base:
            raise LineageError(
                f"{path} has {name} {lineage.get(name)}, but {end.base} is in use; run the align rule again"
            )
    if text is None:
        return Transport(source, target, Instead(tensors)), lineage
    try:
        axes = {key: _decoded(names, tensors) for key, names in json.loads(text).items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise seals.damaged(path, "its maps cannot be read") from error
    return Transport(source, target, Axes(axes)), lineage


def _digest(tensors: str, maps: str | None) -> str:
    return digest({"tensors": tensors, "maps": maps})


def _encoded(found: Map) -> tuple[State, str | None]:
    if isinstance(found, Instead):
        return dict(found.vector), None
    if not isinstance(found, Axes):
        raise LineageError(
            f"a file holds maps along axes, and this aligner gives {type(found).__name__}; let it give "
            "`context.transport_by(...)`"
        )
    tensors: State = {}

    def named(one: AxisMap) -> str | None:
        if one is None:
            return None
        name = digest_state({"": one})
        tensors[name] = one
        return name

    def names(maps: TensorMap) -> list[Any]:
        if isinstance(maps, Blocks):
            return [[named(one) for one in own] for own in maps.maps]
        return [named(one) for one in maps]

    return tensors, canonical_json({key: names(maps) for key, maps in found.axes.items()})


def _decoded(names: list[Any], tensors: Mapping[str, torch.Tensor]) -> TensorMap:
    def one(name: str | None) -> AxisMap:
        return None if name is None else tensors[name]

    if names and isinstance(names[0], list):
        return Blocks(tuple(tuple(map(one, own)) for own in names))
    return tuple(map(one, names))
