"""One pass over base and experts: every window is merged for every output while it is in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache

import torch

from taskgrid.merging.recipe import MergeRecipe
from taskgrid.merging.seam import Learned, Prepared, Sources
from taskgrid.outofcore.outputs import Frame, Output
from taskgrid.outofcore.reading import Loaded
from taskgrid.outofcore.shards import TensorSpec
from taskgrid.outofcore.sink import Sink
from taskgrid.outofcore.windows import Window, slices


class Merges:
    """Which merges are made of every piece.

    Args:
        recipe: how to merge.
        outputs: what is asked for, in the order of the sink's states.
        learned: subset -> what was learned for it; None where nothing is.
        names: the tensors that learned coefficients per tensor stand for.
    """

    def __init__(
        self,
        recipe: MergeRecipe,
        outputs: Sequence[Output],
        learned: Callable[[tuple[str, ...]], Learned] | None,
        names: Sequence[str],
    ) -> None:
        self.recipe = recipe
        self._learned = cache(learned) if learned is not None else None
        self._place = {name: place for place, name in enumerate(names)}
        # Outputs of one subset and its named coefficients share a preparation.
        self.groups: dict[
            tuple[tuple[str, ...], tuple[tuple[str, float], ...]], list[tuple[int, Output]]
        ] = {}
        for index, output in enumerate(outputs):
            self.groups.setdefault(output.merge, []).append((index, output))

    def sources(self, loaded: Loaded, piece: slice, shape: tuple[int, ...]) -> Sources:
        """Give a piece of everything, as that of a model of one tensor."""
        name, learned = loaded.spec.name, self._learned

        def own(tasks: tuple[str, ...]) -> Learned:
            assert learned is not None
            place, found = self._place[name], learned(tasks)
            coefficients = {
                task: found[task] if found[task].dim() == 0 else found[task][place : place + 1]
                for task in tasks
                if task in found
            }
            if name not in found:
                return coefficients
            here = slice(loaded.start + piece.start, loaded.start + piece.stop)
            return {**coefficients, name: found[name].reshape(-1)[here].view(shape)}

        return Sources(
            lambda task: {name: loaded.vectors[task][piece].view(shape)},
            loaded.statistics.piece(piece, shape),
            own if learned is not None else None,
        )


class Pass:
    """Merges windows and hands them on.

    Args:
        merges: which merges are made.
        window: sizes of the windows.
        sink: where merged tensors go; its buffers have the window's size.
        frame: what stands around them.
    """

    def __init__(self, merges: Merges, window: Window, sink: Sink, frame: Frame) -> None:
        self._merges, self._window, self._sink, self._frame = merges, window, sink, frame

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
        recipe = self._merges.recipe
        whole = recipe.scope == "tensor"
        pieces = [slice(0, count)] if whole else list(slices(count))
        shape = spec.shape if whole else (-1,)
        size = spec.torch_dtype.itemsize
        bases = [{spec.name: loaded.base[piece].view(shape)} for piece in pieces]
        sources = [self._merges.sources(loaded, piece, shape) for piece in pieces]
        for (tasks, named), members in self._merges.groups.items():
            ready: list[Prepared] = [
                recipe.prepare(base, source, tasks, dict(named))
                for base, source in zip(bases, sources, strict=True)
            ]
            for index, output in members:
                buffer = self._sink.take()
                merged = torch.from_numpy(buffer[: count * size]).view(spec.torch_dtype)
                scale = output.point.lambda_value
                for base, piece, prepared in zip(bases, pieces, ready, strict=True):
                    out = {spec.name: merged[piece].view(shape)}
                    recipe.apply(base, prepared, scale, task=output.task, out=out)
                self._sink.send(index, name, loaded.start * size, buffer, count * size)


def _bytes_of(tensor: torch.Tensor) -> memoryview:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data
