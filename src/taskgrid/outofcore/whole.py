"""Merges for methods that must see all tensors at once: the model is in memory, its task vectors in files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch

from taskgrid.merging.recipe import MergeRecipe
from taskgrid.merging.seam import Learned, Sources
from taskgrid.outofcore.checked import load_weights
from taskgrid.outofcore.inputs import Inputs
from taskgrid.outofcore.outputs import Frame, Output, layout_of, lineage_of, make_room
from taskgrid.outofcore.shards import TensorReader, WeightFiles
from taskgrid.outofcore.statistics import StatisticPaths, find_statistics
from taskgrid.outofcore.streams import write_stream
from taskgrid.store.weights import State


def merge_whole(
    inputs: Inputs,
    recipe: MergeRecipe,
    outputs: Sequence[Output],
    frame: Frame,
    statistics: StatisticPaths,
    learned: Callable[[tuple[str, ...]], Learned] | None,
) -> tuple[str, ...]:
    """Write merges of task vectors, every subset prepared once.

    A tensor of a task vector is read whenever a method asks for it, so that those that look at a whole model
    but at one tensor at a time take no more memory for many tasks than for one.

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
    held = {place: load_weights(found.path)[0] for place, found in files.items()}
    statistic = (lambda name, task: held[name, task]) if held else None
    digests: dict[int, str] = {}
    with ExitStack() as opened:
        vectors = {
            task: _InFile(opened.enter_context(TensorReader(found)))
            for task, found in inputs.experts.items()
        }
        sources = Sources(vectors.__getitem__, statistic, learned)
        for merge in sorted({output.merge for output in outputs}):
            tasks, named = merge
            prepared = recipe.prepare(state, sources, tasks, dict(named))
            for index, output in enumerate(outputs):
                if output.merge == merge:
                    scale = output.point.lambda_value
                    merged = recipe.apply(state, prepared, scale, task=output.task)
                    digests[index] = _write(inputs, recipe, output, frame, merged)
    return tuple(digests[index] for index in range(len(outputs)))


class _InFile(Mapping[str, torch.Tensor]):
    """A task vector that is read tensor by tensor."""

    def __init__(self, reader: TensorReader) -> None:
        self._reader = reader

    def __getitem__(self, name: str) -> torch.Tensor:
        return self._reader.read(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._reader.checkpoint.specs)

    def __len__(self) -> int:
        return len(self._reader.checkpoint.specs)


def _write(inputs: Inputs, recipe: MergeRecipe, output: Output, frame: Frame, merged: State) -> str:
    return write_framed(output.path, inputs.base, frame, merged, lineage_of(inputs, recipe, output))


def write_framed(
    path: Path, like: WeightFiles, frame: Frame, state: State, lineage: Mapping[str, str]
) -> str:
    """Write a state and what stands around it.

    Args:
        path: the safetensors file.
        like: a checkpoint of the state's names and shapes, whose order the file takes.
        frame: what stands around it.
        state: the tensors, as ``like`` names them.
        lineage: what they were made from.

    Returns:
        The digest of all that was written.

    Raises:
        ArtifactError: if the file system refuses to write.
    """
    everything = {frame.prefix + key: tensor for key, tensor in state.items()} | dict(frame.others)
    layout = layout_of(like, frame)
    with write_stream(path, layout, lineage, metadata=frame.metadata) as writer:
        for spec in layout:
            tensor = everything[spec.name].detach().cpu().contiguous().reshape(-1)
            writer.write(spec.name, 0, tensor.view(torch.uint8).numpy().data)
        return writer.digest()
