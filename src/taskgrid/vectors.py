"""Task vectors: tau_t = theta_t - theta_0, as a vector space with names.

Ilharco et al., "Editing Models with Task Arithmetic" (ICLR 2023), section 2.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch

from taskgrid.errors import ArtifactError, LineageError
from taskgrid.models.layout import layer_of, layers
from taskgrid.models.lineage import IDENTITY
from taskgrid.store.weights import Lineage, State, digest_state, load_state, save_state

_OWN_ENTRIES = ("digest", "expert")
"""Lineage entries that name one artefact's bytes; a computed vector has none of its own yet."""


def subtract(
    base: Mapping[str, torch.Tensor], expert: Mapping[str, torch.Tensor], name: str
) -> State:
    """Return ``expert - base`` in float32 over the floating tensors.

    Args:
        base: theta_0.
        expert: theta_t, with the same keys, shapes and dtypes.
        name: what the messages call the expert.

    Raises:
        LineageError: if keys, shapes or dtypes differ, a tensor that is not floating differs in
            value, or the difference is not finite; names the key and both values. Or if the expert's
            matrices point elsewhere than the base's: it comes from another base.
    """
    _check_alike(base, expert, "the base", f"expert {name!r}")
    _check_kin(base, expert, name)
    deltas: State = {}
    for key in sorted(base):
        before, after = base[key].detach(), expert[key].detach()
        if not before.is_floating_point():
            if not torch.equal(before, after):
                raise LineageError(
                    f"expert {name!r} changes {key!r} ({before.dtype}), which is not a weight: "
                    f"{_brief(before)} in the base, {_brief(after)} in the expert"
                )
            continue
        delta = (after.double() - before.double()).float()
        if not torch.isfinite(delta).all():
            raise LineageError(
                f"expert {name!r} minus the base is not finite in {key!r}; its training diverged"
            )
        deltas[key] = delta
    return deltas


_FEW_WEIGHTS = 1000
"""Of fewer weights in matrices nothing is concluded: by chance they point anywhere."""

_LEAST_COSINE = 0.3
"""Fine-tuning leaves the cosine between the matrices of base and expert above 0.9; two trainings from
different initialisations meet near 0."""


def _check_kin(
    base: Mapping[str, torch.Tensor], expert: Mapping[str, torch.Tensor], name: str
) -> None:
    """Refuse an expert that was fine-tuned from another base: nothing else tells it by weights alone."""
    products, weights = torch.zeros(3, dtype=torch.float64), 0
    for key, tensor in base.items():
        if tensor.is_floating_point() and tensor.ndim > 1:
            before, after = tensor.detach().double().cpu(), expert[key].detach().double().cpu()
            products += torch.stack(
                [(before * after).sum(), before.square().sum(), after.square().sum()]
            )
            weights += tensor.numel()
    cosine = float(products[0] / (products[1] * products[2]).sqrt())
    if weights >= _FEW_WEIGHTS and cosine < _LEAST_COSINE:
        raise LineageError(
            f"expert {name!r} does not come from this base: the cosine between their matrices is "
            f"{cosine:.2f}; use the base it was fine-tuned from, or bring it over by an aligner"
        )


@dataclass(frozen=True)
class LayerNorm:
    """One line of the norm table: how far a layer moved.

    Attributes:
        layer: name of the layer, ``total`` for the whole vector.
        size: number of weights.
        norm: L2 norm of the task vector in this layer.
        base_norm: L2 norm of the base in this layer.
        relative: ``norm / base_norm``; zero where both are zero.
    """

    layer: str
    size: int
    norm: float
    base_norm: float
    relative: float


@dataclass(frozen=True, eq=False)
class TaskVector:
    """A named direction in weight space, in float32.

    Vectors of one base form a vector space: ``a + b``, ``a - b``, ``-a``, ``0.5 * a``, ``a / 2``
    and ``sum([a, b])``. Operations refuse vectors of different bases, layouts or activations.

    Attributes:
        deltas: float32 tensors by name.
        lineage: what the vector was made from; ``base`` is the digest of theta_0.

    Examples:
        >>> base = {"weight": torch.tensor([1.0, 1.0])}
        >>> cars = TaskVector.between(base, {"weight": torch.tensor([4.0, 1.0])})
        >>> dogs = TaskVector.between(base, {"weight": torch.tensor([1.0, 5.0])})
        >>> (cars + dogs).norm(), cars.cosine(dogs)
        (5.0, 0.0)
        >>> (cars - 0.5 * dogs).apply_to(base, scale=0.5)["weight"]
        tensor([2.5000, 0.0000])
    """

    deltas: State
    lineage: Lineage = field(default_factory=dict)

    @classmethod
    def between(
        cls,
        base: Mapping[str, torch.Tensor],
        expert: Mapping[str, torch.Tensor],
        lineage: Mapping[str, str] | None = None,
    ) -> TaskVector:
        """Return theta_t - theta_0.

        Args:
            base: theta_0.
            expert: theta_t, with the same keys, shapes and dtypes.
            lineage: the expert's lineage; its ``digest`` becomes the vector's ``expert``, and its
                ``base`` must be the digest of ``base``.

        Raises:
            LineageError: if the two do not belong together; names the key and both values.
        """
        made_from = dict(lineage or {})
        content = digest_state(base)
        name = made_from.get("task", "")
        if made_from.setdefault("base", content) != content:
            raise LineageError(
                f"expert {name!r} was trained from base {made_from['base']}, "
                f"but the base given has digest {content}; use its own base"
            )
        if "digest" in made_from:
            made_from["expert"] = made_from.pop("digest")
        return cls(subtract(base, expert, name), {**made_from, "kind": "taskvector"})

    @classmethod
    def sum(cls, vectors: Iterable[TaskVector]) -> TaskVector:
        """Return the sum of at least one vector, added in float64 and rounded once.

        The order of the vectors does not matter, not even in the last bit: they are added in the
        order of their contents.

        Raises:
            LineageError: if there is no vector, or they do not belong together.
        """
        given = list(vectors)
        if not given:
            raise LineageError("the sum of no task vectors has no shape; give at least one")
        lineage = dict(given[0].lineage)
        for other in given[1:]:
            given[0]._check_partner(other)
            lineage = _common(lineage, other.lineage)
        if len(given) == 1:
            return cls(given[0].deltas, lineage)
        ordered = sorted(given, key=lambda vector: digest_state(vector.deltas))
        deltas = {
            key: sum(
                (vector.deltas[key].double() for vector in ordered[1:]),
                start=ordered[0].deltas[key].double(),
            ).float()
            for key in ordered[0].deltas
        }
        return cls(deltas, _derived(lineage))

    def __add__(self, other: TaskVector) -> TaskVector:
        if not isinstance(other, TaskVector):
            return NotImplemented
        self._check_partner(other)
        deltas = {key: delta + other.deltas[key] for key, delta in self.deltas.items()}
        return TaskVector(deltas, _derived(_common(self.lineage, other.lineage)))

    def __radd__(self, other: Literal[0]) -> TaskVector:
        # The built-in sum() begins with the integer 0; nothing else can stand for a vector.
        if isinstance(other, int) and other == 0:
            return self
        return NotImplemented

    def __sub__(self, other: TaskVector) -> TaskVector:
        if not isinstance(other, TaskVector):
            return NotImplemented
        return self + -other

    def __neg__(self) -> TaskVector:
        return TaskVector({k: -delta for k, delta in self.deltas.items()}, _derived(self.lineage))

    def __mul__(self, factor: float) -> TaskVector:
        if not isinstance(factor, int | float):
            return NotImplemented
        # In float64, so that 0.1 means 0.1 and not its float32 neighbour.
        deltas = {key: (delta.double() * factor).float() for key, delta in self.deltas.items()}
        return TaskVector(deltas, _derived(self.lineage))

    __rmul__ = __mul__

    def __truediv__(self, divisor: float) -> TaskVector:
        if not isinstance(divisor, int | float):
            return NotImplemented
        deltas = {key: (delta.double() / divisor).float() for key, delta in self.deltas.items()}
        return TaskVector(deltas, _derived(self.lineage))

    def dot(self, other: TaskVector) -> float:
        """Return the inner product, accumulated in float64.

        Raises:
            LineageError: if the vectors do not belong together.
        """
        self._check_partner(other)
        return math.fsum(_dot(delta, other.deltas[key]) for key, delta in self.deltas.items())

    def norm(self) -> float:
        """Return the L2 norm, accumulated in float64."""
        return math.sqrt(self.dot(self))

    def cosine(self, other: TaskVector) -> float:
        """Return the cosine of the angle between two vectors; NaN if one of them is zero.

        Raises:
            LineageError: if the vectors do not belong together.
        """
        scale = self.norm() * other.norm()
        return max(-1.0, min(1.0, self.dot(other) / scale)) if scale > 0 else math.nan

    def apply_to(self, base: Mapping[str, torch.Tensor], scale: float = 1.0) -> State:
        """Return ``base + scale * self``: computed in float64, rounded once to the base's dtypes.

        Args:
            base: theta_0; its tensors that are not floating are copied.
            scale: lambda; 0 gives the base bit for bit.

        Raises:
            LineageError: if keys or shapes differ, or the vector's lineage names another base.
        """
        if "base" in self.lineage and self.lineage["base"] != digest_state(base):
            raise LineageError(
                f"this task vector belongs to base {self.lineage['base']}, "
                f"but the base given has digest {digest_state(base)}; use its own base"
            )
        floating = {key: tensor for key, tensor in base.items() if tensor.is_floating_point()}
        _check_alike(floating, self.deltas, "the base", "the task vector", dtypes=False)
        return {
            key: add_scaled(tensor, self.deltas.get(key), scale) for key, tensor in base.items()
        }

    def norm_table(self, base: Mapping[str, torch.Tensor]) -> tuple[LayerNorm, ...]:
        """Return how far each layer moved, from pixels to features, and ``total`` at the end.

        Raises:
            LineageError: if a tensor of the vector is not in ``base``.
        """
        for key in self.deltas:
            if key not in base:
                raise LineageError(f"the task vector holds {key!r}, which the base does not have")
        squares: dict[str, list[float]] = {}
        for key, delta in self.deltas.items():
            line = squares.setdefault(layer_of(key), [0.0, 0.0, 0.0])
            line[0] += delta.numel()
            line[1] += _dot(delta, delta)
            line[2] += _dot(base[key], base[key])
        rows = [_layer_norm(layer, squares[layer]) for layer in layers(self.deltas)]
        return (
            *rows,
            _layer_norm("total", [math.fsum(x) for x in zip(*squares.values(), strict=True)]),
        )

    def digest(self) -> str:
        """Return the digest of the deltas."""
        return digest_state(self.deltas)

    def save(self, path: str | Path) -> str:
        """Write the vector as safetensors with its lineage in the header; return its digest.

        Raises:
            ArtifactError: if the file system refuses to write.
        """
        return save_state(path, self.deltas, {**self.lineage, "kind": "taskvector"})

    @classmethod
    def load(cls, path: str | Path) -> TaskVector:
        """Read a vector that ``save`` wrote; its own ``digest`` is then in the lineage.

        Raises:
            ArtifactError: if the file is missing, damaged, or not a task vector.
        """
        deltas, lineage = load_state(path)
        if lineage.get("kind") != "taskvector":
            raise ArtifactError(
                f"{path} holds {lineage.get('kind', 'something')!r}, not a task vector"
            )
        return cls(deltas, lineage)

    def _check_partner(self, other: TaskVector) -> None:
        for entry in IDENTITY:
            mine, theirs = self.lineage.get(entry), other.lineage.get(entry)
            if mine is not None and theirs is not None and mine != theirs:
                raise LineageError(
                    f"these task vectors do not share their {entry}: {mine} "
                    f"({self.lineage.get('task', 'left')}) and {theirs} "
                    f"({other.lineage.get('task', 'right')}); combine vectors of one base only"
                )
        _check_alike(self.deltas, other.deltas, "the left vector", "the right vector")


def add_scaled(
    base: torch.Tensor, delta: torch.Tensor | None, scale: float, out: torch.Tensor | None = None
) -> torch.Tensor:
    """Return ``base + scale * delta``, computed in float64 and rounded once to the base's dtype.

    Args:
        base: a tensor of theta_0.
        delta: a tensor of its shape, or None to copy the base.
        scale: lambda; 0 copies the base bit for bit (adding +0 would turn -0 into +0).
        out: written in place when given; may have another floating dtype than the base.
    """
    if delta is None or scale == 0:
        return base.clone() if out is None else out.copy_(base)
    # A copy always: of a float64 base, double() would be the base itself.
    result = base.to(torch.float64, copy=True).add_(delta.double(), alpha=scale)
    return result.to(base.dtype) if out is None else out.copy_(result)


def _layer_norm(layer: str, line: list[float]) -> LayerNorm:
    norm, base_norm = math.sqrt(line[1]), math.sqrt(line[2])
    relative = norm / base_norm if base_norm > 0 else (math.inf if norm > 0 else 0.0)
    return LayerNorm(layer, int(line[0]), norm, base_norm, relative)


def _dot(left: torch.Tensor, right: torch.Tensor) -> float:
    return float(torch.dot(left.detach().reshape(-1).double(), right.detach().reshape(-1).double()))


def _common(left: Mapping[str, str], right: Mapping[str, str]) -> Lineage:
    return {key: value for key, value in left.items() if right.get(key) == value}


def _derived(lineage: Mapping[str, str]) -> Lineage:
    return {key: value for key, value in lineage.items() if key not in _OWN_ENTRIES}


def _check_alike(
    left: Mapping[str, torch.Tensor],
    right: Mapping[str, torch.Tensor],
    left_name: str,
    right_name: str,
    *,
    dtypes: bool = True,
) -> None:
    for key in sorted(left.keys() | right.keys()):
        if key not in right:
            raise LineageError(f"{right_name} lacks {key!r}, which {left_name} has")
        if key not in left:
            raise LineageError(f"{right_name} has {key!r}, which {left_name} lacks")
        if left[key].shape != right[key].shape:
            raise LineageError(
                f"{key!r} has shape {tuple(left[key].shape)} in {left_name}, "
                f"but {tuple(right[key].shape)} in {right_name}"
            )
        if dtypes and left[key].dtype != right[key].dtype:
            raise LineageError(
                f"{key!r} is {left[key].dtype} in {left_name}, but {right[key].dtype} in {right_name}"
            )


def _brief(tensor: torch.Tensor) -> str:
    values = tensor.reshape(-1)[:4].tolist()
    return f"{values}{' ...' if tensor.numel() > 4 else ''}"
