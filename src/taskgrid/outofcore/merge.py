"""Merging out of core: checkpoints larger than memory, many outputs in one pass over the inputs.

Tensors pass by in the order of the base's bytes, in windows whose size follows from a bound on
memory. What a window needs is read into buffers that are used again, merged by the method's own
*prepare* and *apply*, and handed to threads that write and digest. So the numbers are those of
``taskgrid.merging.merge``, bit for bit: sums are float64 and rounded once. That costs little here:
a window's sums stay in the processor's cache, and reading and writing take the time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from taskgrid.errors import ConfigError
from taskgrid.merging.recipe import MergeRecipe
from taskgrid.merging.seam import Learned
from taskgrid.outofcore.inputs import Inputs
from taskgrid.outofcore.outputs import (
    Frame,
    Output,
    check_outputs,
    layout_of,
    lineage_of,
    make_room,
)
from taskgrid.outofcore.passes import Merges, Pass
from taskgrid.outofcore.reading import WindowReader
from taskgrid.outofcore.sink import Sink
from taskgrid.outofcore.statistics import StatisticPaths, Statistics, find_statistics
from taskgrid.outofcore.streams import write_stream
from taskgrid.outofcore.windows import Window
from taskgrid.sentences import choices
from taskgrid.store.weights import HEADER

__all__ = ["DEFAULT_BYTES", "Frame", "Output", "stream_merge"]

DEFAULT_BYTES = 256 << 20
"""Memory for tensors, unless another bound is given."""


def stream_merge(
    method: str,
    base: str | Path,
    experts: Mapping[str, str | Path],
    outputs: Sequence[Output],
    *,
    max_bytes: int = DEFAULT_BYTES,
    shard_bytes: int | None = None,
    frame: Frame | None = None,
    seed: int = 0,
    threads: int | None = None,
    statistics: StatisticPaths | None = None,
    learned: Callable[[tuple[str, ...]], Learned] | None = None,
    **options: Any,
) -> tuple[str, ...]:
    """Merge checkpoints on disk into checkpoints on disk, with bounded memory.

    Args:
        method: name of a merge method.
        base: theta_0: a safetensors file, an index of shards, or a folder with either.
        experts: task -> theta_t, or the file of its task vector; a checkpoint in any of the forms
            of ``base``, whose tensors have the names, shapes and dtypes of the base's.
        outputs: the models to write. All of them are made in one pass over the inputs; one that
            exists is replaced.
        max_bytes: memory for tensors, whatever their number and size and the number of outputs.
            The interpreter and its libraries come on top, and what a method of scope ``tensor``
            allocates beside its operands.
        shard_bytes: size at which an output begins another shard; None for one file each.
        frame: what stands around the merged tensors.
        seed: for methods that draw.
        threads: threads that write and digest; default: one per processor, but no more than outputs.
        statistics: name -> task -> file of a statistic, for a method that needs any; of one of the base,
            name -> file.
        learned: subset -> what was learned for it, for a method that learns.
        **options: the method's own options.

    Returns:
        The digests of the outputs' states.

    Raises:
        ConfigError: if the method must see more at once than ``max_bytes`` allows, needs a statistic
            that is not given, merges logits, or an option, a point, a task or a path does not fit.
        LineageError: if an expert does not fit the base; names the key and both values. Or if
            coefficients must be learned and are not given.
        ArtifactError: if an input cannot be read or an output cannot be written.
    """
    recipe = MergeRecipe.of(method, options, seed)
    check_outputs(recipe, outputs)
    inputs = Inputs.open(Path(base), _used(experts, outputs))
    _check_scope(recipe, inputs)
    given = Statistics(find_statistics(recipe, inputs, statistics or {}), inputs.base.specs)
    frame = frame or Frame()
    layout = layout_of(inputs.base, frame)
    lanes = max(1, min(threads or os.cpu_count() or 1, len(outputs)))
    window = Window.within(max_bytes, inputs, recipe, lanes, given.nbytes)
    make_room(outputs, layout)
    texts = {key: text for key, text in inputs.base.metadata.items() if key != HEADER}
    with ExitStack() as opened:
        writers = [
            opened.enter_context(
                write_stream(
                    output.path,
                    layout,
                    lineage_of(inputs, recipe, output),
                    shard_bytes=shard_bytes,
                    metadata={**texts, **frame.metadata},
                )
            )
            for output in outputs
        ]
        merged = [
            inputs.base.specs[spec.name.removeprefix(frame.prefix)]
            for spec in layout
            if spec.name not in frame.others
        ]
        with (
            Sink(writers, lanes, window.nbytes) as sink,
            given,
            WindowReader(inputs, window, given) as reader,
        ):
            names = sorted(name for name, spec in inputs.base.specs.items() if spec.floating)
            merges = Merges(recipe, outputs, learned, names)
            Pass(merges, window, sink, frame).run(layout, reader.windows(merged))
        return tuple(writer.digest() for writer in writers)


def memory_needed(inputs: Inputs) -> int:
    """Return the bytes that a merge in memory takes: states, task vectors, a float64 direction."""
    weights = sum(spec.numel for spec in inputs.base.specs.values() if spec.floating)
    count = len(inputs.experts)
    return inputs.base.nbytes * (2 + count) + weights * (4 * count + 8)


def _used(experts: Mapping[str, str | Path], outputs: Sequence[Output]) -> dict[str, Path]:
    for output in outputs:
        for task in output.tasks:
            if task not in experts:
                wanted = f"{output.path} needs an expert of task {task!r}"
                raise ConfigError(f"{wanted}; {choices(task, experts)}")
    return {task: Path(experts[task]) for output in outputs for task in output.tasks}


def _check_scope(recipe: MergeRecipe, inputs: Inputs) -> None:
    if recipe.scope == "model":
        raise ConfigError(
            f"merge method {recipe.name!r} looks at all tensors at once and cannot merge them piece by "
            f"piece; merge in memory with taskgrid.merging.merge, which needs about "
            f"{memory_needed(inputs) / 1e9:.1f} GB"
        )
