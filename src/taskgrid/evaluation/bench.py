"""A bench that is set up when the first row is missing, and not before."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from taskgrid.command import use_threads
from taskgrid.devices import lease_device
from taskgrid.evaluation.planner import MethodRef
from taskgrid.evaluation.runner import OpenBench

if TYPE_CHECKING:
    from taskgrid.evaluation.engine import Engine
    from taskgrid.evaluation.files import GridFiles


@contextmanager
def engine_on_demand(
    material: GridFiles,
    method: MethodRef | None = None,
    *,
    device: str = "auto",
    threads: int | None = None,
    batch_size: int = 512,
) -> Iterator[OpenBench]:
    """Give a function that opens the engine; torch is imported and a device leased when it is called.

    Args:
        material: base, experts, vectors, heads, images.
        method: the merge method as planned; None where no merge is measured.
        device: ``auto``, ``cpu`` or ``cuda``; held until the block ends.
        threads: CPU threads.
        batch_size: images per forward pass.
    """
    with ExitStack() as held:

        def open_bench() -> Engine:
            from taskgrid.evaluation import engine
            from taskgrid.merging.base import get_merger
            from taskgrid.options import parse_options

            use_threads(threads)
            ready = None
            if method is not None:
                merger = get_merger(method.name)
                options = parse_options(
                    f"merge method {method.name!r}", merger.Options, method.options
                )
                ready = engine.Method(merger, options, method.seed or 0)
            return engine.Engine(
                material,
                ready,
                device=held.enter_context(lease_device(device)),
                batch_size=batch_size,
                precision=material.setting.precision,
            )

        yield open_bench
