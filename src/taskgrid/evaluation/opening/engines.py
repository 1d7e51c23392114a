"""A bench that is set up when the first row is missing, and not before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from taskgrid.evaluation.plan.runner import Bench
from taskgrid.evaluation.plan.setting import MethodRef
from taskgrid.evaluation.precision.proof import admit
from taskgrid.machine.devices import device_name, lease_device
from taskgrid.workflow.command import use_threads

if TYPE_CHECKING:
    import torch

    from taskgrid.evaluation.opening.files import GridFiles
    from taskgrid.models.batches import BatchChoice


class Engines(Bench, Protocol):
    """What is opened: ``engine.Engine``, or the engine of tangent models."""

    @property
    def machine(self) -> dict[str, str | int]:
        """What moves the last bits of a row, ``device`` among it."""
        ...


class EngineOnDemand:
    """Opens an engine when it is called, and then knows on what rows were measured.

    Args:
        open_engine: opens the engine on a device.
    """

    def __init__(self, open_engine: Callable[[], tuple[Engines, torch.device]]) -> None:
        self._open = open_engine
        self._opened: tuple[Engines, torch.device] | None = None

    def __call__(self) -> Bench:
        """Open the engine."""
        self._opened = self._open()
        return self._opened[0]

    def machine(self) -> dict[str, str | int]:
        """Return what moves the last bits of rows, the device by its name.

        The batch size is the last one, in case the device ran out of memory. Nothing, if no engine was
        opened: no row was measured then. Ask for it when rows have been measured.
        """
        if self._opened is None:
            return {}
        engine, device = self._opened
        return {**engine.machine, "device": device_name(device)}


@contextmanager
def engine_on_demand(
    material: GridFiles,
    method: MethodRef | None = None,
    *,
    device: str = "auto",
    threads: int | None = None,
    batch_size: BatchChoice = "auto",
    compiled: bool = False,
    store: Path | None = None,
    proof: str | Path | None = None,
    first_image: Callable[[], None] | None = None,
) -> Iterator[EngineOnDemand]:
    """Give what opens the engine when called; torch is imported and a device leased only then.

    Args:
        material: base, experts, vectors, heads, images.
        method: the merge method as planned; None where no merge is measured.
        device: ``auto``, ``cpu`` or ``cuda``; held until the block ends.
        threads: CPU threads.
        batch_size: images per forward pass; ``auto`` takes what fits.
        compiled: whether whole batches pass through ``torch.compile``; tangent models never do.
        store: the outcome store's folder, beside whose outcomes features of tangent models and batch
            sizes are kept; None keeps none.
        proof: file of the proof that a precision below fp32 needs; None where there is none.
        first_image: called when the first image reaches a network.
    """
    with ExitStack() as held:

        def open_engine() -> tuple[Engines, torch.device]:
            import torch

            from taskgrid.evaluation.engine.engine import Engine
            from taskgrid.evaluation.opening.remembered import Job, RememberedSize
            from taskgrid.evaluation.tangent.engine import TangentEngine
            from taskgrid.merging.recipe import MergeRecipe
            from taskgrid.store.features import FeatureStore

            use_threads(threads)
            recipe = MergeRecipe.of(method.name, method.options, method.seed) if method else None
            leased = held.enter_context(lease_device(device))
            admit(proof, material.setting, leased.type)
            if first_image is not None:
                held.callback(_at_first_pass(first_image))
            setting, remembered = material.setting, None
            if store is not None and leased.type == "cuda":
                job = Job(
                    setting.tower,
                    setting.evaluation,
                    setting.precision,
                    compiled and setting.evaluation == "plain",
                    device_name(leased),
                    torch.__version__,
                )
                remembered = RememberedSize(store / "batches", job)
            if setting.evaluation == "tangent":
                tangent = TangentEngine(
                    material,
                    setting,
                    recipe,
                    device=leased,
                    batch_size=batch_size,
                    store=FeatureStore(store / "features") if store is not None else None,
                    remembered=remembered,
                )
                return tangent, leased
            engine = Engine(
                material,
                recipe,
                device=leased,
                batch_size=batch_size,
                precision=setting.precision,
                compiled=compiled,
                remembered=remembered,
            )
            return engine, leased

        yield EngineOnDemand(open_engine)


def _at_first_pass(tell: Callable[[], None]) -> Callable[[], None]:
    """Call ``tell`` when a network is run for the first time; return what calls it off."""
    from torch.nn.modules.module import register_module_forward_pre_hook

    def once(*_: object) -> None:
        handle.remove()
        tell()

    handle = register_module_forward_pre_hook(once)
    return handle.remove
