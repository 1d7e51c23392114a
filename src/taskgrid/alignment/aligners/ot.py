"""Optimal transport: channels of the source go to channels of the target, by weights or by activations.

    W' = M W U    with M, U of one plan for each space (``optimal_transport``), in one walk through the tower

Imfeld et al., "Transformer Fusion with Optimal Transport" (ICLR 2024), after Singh and Jaggi, "Model
Fusion via Optimal Transport" (NeurIPS 2020). Fusing, (1 - alpha) W' + alpha W, is a merge of what comes out
here. Ours: M and U told apart, queries tied to their keys, heads kept whole, one plan for the stream.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeAlias

import torch

from taskgrid.alignment.canonical import canonical
from taskgrid.alignment.ground_metric import (
    Branch,
    ByActivations,
    ByWeights,
    Flow,
    GroundMetric,
    SpaceMaps,
    score_factor,
)
from taskgrid.alignment.maps import AxisMap, Transport
from taskgrid.alignment.optimal_transport import as_map, joined, plan, plan_in_heads
from taskgrid.alignment.seam import AlignContext
from taskgrid.alignment.spaces import RES, Axis, Spaces, attention_spaces, mlp_space, spaces_of
from taskgrid.errors import LineageError
from taskgrid.plugins.cards import AlignerCard
from taskgrid.plugins.options import Option, Options

CARD = AlignerCard(
    title="Optimal transport",
    paper="Imfeld et al., Transformer Fusion with Optimal Transport, ICLR 2024, section 4",
    sees_if={"from": {"activations": "images"}},
    options={
        "from": Option(
            default="weights",
            choices=("activations", "weights"),
            about="what channels are compared by: correlations on images, or the weights that write them",
        ),
        "solver": Option(
            default="exact",
            choices=("sinkhorn", "exact"),
            about="soft plans, or plans of least cost: of equal widths permutations",
            origin="ours: soft plans of networks that were trained apart come near the mean of all channels",
        ),
        "reg": Option(
            default=0.08,
            above=0,
            about="weight of the entropy with `solver: sinkhorn`, beside costs between 0 and 1",
            origin="the paper's code, for activations; 0.06 for weights",
        ),
        "qk": Option(
            default="tied",
            choices=("separate", "tied"),
            about="whether queries and keys have a plan each, or one",
            origin="ours: with two plans, channels of queries meet other ones of keys",
        ),
        "heads": Option(
            default="blocked",
            choices=("crossing", "blocked"),
            about="whether channels may go to any head, or heads to heads as wholes",
            origin="ours: channels that cross heads change the function",
        ),
        "residual": Option(
            default="stream",
            choices=(
                "mean",
                "only_resid",
                "no_resid",
                "weighted_scalar",
                "weighted_matrix",
                "identity",
                "stream",
            ),
            about="the plan of the residual stream behind an addition; `stream` has one all through",
            origin="ours: the only one that leaves the function as it is",
        ),
    },
)

Plan: TypeAlias = torch.Tensor | None
"""``(n, m)``, or None for a space that stays as it is."""


class OptimalTransport:
    """Finds the plans in one walk from the first layer to the last."""

    def align(self, context: AlignContext) -> Transport:
        """Return the transport.

        Raises:
            ConfigError: if Sinkhorn does not come to rest.
            LineageError: if the bases differ in more than their widths.
        """
        spaces = _comparable(context)
        flow = Flow.of(spaces[0])
        metric: GroundMetric = ByActivations(context)
        if context.options["from"] == "weights":
            states = canonical(context.source.base), canonical(context.target.base)
            metric = ByWeights(spaces, states, flow)
        return context.transport_by(Walk(*spaces, flow, metric, context.options).axes())


@dataclass(frozen=True, eq=False)
class Walk:
    """The tower from the first layer to the last: each plan may ask for the maps of all before it.

    Attributes:
        source: spaces of the source.
        target: spaces of the target.
        flow: the tensors of both.
        metric: what channels are compared by.
        options: the aligner's options.
    """

    source: Spaces
    target: Spaces
    flow: Flow
    metric: GroundMetric
    options: Options

    def axes(self) -> dict[str, tuple[AxisMap, ...]]:
        """Return the map along each axis of each tensor."""
        stream = self._start()
        found = self._carried(self.flow.starts, _of_stream(stream))
        for branch in self.flow.branches:
            before = _of_stream(stream)
            inside = self._inside(branch, before)
            written, stream = self._added(branch, inside, stream)
            found |= self._carried(branch.reads, {**before, **inside})
            found |= self._carried(branch.writes, {**_of_stream(written), **inside})
        return found | self._carried(self.flow.ends, _of_stream(stream))

    def _start(self) -> Plan:
        if self.options.residual == "identity":
            return None
        return self._plan(self.metric.stream(whole=self.options.residual == "stream"))

    def _inside(self, branch: Branch, before: SpaceMaps) -> SpaceMaps:
        """Return the maps of the spaces inside a branch."""
        if branch.name == "mlp":
            space = mlp_space(branch.block)
            return {space: as_map(self._plan(self.metric.inside(space, branch, before)))}
        queries, keys, values = attention_spaces(branch.block)
        tied = self.options.qk == "tied"
        shared = [[queries, keys], [values]] if tied else [[queries], [keys], [values]]
        squared = [
            torch.stack([self.metric.inside(space, branch, before) for space in spaces]).sum(dim=0)
            for spaces in shared
        ]
        if self.options.heads == "crossing":
            plans = [self._plan(one) for one in squared]
        else:
            heads = self.source.heads, self.target.heads
            plans = plan_in_heads([one.sqrt() for one in squared], heads, self._reg)
        return {
            space: as_map(found, score_factor(self.source, self.target, space))
            for spaces, found in zip(shared, plans, strict=True)
            for space in spaces
        }

    def _added(self, branch: Branch, inside: SpaceMaps, stream: Plan) -> tuple[Plan, Plan]:
        """Return the plans of what a branch writes, and of the stream behind the addition."""
        if stream is None or self.options.residual == "stream":
            return stream, stream
        own = self._plan(self.metric.added(branch, inside))
        return own, joined(self.options.residual, stream, own, self.metric.sizes(branch))

    def _plan(self, squared: torch.Tensor) -> torch.Tensor:
        return plan(squared.sqrt(), self._reg)

    @property
    def _reg(self) -> float | None:
        return self.options.reg if self.options.solver == "sinkhorn" else None

    def _carried(self, keys: tuple[str, ...], maps: SpaceMaps) -> dict[str, tuple[AxisMap, ...]]:
        part = replace(self.source, axes={key: self.source.axes[key] for key in keys})
        return part.axes_by(maps)


def _of_stream(stream: Plan) -> SpaceMaps:
    return {} if stream is None else {RES: as_map(stream)}


def _comparable(context: AlignContext) -> tuple[Spaces, Spaces]:
    """Return the spaces of both bases.

    Raises:
        LineageError: if they differ in more than their widths.
    """
    sides = context.source, context.target
    cards = [side.the_card() for side in sides]
    if cards[0].activation != cards[1].activation:
        raise LineageError(
            f"the source computes with {cards[0].activation}, the target with {cards[1].activation}; no "
            "plan between channels makes the one of the other, take bases of one activation"
        )
    source, target = (
        spaces_of(card, side.end.shapes) for side, card in zip(sides, cards, strict=True)
    )
    for key in sorted(source.axes.keys() | target.axes.keys()):
        ends = [
            (side.end.shapes.get(key), spaces.axes.get(key))
            for side, spaces in zip(sides, (source, target), strict=True)
        ]
        if _fixed(*ends[0]) != _fixed(*ends[1]):
            words = ["is not there" if one is None else f"has shape {one}" for one, _ in ends]
            raise LineageError(
                f"{key!r} {words[0]} in the source and {words[1]} in the target; only widths may differ, not "
                "blocks, patches, tokens or features"
            )
    if context.options.residual == "identity" and source.sizes[RES] != target.sizes[RES]:
        raise LineageError(
            f"the residual stream has {source.sizes[RES]} channels in the source and {target.sizes[RES]} in "
            "the target; `residual: identity` needs one width"
        )
    return source, target


def _fixed(shape: tuple[int, ...] | None, axes: tuple[Axis | None, ...] | None) -> list[int] | None:
    """Return the sizes of the axes that live in no space; None for a tensor that is not there."""
    if shape is None or axes is None:
        return None
    mapped = {at for at, axis in enumerate(axes) if axis is not None}
    return [size for at, size in enumerate(shape) if at not in mapped]


ALIGNER = OptimalTransport()
