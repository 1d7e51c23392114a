"""A grid point as a file: a whole CLIP, which open_clip and ``load_clip`` load strictly.

The image tower is merged, everything else is the base's. Methods that can merge piece by piece are
streamed; the others merge in memory, which holds any model that the grid was measured with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from taskgrid.errors import LineageError
from taskgrid.lattice.points import lambda_value
from taskgrid.lattice.subsets import canonical_subset
from taskgrid.merging.recipe import MergeRecipe
from taskgrid.merging.seam import Sources
from taskgrid.merging.walks import walk
from taskgrid.models.clip import Clip
from taskgrid.outofcore.inputs import Inputs
from taskgrid.outofcore.merge import (
    DEFAULT_BYTES,
    Output,
    check_outputs,
    layout_of,
    lineage_of,
    make_room,
    stream_merge,
)
from taskgrid.outofcore.passes import Frame
from taskgrid.outofcore.shards import load_weights
from taskgrid.outofcore.streams import write_stream
from taskgrid.store.weights import State
from taskgrid.vectors import TaskVector

_VISUAL = "visual."


@dataclass(frozen=True)
class Point:
    """A grid point and where it goes.

    Attributes:
        tasks: the subset.
        scale: lambda as fixed decimals.
        path: the safetensors file.
    """

    tasks: tuple[str, ...]
    scale: str
    path: Path


@dataclass(frozen=True)
class Method:
    """A merge method as the grid was measured with it.

    Attributes:
        name: the method.
        options: its options.
        seed: what its random draws come from.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0


def export_points(
    clip: Clip,
    base: Path,
    vectors: Mapping[str, Path],
    method: Method,
    points: Sequence[Point],
    *,
    max_bytes: int = DEFAULT_BYTES,
    lineage: Mapping[str, str] | None = None,
) -> tuple[str, ...]:
    """Write grid points as whole CLIPs.

    Args:
        clip: the base model; gives the text tower and all else around the image tower.
        base: the file of theta_0, its image tower.
        vectors: task -> file of its task vector.
        method: how they are merged.
        points: what to write; all points of one call share one pass over the inputs.
        max_bytes: memory for tensors where the method can merge piece by piece.
        lineage: entries to add to the lineage in the headers: mode, seed, ...

    Returns:
        The digests of the files' states.

    Raises:
        LineageError: if base and vectors do not belong to ``clip``; names both digests.
        ConfigError: if the method or an option does not exist, or needs statistics of data.
        ArtifactError: if a file cannot be read or written.
    """
    frame = _frame_of(clip)
    outputs = [
        Output(p.path, p.tasks, lambda_value(p.scale), {"kind": "clip", **(lineage or {})})
        for p in points
    ]
    recipe = MergeRecipe.of(method.name, method.options, method.seed)
    inputs = Inputs.open(base, vectors)
    found = inputs.base.lineage.get("digest")
    if found != clip.visual_digest:
        raise LineageError(
            f"{base} holds the base {found}, but the image tower of {clip.architecture} "
            f"{clip.pretrained} is {clip.visual_digest}; run the base rule again"
        )
    if recipe.card.scope == "model" and not recipe.card.needs:
        check_outputs(outputs)
        make_room(outputs, layout_of(inputs.base, frame))
        return _export_whole(inputs, recipe, outputs, frame)
    return stream_merge(
        method.name,
        base,
        vectors,
        outputs,
        max_bytes=max_bytes,
        frame=frame,
        seed=method.seed,
        **dict(method.options),
    )


def _frame_of(clip: Clip) -> Frame:
    others = {
        key: tensor
        for key, tensor in clip.model.state_dict().items()
        if not key.startswith(_VISUAL)
    }
    # transformers' tools want to know the format; `load_clip` compares the activation.
    return Frame(_VISUAL, others, {"activation": clip.activation, "format": "pt"})


def _export_whole(
    inputs: Inputs, recipe: MergeRecipe, outputs: Sequence[Output], frame: Frame
) -> tuple[str, ...]:
    """Write merges that must see the whole model: read once, prepared once per subset."""
    state, _ = load_weights(inputs.base.path)
    subsets = [canonical_subset(output.tasks) for output in outputs]
    vectors = {
        task: TaskVector.load(inputs.experts[task].path).deltas
        for task in sorted({task for subset in subsets for task in subset})
    }
    prepare = walk(recipe, state, Sources(vectors.__getitem__), keep_bytes=0)
    digests: dict[int, str] = {}
    for subset in sorted(set(subsets)):
        prepared = prepare(subset)
        for index, output in enumerate(outputs):
            if subsets[index] == subset:
                merged = recipe.apply(state, prepared, output.scale)
                digests[index] = _write_whole(inputs, recipe, output, frame, merged)
    return tuple(digests[index] for index in range(len(outputs)))


def _write_whole(
    inputs: Inputs, recipe: MergeRecipe, output: Output, frame: Frame, merged: State
) -> str:
    everything = {frame.prefix + key: tensor for key, tensor in merged.items()} | dict(frame.others)
    layout = layout_of(inputs.base, frame)
    with write_stream(
        output.path, layout, lineage_of(inputs, recipe, output), metadata=frame.metadata
    ) as writer:
        for spec in layout:
            tensor = everything[spec.name].detach().cpu().contiguous().reshape(-1)
            writer.write(spec.name, 0, tensor.view(torch.uint8).numpy().data)
        return writer.digest()
