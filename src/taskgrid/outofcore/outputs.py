"""What a merge from files writes: which models, where, in which order of tensors, with which lineage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch

from taskgrid.errors import ConfigError
from taskgrid.lattice.points import Coefficients, point_text, read_point
from taskgrid.lattice.subsets import canonical_subset, subset_name
from taskgrid.merging.recipe import MergeRecipe
from taskgrid.outofcore.inputs import Inputs
from taskgrid.outofcore.shards import TensorSpec, WeightFiles
from taskgrid.outofcore.staging import remove_leftovers
from taskgrid.outofcore.streams import check_space
from taskgrid.provenance.digests import canonical_json
from taskgrid.store.weights import Lineage


@dataclass(frozen=True)
class Output:
    """One merged model to write.

    Attributes:
        path: its safetensors file; see ``outofcore.streams.write_stream`` for the names of shards.
        tasks: the experts that enter.
        scale: the scaling coefficient lambda, or one for each task.
        lineage: entries to add to the lineage in its header.
        task: of a method with a model per task, the one whose model it is.
    """

    path: Path
    tasks: tuple[str, ...]
    scale: float | Mapping[str, float]
    lineage: Mapping[str, str] = field(default_factory=dict)
    task: str | None = None

    def __post_init__(self) -> None:
        """Take a text for a path."""
        object.__setattr__(self, "path", Path(self.path))

    @cached_property
    def point(self) -> Coefficients:
        """The coefficients."""
        return read_point(point_text(self.scale))

    @property
    def merge(self) -> tuple[tuple[str, ...], tuple[tuple[str, float], ...]]:
        """What outputs have in common that share one preparation: tasks and named coefficients."""
        return canonical_subset(self.tasks), tuple(self.point.named.items())


@dataclass(frozen=True)
class Frame:
    """What stands around the merged tensors in the files that are written.

    Attributes:
        prefix: begins the names of merged tensors.
        others: tensors to write as they are.
        metadata: texts for the headers.
    """

    prefix: str = ""
    others: Mapping[str, torch.Tensor] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)


def check_outputs(recipe: MergeRecipe, outputs: Sequence[Output]) -> None:
    """Refuse outputs that the method does not have, or that cannot all be where they shall be.

    Raises:
        ConfigError: if there is none, a path is asked for twice or is a folder, or tasks or coefficients
            are none that the method has.
    """
    recipe.check_weights()
    if not outputs:
        raise ConfigError("no outputs are asked for; name at least one")
    path, times = Counter(output.path.resolve() for output in outputs).most_common(1)[0]
    if times > 1:
        raise ConfigError(f"{path} is asked for {times} times; give every output a path of its own")
    for output in outputs:
        if output.path.is_dir():
            raise ConfigError(f"{output.path} is a folder; name a .safetensors file in it")
        if not output.tasks:
            raise ConfigError(f"{output.path} is asked for without experts; copy the base instead")
        named = output.scale if isinstance(output.scale, Mapping) else None
        recipe.check_point(output.tasks, output.point.lambda_value, named)
        recipe.check_task(output.tasks, output.task)


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
        **({"task": output.task} if output.task is not None else {}),
        "kind": "merged",
        "method": recipe.name,
        "options": canonical_json(dict(recipe.options)),
        "subset": subset_name(output.tasks),
        "point": output.point.text,
        **output.lineage,
    }
