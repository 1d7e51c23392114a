"""Merging out of core: checkpoints larger than memory, many outputs in one pass over the inputs.

Tensors pass by in the order of the base's bytes, in windows whose size follows from a bound on
memory. What a window needs is read into buffers that are used again, merged by the method's own
*prepare* and *apply*, and handed to threads that write and digest. So the numbers are those of
``taskgrid.merging.merge``, bit for bit: sums are float64 and rounded once. That costs little here:
a window's sums stay in the processor's cache, and reading and writing take the time.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from taskgrid.errors import ConfigError
from taskgrid.lattice.points import format_lambda
from taskgrid.lattice.subsets import subset_name
from taskgrid.merging.recipe import MergeRecipe
from taskgrid.outofcore.inputs import Inputs
from taskgrid.outofcore.passes import Frame, Pass
from taskgrid.outofcore.reading import WindowReader
from taskgrid.outofcore.shards import TensorSpec, WeightFiles
from taskgrid.outofcore.sink import Sink
from taskgrid.outofcore.staging import remove_leftovers
from taskgrid.outofcore.streams import check_space, write_stream
from taskgrid.outofcore.windows import Window
from taskgrid.provenance.digests import canonical_json
from taskgrid.sentences import choices
from taskgrid.store.weights import HEADER, Lineage

DEFAULT_BYTES = 256 << 20
"""Memory for tensors, unless another bound is given."""


@dataclass(frozen=True)
class Output:
    """One merged model to write.

    Attributes:
        path: its safetensors file; see ``store.streams.write_stream`` for the names of shards.
        tasks: the experts that enter.
        scale: the scaling coefficient lambda.
        lineage: entries to add to the lineage in its header.
    """

    path: Path
    tasks: tuple[str, ...]
    scale: float
    lineage: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Take a text for a path."""
        object.__setattr__(self, "path", Path(self.path))


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
        **options: the method's own options.

    Returns:
        The digests of the outputs' states.

    Raises:
        ConfigError: if the method must see more at once than ``max_bytes`` allows, needs statistics
            of data, or an option, a task or a path does not fit.
        LineageError: if an expert does not fit the base; names the key and both values.
        ArtifactError: if an input cannot be read or an output cannot be written.
    """
    recipe = MergeRecipe.of(method, options, seed)
    check_outputs(outputs)
    inputs = Inputs.open(Path(base), _used(experts, outputs))
    _check_recipe(recipe, inputs)
    frame = frame or Frame()
    layout = layout_of(inputs.base, frame)
    lanes = max(1, min(threads or os.cpu_count() or 1, len(outputs)))
    window = Window.within(max_bytes, inputs, recipe, lanes)
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
        points = [(output.tasks, output.scale) for output in outputs]
        merged = [
            inputs.base.specs[spec.name.removeprefix(frame.prefix)]
            for spec in layout
            if spec.name not in frame.others
        ]
        with (
            Sink(writers, lanes, window.nbytes) as sink,
            WindowReader(inputs, window) as reader,
        ):
            Pass(recipe, points, window, sink, frame).run(layout, reader.windows(merged))
        return tuple(writer.digest() for writer in writers)


def memory_needed(inputs: Inputs) -> int:
    """Return the bytes that a merge in memory takes: states, task vectors, a float64 direction."""
    weights = sum(spec.numel for spec in inputs.base.specs.values() if spec.floating)
    count = len(inputs.experts)
    return inputs.base.nbytes * (2 + count) + weights * (4 * count + 8)


def _used(experts: Mapping[str, str | Path], outputs: Sequence[Output]) -> dict[str, Path]:
    for output in outputs:
        if not output.tasks:
            raise ConfigError(f"{output.path} is asked for without experts; copy the base instead")
        for task in output.tasks:
            if task not in experts:
                wanted = f"{output.path} needs an expert of task {task!r}"
                raise ConfigError(f"{wanted}; {choices(task, experts)}")
    return {task: Path(experts[task]) for output in outputs for task in output.tasks}


def _check_recipe(recipe: MergeRecipe, inputs: Inputs) -> None:
    if recipe.card.needs:
        raise ConfigError(
            f"merge method {recipe.name!r} needs statistics of data "
            f"({', '.join(recipe.card.needs)}), which merging from files has not"
        )
    if recipe.card.scope == "model":
        raise ConfigError(
            f"merge method {recipe.name!r} looks at all tensors at once and cannot merge them piece by "
            f"piece; merge in memory with taskgrid.merging.merge, which needs about "
            f"{memory_needed(inputs) / 1e9:.1f} GB"
        )


def check_outputs(outputs: Sequence[Output]) -> None:
    """Refuse outputs that cannot all be written where they shall be.

    Raises:
        ConfigError: if there is none, or a path is asked for twice or is a folder.
    """
    if not outputs:
        raise ConfigError("no outputs are asked for; name at least one")
    path, times = Counter(output.path.resolve() for output in outputs).most_common(1)[0]
    if times > 1:
        raise ConfigError(f"{path} is asked for {times} times; give every output a path of its own")
    for output in outputs:
        if output.path.is_dir():
            raise ConfigError(f"{output.path} is a folder; name a .safetensors file in it")


def make_room(outputs: Sequence[Output], layout: Sequence[TensorSpec]) -> None:
    """Remove what killed runs left of the outputs, and see whether all of them fit.

    Raises:
        ArtifactError: if a disk has no room for what goes there.
    """
    paths = [output.path for output in outputs]
    for path in paths:
        remove_leftovers(path)
    check_space(paths, sum(spec.nbytes for spec in layout))


def layout_of(base: WeightFiles, frame: Frame) -> list[TensorSpec]:
    """Return the tensors of an output in the order they lie in: the base's where nothing is added."""
    merged = [
        TensorSpec(frame.prefix + name, spec.dtype, spec.shape) for name, spec in base.specs.items()
    ]
    if not frame.others:
        return merged
    others = [TensorSpec.of(name, tensor) for name, tensor in frame.others.items()]
    # The usual order of the format: wide dtypes first, which keeps all of them aligned.
    return sorted([*merged, *others], key=lambda s: (-s.torch_dtype.itemsize, s.name))


def lineage_of(inputs: Inputs, recipe: MergeRecipe, output: Output) -> Lineage:
    """Return what an output was made from, as far as the inputs say it themselves."""
    base = inputs.base.lineage
    kept = {key: value for key, value in base.items() if key not in ("kind", "digest")}
    made_from = {task: inputs.experts[task].lineage.get("digest", "") for task in output.tasks}
    return {
        **kept,
        **({"base": base["digest"]} if base else {}),
        **({"experts": canonical_json(made_from)} if all(made_from.values()) else {}),
        "kind": "merged",
        "method": recipe.name,
        "options": canonical_json(dict(recipe.options)),
        "subset": subset_name(output.tasks),
        "lambda": format_lambda(output.scale),
        **output.lineage,
    }
