"""Statistics in files, read tensor by tensor beside the weights that they belong to.

An entry with the name of a tensor belongs to it, and is cut as it is where the shapes agree. One whose
name is no tensor's (a number of images, say) belongs to all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self, TypeAlias

import torch

from taskgrid.errors import ConfigError
from taskgrid.merging.recipe import MergeRecipe
from taskgrid.outofcore.inputs import Inputs, check_base
from taskgrid.outofcore.shards import TensorReader, TensorSpec, WeightFiles
from taskgrid.store.weights import State

StatisticPaths: TypeAlias = Mapping[str, Mapping[str, str | Path] | str | Path]
"""Name -> task -> file of a statistic, and of one of the base, name -> file."""

Place = tuple[str, str]
"""Name of a statistic and its task, ``""`` for one of the base."""


@dataclass(frozen=True)
class Held:
    """What statistics say of a window.

    Attributes:
        cut: by place: entries cut like the window, flat.
        whole: by place: entries that are not.
    """

    cut: Mapping[Place, State] = field(default_factory=dict)
    whole: Mapping[Place, State] = field(default_factory=dict)

    def piece(self, piece: slice, shape: tuple[int, ...]) -> Callable[[str, str], State]:
        """Return where the statistics of a piece of the window come from."""

        def statistic(name: str, task: str) -> State:
            cut = {key: one[piece].view(shape) for key, one in self.cut[name, task].items()}
            return cut | self.whole[name, task]

        return statistic


class Statistics:
    """The statistics that a merge needs.

    Args:
        files: by place, the files.
        base: the tensors of the base.
    """

    def __init__(self, files: Mapping[Place, WeightFiles], base: Mapping[str, TensorSpec]) -> None:
        self._base = base
        self._readers = {place: TensorReader(found) for place, found in files.items()}
        self._opened = ExitStack()
        self._shared: dict[Place, State] = {}

    def __enter__(self) -> Self:
        for place, reader in self._readers.items():
            self._opened.enter_context(reader)
            self._shared[place] = {
                name: reader.read(name)
                for name in reader.checkpoint.specs
                if name not in self._base
            }
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._opened.close()

    @property
    def nbytes(self) -> tuple[int, int]:
        """Bytes that a window takes at most: for each of its elements, and whatever its length."""
        cut, whole, shared = 0, 0, 0
        for name, tensor in self._base.items():
            own = list(self._of(name))
            cut = max(cut, sum(s.torch_dtype.itemsize for s in own if s.shape == tensor.shape))
            whole = max(whole, sum(s.nbytes for s in own if s.shape != tensor.shape))
        for reader in self._readers.values():
            others = reader.checkpoint.specs.items()
            shared += sum(spec.nbytes for name, spec in others if name not in self._base)
        return cut, whole + shared

    def read(self, tensor: TensorSpec, start: int, count: int) -> Held:
        """Read what belongs to a window.

        Raises:
            ArtifactError: if a file cannot be read.
        """
        cut: dict[Place, State] = {}
        whole: dict[Place, State] = {}
        for place, reader in self._readers.items():
            cut[place], whole[place] = {}, dict(self._shared[place])
            own = reader.checkpoint.specs.get(tensor.name)
            if own is None:
                continue
            if own.shape == tensor.shape:
                cut[place][own.name] = _read(reader, own, start, count)
            else:
                whole[place][own.name] = reader.read(own.name)
        return Held(cut, whole)

    def _of(self, name: str) -> Iterable[TensorSpec]:
        found = (reader.checkpoint.specs.get(name) for reader in self._readers.values())
        return (spec for spec in found if spec is not None)


def files_of(files: StatisticPaths) -> Iterator[Path]:
    """Yield every file of some statistics."""
    for given in files.values():
        yield from map(Path, given.values() if isinstance(given, Mapping) else [given])


def find_statistics(
    recipe: MergeRecipe, inputs: Inputs, files: StatisticPaths
) -> dict[Place, WeightFiles]:
    """Read the headers of the statistics that a method needs.

    Args:
        recipe: how is merged.
        inputs: what is merged.
        files: where they are.

    Raises:
        ConfigError: if one is not there.
        LineageError: if one belongs to another base.
        ArtifactError: if a file is missing or damaged.
    """
    found = {}
    for name, task in recipe.statistics_of(tuple(inputs.experts)):
        whose = f"of task {task!r}" if task else "of the base"
        given = files.get(name)
        # By task, or the file itself.
        path = given.get(task) if isinstance(given, Mapping) else given
        if path is None or isinstance(given, Mapping) != bool(task):
            raise ConfigError(
                f"merge method {recipe.name!r} needs the statistic {name!r} {whose}; give its file in "
                "`statistics`"
            )
        found[name, task] = WeightFiles.open(path)
        check_base(f"the statistic {name!r} {whose}", found[name, task], inputs.base)
    return found


def _read(reader: TensorReader, spec: TensorSpec, start: int, count: int) -> torch.Tensor:
    size = spec.torch_dtype.itemsize
    held = torch.empty(count * size, dtype=torch.uint8)
    reader.read_into(held.numpy().data, spec.name, start * size)
    return held.view(spec.torch_dtype)
