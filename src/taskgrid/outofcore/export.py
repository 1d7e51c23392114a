"""A grid point as a file: a whole CLIP, which open_clip and ``load_clip`` load strictly.

The image tower is merged, everything else is the base's. Methods that can merge piece by piece are
streamed; the others merge in memory, which holds any model that the grid was measured with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from taskgrid.errors import LineageError
from taskgrid.lattice.points import read_point
from taskgrid.merging.recipe import MergeRecipe
from taskgrid.merging.seam import Learned
from taskgrid.models.clip import Clip
from taskgrid.outofcore.checked import check_weights, load_weights
from taskgrid.outofcore.inputs import Inputs
from taskgrid.outofcore.merge import DEFAULT_BYTES, stream_merge
from taskgrid.outofcore.outputs import Frame, Output, check_outputs
from taskgrid.outofcore.shards import WeightFiles
from taskgrid.outofcore.statistics import StatisticPaths, files_of
from taskgrid.outofcore.whole import merge_whole, write_framed

_VISUAL = "visual."


@dataclass(frozen=True)
class Point:
    """A grid point and where it goes.

    Attributes:
        tasks: the subset.
        scale: the text of the point: ``0.30`` or ``a:0.30,b:-0.50``.
        path: the safetensors file.
        task: of a method with a model per task, the one whose model it is.
    """

    tasks: tuple[str, ...]
    scale: str
    path: Path
    task: str | None = None


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
    statistics: StatisticPaths | None = None,
    learned: Callable[[tuple[str, ...]], Learned] | None = None,
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
        statistics: name -> task -> file of a statistic, for a method that needs any; of one of the base,
            name -> file.
        learned: subset -> what was learned for it, for a method that learns.
        lineage: entries to add to the lineage in the headers: mode, seed, ...

    Returns:
        The digests of the files' states.

    Raises:
        LineageError: if base and vectors do not belong to ``clip``; names both digests.
        ConfigError: if the method, an option or the point does not exist, or a statistic is not given.
        ArtifactError: if a file cannot be read or written.
    """
    outputs = [
        Output(p.path, p.tasks, _scale(p), {"kind": "clip", **(lineage or {})}, p.task)
        for p in points
    ]
    recipe = MergeRecipe.of(method.name, method.options, method.seed)
    check_outputs(recipe, outputs)
    frame, inputs = _frame_of(clip), Inputs.open(base, vectors)
    found = inputs.base.lineage.get("digest")
    if found != clip.visual_digest:
        raise LineageError(
            f"{base} holds the base {found}, but the image tower of {clip.architecture} "
            f"{clip.pretrained} is {clip.visual_digest}; run the base rule again"
        )
    for path in (base, *vectors.values(), *files_of(statistics or {})):
        check_weights(path)
    if recipe.scope == "model":
        return merge_whole(inputs, recipe, outputs, frame, statistics or {}, learned)
    return stream_merge(
        method.name,
        base,
        vectors,
        outputs,
        max_bytes=max_bytes,
        frame=frame,
        seed=method.seed,
        statistics=statistics,
        learned=learned,
        **dict(method.options),
    )


def export_expert(clip: Clip, expert: Path, path: Path) -> str:
    """Write an expert as a whole CLIP, its image tower bit for bit.

    Args:
        clip: the base model; gives the text tower and all else around the image tower.
        expert: the file of theta_t.
        path: the safetensors file.

    Returns:
        The digest of the file's state.

    Raises:
        LineageError: if the expert does not belong to ``clip``.
        ArtifactError: if a file cannot be read or written.
    """
    state, lineage = load_weights(expert)
    if lineage.get("base") != clip.visual_digest:
        raise LineageError(
            f"{expert} was made from the base {lineage.get('base')}, but the image tower of "
            f"{clip.architecture} {clip.pretrained} is {clip.visual_digest}; run the base rule again"
        )
    known = {key: value for key, value in lineage.items() if key not in ("kind", "digest")}
    like, expert_digest = WeightFiles.open(expert), lineage["digest"]
    return write_framed(
        path, like, _frame_of(clip), state, {**known, "kind": "clip", "expert": expert_digest}
    )


def _scale(point: Point) -> float | Mapping[str, float]:
    at = read_point(point.scale)
    return at.named if at.scale is None else at.scale


def _frame_of(clip: Clip) -> Frame:
    others = {
        key: tensor
        for key, tensor in clip.model.state_dict().items()
        if not key.startswith(_VISUAL)
    }
    # transformers' tools want to know the format; `load_clip` compares the activation.
    return Frame(_VISUAL, others, {"activation": clip.activation, "format": "pt"})
