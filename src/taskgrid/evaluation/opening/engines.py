"""Engines: the one that a setting asks for, opened when the first row is missing, and not before."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from taskgrid.evaluation.plan.setting import MethodRef, Setting
from taskgrid.evaluation.plan.work import Measures
from taskgrid.evaluation.precision.proof import admit
from taskgrid.machine.devices import device_name, lease_device
from taskgrid.machine.timing import at_first_pass

if TYPE_CHECKING:
    import torch

    from taskgrid.evaluation.engine.material import Material
    from taskgrid.evaluation.tangent.engine import Features
    from taskgrid.models.batches import BatchChoice


class AnyEngine(Measures, Protocol):
    """What is opened: ``engine.Engine``, or the engine of tangent models."""

    @property
    def machine(self) -> dict[str, str | int]:
        """What moves the last bits of a row, ``device`` among it."""
        ...

    @property
    def prepared(self) -> Mapping[str, float]:
        """Seconds of lambda-free work, by the name of the subset."""
        ...


def open_engine(
    material: Material,
    setting: Setting,
    method: MethodRef | None = None,
    *,
    device: torch.device | str = "cpu",
    batch_size: BatchChoice = "auto",
    compiled: bool = False,
    features: Features | None = None,
) -> AnyEngine:
    """Open the engine that measures what a setting says.

    Args:
        material: base, experts, vectors, heads, images.
        setting: what they are, and how they are evaluated.
        method: the merge method as planned; None where no merge is measured.
        device: where to compute.
        batch_size: images per forward pass; ``auto`` takes what fits.
        compiled: whether whole batches pass through ``torch.compile``; tangent models never do.
        features: where features of tangent models are kept; None keeps those of one image set.
    """
    from taskgrid.evaluation.engine.engine import Engine
    from taskgrid.evaluation.tangent.engine import TangentEngine
    from taskgrid.merging.recipe import MergeRecipe

    recipe = MergeRecipe.of(method.name, method.options, method.seed) if method else None
    needs = method.needs if method else {}
    if setting.evaluation == "tangent":
        return TangentEngine(
            material,
            setting,
            recipe,
            device=device,
            batch_size=batch_size,
            store=features,
            needs=needs,
        )
    return Engine(
        material,
        recipe,
        device=device,
        batch_size=batch_size,
        precision=setting.precision,
        compiled=compiled,
        needs=needs,
    )


class EngineOnDemand:
    """Opens an engine when it is called, and then knows on what rows were measured.

    Args:
        open_on: opens the engine on a device.
    """

    def __init__(self, open_on: Callable[[], tuple[AnyEngine, torch.device]]) -> None:
        self._open = open_on
        self._opened: tuple[AnyEngine, torch.device] | None = None

    def __call__(self) -> AnyEngine:
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

    def prepared(self) -> dict[str, float]:
        """Return seconds of lambda-free work by the name of the subset; none where nothing was measured."""
        found = {} if self._opened is None else self._opened[0].prepared
        return {subset: round(seconds, 6) for subset, seconds in sorted(found.items())}


@contextmanager
def engine_on_demand(
    material: Material,
    setting: Setting,
    method: MethodRef | None = None,
    *,
    device: str = "auto",
    batch_size: BatchChoice = "auto",
    compiled: bool = False,
    store: Path | None = None,
    proof: str | Path | None = None,
    first_image: Callable[[], None] | None = None,
) -> Iterator[EngineOnDemand]:
    """Give what opens the engine when called; torch is imported and a device leased only then.

    Args:
        material: base, experts, vectors, heads, images.
        setting: what they are, and how they are evaluated.
        method: the merge method as planned; None where no merge is measured.
        device: ``auto``, ``cpu`` or ``cuda``; held until the block ends.
        batch_size: images per forward pass; ``auto`` takes what fits.
        compiled: whether whole batches pass through ``torch.compile``; tangent models never do.
        store: the outcome store's folder, beside whose outcomes features of tangent models are kept;
            None keeps none.
        proof: file of the proof that a precision below fp32 needs; None where there is none.
        first_image: called when the first image reaches a network.
    """
    with ExitStack() as held:

        def open_on_a_device() -> tuple[AnyEngine, torch.device]:
            from taskgrid.store.features import FeatureStore

            leased = held.enter_context(lease_device(device))
            admit(proof, setting, leased.type)
            if first_image is not None:
                held.callback(at_first_pass(first_image))
            engine = open_engine(
                material,
                setting,
                method,
                device=leased,
                batch_size=batch_size,
                compiled=compiled,
                features=FeatureStore(store / "features") if store is not None else None,
            )
            return engine, leased

        yield EngineOnDemand(open_on_a_device)
