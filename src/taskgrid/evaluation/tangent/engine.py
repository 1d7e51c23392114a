"""The engine of tangent models: passes over images per task vector, algebra per grid point.

A pass gives the features of one image set along one task vector; all subsets and lambdas of an
additive method follow from those. What is not additive is answered as exactly, at the price of
passes of its own: one per subset where theta moves on a line, one per point elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol, TypeVar

import torch

from taskgrid.errors import ConfigError
from taskgrid.evaluation.engine.engine import measure
from taskgrid.evaluation.engine.material import Material
from taskgrid.evaluation.engine.resident import Resident
from taskgrid.evaluation.plan import keys
from taskgrid.evaluation.plan.setting import Request, Setting, Split
from taskgrid.evaluation.tangent.line import (
    LogitLine,
    Projected,
    features_along,
    features_at_origin,
)
from taskgrid.merging.bases.additive import Additive, Line
from taskgrid.merging.recipe import MergeRecipe
from taskgrid.merging.walks import Walk
from taskgrid.models.batches import BatchChoice, BatchSize, blank, fitted
from taskgrid.models.encoder import ImageEncoder
from taskgrid.models.linearized import LinearizedEncoder
from taskgrid.store.outcome import Outcome
from taskgrid.store.weights import State
from taskgrid.vectors import subtract

Key = TypeVar("Key")
_Place = tuple[str, Split]
"""An image set: a task and a split."""

_Named = tuple[tuple[str, float], ...]
"""Coefficients of a point that names them."""


class Features(Protocol):
    """Where features are found again: ``store.features.FeatureStore``, or memory."""

    def find(self, key: str) -> torch.Tensor | None:
        """Return the features ``(n, D)`` of a key, or None."""
        ...

    def add(self, key: str, features: torch.Tensor) -> None:
        """Keep features under a key."""
        ...


@dataclass
class _Moving:
    """An image set's features along tasks' vectors, and how its head sees them."""

    place: _Place
    along: dict[str, torch.Tensor] = field(default_factory=dict)
    projected: Projected | None = None


class TangentEngine:
    """Measures tangent models on images; ``work.Measures``.

    Args:
        material: base, experts, vectors, heads, images; each is asked for once, when first needed.
        setting: what the material is, by digest; its ``tangent`` is set, its ``precision`` fp32.
        recipe: how to merge; None where no merge is measured.
        device: where to compute.
        batch_size: images per pass; halved, for good, when the device runs out of memory. ``auto`` takes
            what fits.
        store: where features are looked up and kept; None keeps those of one image set in memory.
        resident_bytes: memory that images may take on the device; None measures what is free.
        needs: the statistics that the method reads: name -> label.
    """

    def __init__(
        self,
        material: Material,
        setting: Setting,
        recipe: MergeRecipe | None = None,
        *,
        device: torch.device | str = "cpu",
        batch_size: BatchChoice = "auto",
        store: Features | None = None,
        resident_bytes: int | None = None,
        needs: Mapping[str, str] | None = None,
    ) -> None:
        if setting.tangent is None:
            raise ValueError("this setting measures networks as they are")
        if setting.precision != "fp32":
            raise ConfigError(
                f"tangent models are evaluated in fp32, not in {setting.precision}: their derivatives "
                "would be off by percents; use precision fp32"
            )
        self._kernel = setting.tangent
        self._setting = setting
        self._resident = Resident(
            material, torch.device(device), resident_bytes, material.vector_count
        )
        self._recipe = recipe
        self._asked, self._needs = batch_size, dict(needs or {})
        self._store = store
        self._starts: dict[_Place, torch.Tensor] = {}
        self._moving: _Moving | None = None
        # Directions are the whole grid's, and no single merge's.
        self.prepared: dict[str, float] = {}

    def evaluate(
        self, requests: Sequence[Request], advance: Callable[[int], None]
    ) -> Iterator[Outcome]:
        """Yield the outcome of every request: image set by image set, then what needs own passes."""
        additive = self._recipe is None or isinstance(self._recipe.merger, Additive)
        sums: list[Request] = []
        own: list[Request] = []
        for request in requests:
            by_algebra = additive or request.weights.kind != "merge"
            (sums if by_algebra else own).append(request)
        for answers in (self._by_algebra(sums), self._by_passes(own)):
            for request, outcome in answers:
                yield outcome
                advance(request.n)

    @property
    def machine(self) -> dict[str, str | int]:
        """What moves the last bits of a feature, beside what it is of."""
        return {
            "batch_size": self._batch_size.size,
            "device": self._resident.device.type,
            "torch": torch.__version__,
        }

    def line(self, subset: Sequence[str], task: str, split: Split) -> LogitLine:
        """Return the logits of the merge of a subset as functions of lambda.

        Ask for the subsets of one image set after the other: features of one set are held at a time.

        Raises:
            ConfigError: if the method does not move on a line.
        """
        recipe, walk = self._merging
        if isinstance(recipe.merger, Additive):
            return self._projected((task, split), subset).line(
                recipe.merger.weights(subset, recipe.options)
            )
        if not isinstance(recipe.merger, Line):
            raise ConfigError(
                f"merge method {recipe.name!r} does not move on a line as lambda grows; "
                "its continuous curve is not known, evaluate it at a list of lambdas"
            )
        return self._line_along(walk(subset), (task, split))

    def _by_algebra(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Outcome]]:
        """Answer what sums of kept features answer: the base, experts, merges of additive methods."""
        for place, asked in _grouped(requests, lambda r: (r.task, r.split)).items():
            yield from ((r, self._base(r)) for r in asked if r.weights.kind == "base")
            moving = [r for r in asked if r.weights.kind != "base"]
            needed = {task for request in moving for task in request.weights.subset}
            lines = _grouped(moving, lambda r: (r.weights.kind, _direction_of(r)))
            for kind, direction in sorted(lines, key=lambda line: (len(line[1][0]), line)):
                subset, named = direction
                projected = self._projected(place, needed)
                weights = (
                    dict.fromkeys(subset, 1.0) if kind == "expert" else self._sum(subset, named)
                )
                yield from _answered(projected.line(weights), lines[kind, direction])

    def _by_passes(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Outcome]]:
        """Answer merges that are no sums: each direction has passes of its own."""
        merges = _grouped(requests, _direction_of)
        for subset, named in sorted(merges):
            recipe, walk = self._merging
            prepared, same = walk(subset, dict(named)), merges[subset, named]
            if isinstance(recipe.merger, Line):
                for place, asked in _grouped(same, lambda r: (r.task, r.split)).items():
                    yield from _answered(self._line_along(prepared, place), asked)
                continue
            for scale, at in _grouped(same, lambda r: r.weights.coefficients.lambda_value).items():
                merged = recipe.apply(self._exact_base, prepared, scale)
                step = {
                    name: (tensor - self._exact_base[name]).float()
                    for name, tensor in merged.items()
                    if tensor.is_floating_point()
                }
                for place, asked in _grouped(at, lambda r: (r.task, r.split)).items():
                    # The whole way to the merge: one step along it, whatever lambda was.
                    yield from _answered(self._line_along(step, place), asked, [1.0])

    def _base(self, request: Request) -> Outcome:
        """Measure the base as ``engine.Engine`` does: it is its own tangent model."""
        network = ImageEncoder(self._encoder.origin, self._encoder.card)
        return measure(
            request, network, self._resident, self._batch_size, precision=self._setting.precision
        )

    def _sum(self, subset: Sequence[str], named: _Named) -> dict[str, float]:
        recipe, _ = self._merging
        assert isinstance(recipe.merger, Additive)
        return recipe.merger.weights(subset, recipe.options, dict(named))

    @cached_property
    def _merging(self) -> tuple[MergeRecipe, Walk]:
        if self._recipe is None:
            raise ValueError("this engine has no merge method")
        return self._recipe, self._resident.walk(self._recipe, self._needs)

    def _projected(self, place: _Place, tasks: Iterable[str]) -> Projected:
        """Return an image set with its features along some tasks' vectors, or more."""
        if self._moving is None or self._moving.place != place:
            # Features of one image set are held at a time.
            self._moving = _Moving(place)
        held = self._moving
        missing = sorted(set(tasks) - held.along.keys())
        for task in missing:
            held.along[task] = self._features(place, task)
        if held.projected is None or missing:
            held.projected = self._project(place, held.along)
        return held.projected

    def _line_along(self, direction: State, place: _Place) -> LogitLine:
        features = self._batch_size.fit(lambda size: self._pass_along(place, direction, size))
        along = {"direction": features}
        return self._project(place, along).line({"direction": 1.0})

    def _project(self, place: _Place, along: Mapping[str, torch.Tensor]) -> Projected:
        if place not in self._starts:
            self._starts[place] = self._features(place, None)
        task, split = place
        labels = self._resident.labels(task, split)
        return Projected.of(self._resident.head(task), self._starts[place], along, labels)

    def _features(self, place: _Place, expert: str | None) -> torch.Tensor:
        """Return f_0, or J tau of an expert, from the store or from a pass over the images."""
        # Looked up anew for each size that is tried: the size is in the key.
        return self._batch_size.fit(lambda size: self._features_at(place, expert, size))

    def _features_at(self, place: _Place, expert: str | None, batch_size: int) -> torch.Tensor:
        key = self._key(place, expert, batch_size)
        found = self._store.find(key) if self._store is not None else None
        if found is not None:
            return found.to(self._resident.device)
        if expert is None:
            task, split = place
            features = features_at_origin(
                self._encoder,
                self._resident.pixels(task, split),
                batch_size=batch_size,
                precision=self._setting.precision,
            )
        else:
            features = self._pass_along(place, self._direction(expert), batch_size)
        if self._store is not None:
            self._store.add(key, features)
        return features

    def _pass_along(self, place: _Place, direction: State, batch_size: int) -> torch.Tensor:
        task, split = place
        return features_along(
            self._encoder,
            self._resident.pixels(task, split),
            direction,
            batch_size=batch_size,
            precision=self._setting.precision,
        )

    def _key(self, place: _Place, expert: str | None, batch_size: int) -> str:
        task, split = place
        direction = None
        if expert is not None:
            moved = self._setting.task(expert)
            direction = str(moved.expert or moved.vector)
        return keys.features_key(
            images=self._setting.task(task).parts[split].images,
            tower=self._setting.tower,
            precision=self._setting.precision,
            kernel=self._kernel,
            base=self._setting.base,
            direction=direction,
            machine={**self.machine, "batch_size": batch_size},
        )

    def _direction(self, task: str) -> State:
        if self._setting.task(task).vector is not None:
            return self._resident.vector(task)
        # Where no vector was made yet, it is made here, by the code that makes them.
        return subtract(self._resident.base, self._resident.expert(task), task)

    @cached_property
    def _batch_size(self) -> BatchSize:
        device, encoder = self._resident.device, self._encoder

        def probe(count: int) -> torch.Tensor:
            # Along a direction, which takes more than a pass at theta_0.
            images, precision = blank(encoder.card, count, device), self._setting.precision
            return features_along(encoder, images, {}, batch_size=count, precision=precision)

        return fitted(self._asked, device, probe)

    @cached_property
    def _encoder(self) -> LinearizedEncoder:
        encoder = LinearizedEncoder.from_card(self._resident.card, self._resident.base)
        return encoder.to(self._resident.device).requires_grad_(False)

    @cached_property
    def _exact_base(self) -> State:
        """The base in float64: what merges are made from there is not rounded to the base's dtype."""
        return {
            name: tensor.double() if tensor.is_floating_point() else tensor
            for name, tensor in self._resident.base.items()
        }


def _answered(
    line: LogitLine, requests: Sequence[Request], scales: Sequence[float] | None = None
) -> Iterator[tuple[Request, Outcome]]:
    """Pair requests on one line with their outcomes; ``scales`` where they are not the requests'."""
    at = [r.weights.coefficients.lambda_value for r in requests] if scales is None else scales
    for request, scores in zip(requests, line.scores(at), strict=True):
        outcome = scores.outcome(request.key)
        yield request, outcome


def _direction_of(request: Request) -> tuple[tuple[str, ...], _Named]:
    """Return what tells directions apart: the tasks, and their own coefficients where a point names them."""
    return request.weights.subset, tuple(request.weights.coefficients.named.items())


def _grouped(items: Iterable[Request], key: Callable[[Request], Key]) -> dict[Key, list[Request]]:
    groups: dict[Key, list[Request]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups
