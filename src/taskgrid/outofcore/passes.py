"""One pass over base and experts: every window is merged for every output while it is in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from taskgrid.lattice.subsets import canonical_subset
from taskgrid.merging.recipe import MergeRecipe
from taskgrid.merging.seam import Sources
from taskgrid.outofcore.reading import Loaded
from taskgrid.outofcore.shards import TensorSpec
from taskgrid.outofcore.sink import Sink
from taskgrid.outofcore.windows import Window, slices


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


class Pass:
    """Merges windows and hands them on.

    Args:
        recipe: how to merge.
        points: tasks and lambda of each output, in the order of the sink's states.
        window: sizes of the windows.
        sink: where merged tensors go; its buffers have the window's size.
        frame: what stands around them.
    """

    def __init__(
        self,
        recipe: MergeRecipe,
        points: Sequence[tuple[Sequence[str], float]],
        window: Window,
        sink: Sink,
        frame: Frame,
    ) -> None:
        self._recipe, self._window, self._sink, self._frame = recipe, window, sink, frame
        # Outputs of one subset share its preparation.
        self._subsets: dict[tuple[str, ...], list[tuple[int, float]]] = {}
        for index, (tasks, scale) in enumerate(points):
            self._subsets.setdefault(canonical_subset(tasks), []).append((index, scale))

    def run(self, layout: Sequence[TensorSpec], windows: Iterator[Loaded]) -> None:
        """Write every tensor of every output.

        Args:
            layout: the outputs' tensors, in order.
            windows: the windows of those that are merged, in the same order.

        Raises:
            LineageError: if an expert does not fit.
            ArtifactError: if a file cannot be read or written.
        """
        for spec in layout:
            if spec.name in self._frame.others:
                self._sink.send_all(spec.name, 0, _bytes_of(self._frame.others[spec.name]))
                continue
            for _ in self._window.spans(spec):
                loaded = next(windows)
                if spec.floating:
                    self._merge(spec.name, loaded)
                else:
                    offset = loaded.start * spec.torch_dtype.itemsize
                    self._sink.send_all(spec.name, offset, _bytes_of(loaded.base))
        self._sink.drain()

    def _merge(self, name: str, loaded: Loaded) -> None:
        spec, count = loaded.spec, len(loaded.base)
        whole = self._recipe.card.scope == "tensor"
        pieces = [slice(0, count)] if whole else list(slices(count))
        shape = spec.shape if whole else (-1,)
        size = spec.torch_dtype.itemsize
        bases = [{spec.name: loaded.base[piece].view(shape)} for piece in pieces]
        recipe = self._recipe
        for tasks, members in self._subsets.items():
            vectors = {task: loaded.vectors[task] for task in tasks}
            ready = [
                recipe.prepare(base, _piece(vectors, spec.name, piece, shape), tasks)
                for base, piece in zip(bases, pieces, strict=True)
            ]
            for index, scale in members:
                buffer = self._sink.take()
                merged = torch.from_numpy(buffer[: count * size]).view(spec.torch_dtype)
                for base, piece, prepared in zip(bases, pieces, ready, strict=True):
                    out = {spec.name: merged[piece].view(shape)}
                    recipe.apply(base, prepared, scale, out=out)
                self._sink.send(index, name, loaded.start * size, buffer, count * size)


def _piece(
    vectors: Mapping[str, torch.Tensor], name: str, piece: slice, shape: tuple[int, ...]
) -> Sources:
    """Give a piece of each task's vector, as the vector of a model of one tensor."""
    return Sources(lambda task: {name: vectors[task][piece].view(shape)})


def _bytes_of(tensor: torch.Tensor) -> memoryview:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data
