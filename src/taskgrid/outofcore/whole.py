"""Merges of whole models in memory, for methods that must see all tensors at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from taskgrid.merging.recipe import MergeRecipe
from taskgrid.merging.seam import Learned, Sources
from taskgrid.merging.walks import walk
from taskgrid.outofcore.checked import load_weights
from taskgrid.outofcore.inputs import Inputs
from taskgrid.outofcore.outputs import Frame, Output, layout_of, lineage_of, make_room
from taskgrid.outofcore.statistics import StatisticPaths, find_statistics
from taskgrid.outofcore.streams import write_stream
from taskgrid.store.weights import State
from taskgrid.vectors import TaskVector


def merge_whole(
    inputs: Inputs,
    recipe: MergeRecipe,
    outputs: Sequence[Output],
    frame: Frame,
    statistics: StatisticPaths,
    learned: Callable[[tuple[str, ...]], Learned] | None,
) -> tuple[str, ...]:
    """Write merges of task vectors: every file is read once, every subset prepared once.

    Args:
        inputs: the base and task vectors, with lineage.
        recipe: how to merge.
        outputs: what to write.
        frame: what stands around the merged tensors.
        statistics: name -> task -> file of a statistic; of one of the base, name -> file.
        learned: subset -> what was learned for it.

    Returns:
        The digests of the outputs' states.

    Raises:
        ConfigError: if a statistic is not given.
        LineageError: if it belongs to another base, or coefficients must be learned and are not given.
        ArtifactError: if an input cannot be read or an output cannot be written.
    """
    files = find_statistics(recipe, inputs, statistics)
    make_room(outputs, layout_of(inputs.base, frame))
    state, _ = load_weights(inputs.base.path)
    used = {task for output in outputs for task in output.tasks}
    vectors = {task: TaskVector.load(inputs.experts[task].path).deltas for task in sorted(used)}
    held = {place: load_weights(found.path)[0] for place, found in files.items()}
    statistic = (lambda name, task: held[name, task]) if held else None
    sources = Sources(vectors.__getitem__, statistic, learned)
    prepare = walk(recipe, state, sources, keep_bytes=0)
    digests: dict[int, str] = {}
    for merge in sorted({output.merge for output in outputs}):
        tasks, named = merge
        prepared = prepare(tasks, dict(named))
        for index, output in enumerate(outputs):
            if output.merge == merge:
                scale = output.point.lambda_value
                merged = recipe.apply(state, prepared, scale, task=output.task)
                digests[index] = _write(inputs, recipe, output, frame, merged)
    return tuple(digests[index] for index in range(len(outputs)))


def _write(inputs: Inputs, recipe: MergeRecipe, output: Output, frame: Frame, merged: State) -> str:
    everything = {frame.prefix + key: tensor for key, tensor in merged.items()} | dict(frame.others)
    layout = layout_of(inputs.base, frame)
    with write_stream(
        output.path, layout, lineage_of(inputs, recipe, output), metadata=frame.metadata
    ) as writer:
        for spec in layout:
            tensor = everything[spec.name].detach().cpu().contiguous().reshape(-1)
            writer.write(spec.name, 0, tensor.view(torch.uint8).numpy().data)
        return writer.digest()
