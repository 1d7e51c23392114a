"""Transports: linear maps of task vectors from one base to another, and their algebra.

Most aligners give a map along each axis of each tensor: a permutation of channels, or a matrix. With A
and B for the two axes of a matrix D, the target gets A D B^T. A transport that is none of this brings a
map of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import torch

from taskgrid.errors import LineageError
from taskgrid.store.weights import State
from taskgrid.vectors import add_scaled

AxisMap: TypeAlias = torch.Tensor | None
"""What happens along an axis: None, nothing; int64 ``(m,)``, entry i is the old one at index[i]; floating
``(m, n)``, the matrix that is multiplied from the left."""


@dataclass(frozen=True, eq=False)
class Blocks:
    """What happens to a tensor whose rows are several matrices, one under another.

    Queries, keys and values are one tensor: along its columns, each may have a map of its own.

    Attributes:
        maps: for each block of rows a map for each axis; the blocks are of one size.
    """

    maps: tuple[tuple[AxisMap, ...], ...]


TensorMap: TypeAlias = tuple[AxisMap, ...] | Blocks
"""A map for each axis of a tensor; fewer, and the last axes stay as they are."""


class Map(Protocol):
    """A linear map of states in float64."""

    @property
    def keys(self) -> frozenset[str]:
        """The tensors that are carried; of all others nothing arrives."""
        ...

    def __call__(self, vector: State) -> State:
        """Return the tensors that are carried."""
        ...

    def inverse(self) -> Map:
        """Return the map back.

        Raises:
            LineageError: if there is none.
        """
        ...


@dataclass(frozen=True, eq=False)
class Axes:
    """A map along each axis of each tensor.

    Attributes:
        axes: key -> what happens to the tensor. A key that is not named is not carried.
    """

    axes: Mapping[str, TensorMap]

    @property
    def keys(self) -> frozenset[str]:
        """The tensors that are named."""
        return frozenset(self.axes)

    def __call__(self, vector: State) -> State:
        """Return the tensors that are carried."""
        return {key: _along(vector[key], maps) for key, maps in self.axes.items()}

    def inverse(self) -> Axes:
        """Return the map back: permutations and matrices are inverted one by one."""
        return Axes({key: _back(key, maps) for key, maps in self.axes.items()})


@dataclass(frozen=True, eq=False)
class Instead:
    """What arrives whatever is sent: the one map that is not linear, of aligners that learn anew.

    Attributes:
        vector: a vector of the target.
    """

    vector: State

    @property
    def keys(self) -> frozenset[str]:
        """Nothing is carried."""
        return frozenset()

    def __call__(self, vector: State) -> State:
        """Return what arrives."""
        return {key: tensor.double() for key, tensor in self.vector.items()}

    def inverse(self) -> Map:
        """Refuse: what was sent is gone."""
        raise LineageError("the transport has no inverse: nothing of a vector is carried")


@dataclass(frozen=True)
class End:
    """What a transport knows of one of its ends.

    Attributes:
        base: digest of theta_0.
        shapes: shape of each floating tensor.
    """

    base: str
    shapes: Mapping[str, tuple[int, ...]]

    @classmethod
    def of(cls, base: Mapping[str, torch.Tensor], digest: str) -> End:
        """Return what is known of a base."""
        floating = {key: tensor for key, tensor in base.items() if tensor.is_floating_point()}
        return cls(digest, {key: tuple(tensor.shape) for key, tensor in floating.items()})


@dataclass(frozen=True, eq=False)
class Transport:
    """A linear map from the task vectors of one base to those of another.

    Attributes:
        source: where vectors come from.
        target: where they go.
        map: how.
    """

    source: End
    target: End
    map: Map

    def __call__(self, vector: Mapping[str, torch.Tensor]) -> State:
        """Return a vector of the target in float32: computed in float64, rounded once.

        Raises:
            LineageError: if the vector is not one of the source, or what comes out is none of the target.
        """
        return {key: tensor.float() for key, tensor in self.exact(vector).items()}

    def exact(self, vector: Mapping[str, torch.Tensor]) -> State:
        """Return a vector of the target in float64; what nothing is carried to is zero."""
        return self._moved("task vector", vector)

    def _moved(self, what: str, state: Mapping[str, torch.Tensor]) -> State:
        _check(f"the {what}", state, self.source)
        wide = {key: tensor.detach().double() for key, tensor in state.items()}
        moved = self.map(wide)
        for key, shape in self.target.shapes.items():
            if key not in moved:
                moved[key] = torch.zeros(shape, dtype=torch.float64)
        _check(f"the transported {what}", moved, self.target)
        return {key: moved[key] for key in self.target.shapes}

    def expert(self, base: Mapping[str, torch.Tensor], vector: Mapping[str, torch.Tensor]) -> State:
        """Return theta_0 + T(tau): computed in float64, rounded once to the base's dtypes.

        Args:
            base: theta_0 of the target.
            vector: tau of the source.
        """
        moved = self.exact(vector)
        return {key: add_scaled(tensor, moved.get(key), 1.0) for key, tensor in base.items()}

    def model(self, base: Mapping[str, torch.Tensor], expert: Mapping[str, torch.Tensor]) -> State:
        """Return T(theta_t), a whole model of the source in the target's channels: rounded once.

        Args:
            base: theta_0 of the target; what nothing is carried to stays as it is there.
            expert: theta_t of the source.

        Raises:
            LineageError: if the expert is not one of the source, what comes out is none of the target, or
                this transport carries nothing.
        """
        if not self.map.keys:
            raise LineageError(
                "this transport carries nothing of a model; bring over the vector (`carry: vector`)"
            )
        floating = {key: tensor for key, tensor in expert.items() if tensor.is_floating_point()}
        moved = self._moved("expert", floating)
        return {
            key: moved[key].to(tensor.dtype) if key in self.map.keys else tensor.clone()
            for key, tensor in base.items()
        }

    def then(self, other: Transport) -> Transport:
        """Return this transport followed by another.

        Raises:
            LineageError: if the other one does not start where this one ends.
        """
        if self.target != other.source:
            raise LineageError(
                f"a transport to base {self.target.base} cannot be followed by one from base "
                f"{other.source.base}; chain them where they meet"
            )
        return Transport(self.source, other.target, Chain(self, other))

    def inverse(self) -> Transport:
        """Return the transport back.

        Raises:
            LineageError: if there is none.
        """
        for key in sorted(self.source.shapes.keys() | self.target.shapes.keys()):
            if key not in self.map.keys:
                raise LineageError(f"the transport has no inverse: {key!r} is not carried")
        return Transport(self.target, self.source, self.map.inverse())


@dataclass(frozen=True, eq=False)
class Chain:
    """One transport after another, as a map."""

    first: Transport
    second: Transport

    @property
    def keys(self) -> frozenset[str]:
        """The tensors that both carry."""
        return self.first.map.keys & self.second.map.keys

    def __call__(self, vector: State) -> State:
        """Return what the second one makes of what the first one does."""
        return self.second.exact(self.first.exact(vector))

    def inverse(self) -> Chain:
        """Return the inverses in the other order."""
        return Chain(self.second.inverse(), self.first.inverse())


def _along(tensor: torch.Tensor, maps: TensorMap) -> torch.Tensor:
    if isinstance(maps, Blocks):
        blocks = tensor.chunk(len(maps.maps))
        return torch.cat([_along(each, own) for each, own in zip(blocks, maps.maps, strict=True)])
    for axis, one in enumerate(maps):
        if one is None:
            continue
        if one.is_floating_point():
            # Laid out as a file has it, so that a map gives the same bits before and after it is kept.
            matrix = one.to(tensor).contiguous()
            tensor = torch.tensordot(matrix, tensor, dims=([1], [axis])).movedim(0, axis)
        else:
            tensor = tensor.index_select(axis, one.to(tensor.device))
    return tensor


def _back(key: str, maps: TensorMap) -> TensorMap:
    if isinstance(maps, Blocks):
        return Blocks(tuple(tuple(_inverted(key, one) for one in own) for own in maps.maps))
    return tuple(_inverted(key, one) for one in maps)


def _inverted(key: str, one: AxisMap) -> AxisMap:
    if one is None:
        return None
    if one.is_floating_point():
        wide = one.double()
        if wide.shape[0] == wide.shape[1] and int(torch.linalg.matrix_rank(wide)) == len(wide):
            inverse: torch.Tensor = torch.linalg.inv(wide)
            return inverse
    elif torch.equal(one.sort().values, torch.arange(len(one), device=one.device)):
        return one.argsort()
    raise LineageError(f"the transport has no inverse: what it does to {key!r} cannot be undone")


def _check(what: str, vector: Mapping[str, torch.Tensor], end: End) -> None:
    for key in sorted(vector.keys() | end.shapes.keys()):
        if key not in vector:
            raise LineageError(f"{what} lacks {key!r}, which base {end.base} has")
        if key not in end.shapes:
            raise LineageError(f"{what} holds {key!r}, which base {end.base} does not have")
        if tuple(vector[key].shape) != end.shapes[key]:
            raise LineageError(
                f"{what} has shape {tuple(vector[key].shape)} for {key!r}, but base {end.base} has "
                f"{end.shapes[key]}"
            )
        if not torch.isfinite(vector[key]).all():
            raise LineageError(f"{what} is not finite in {key!r}")
