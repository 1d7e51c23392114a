"""Gram matrices of the inputs of linear maps: G = sum over images and tokens of x x^T.

Jin et al., "Dataless Knowledge Fusion by Merging Weights of Language Models" (ICLR 2023), section 3.
The sum is kept, and the number of images beside it.

Every map x -> W x of an open_clip vision transformer has one, under the name of its weight:
``conv1.weight`` (linear over patches), ``in_proj_weight`` of each attention (one for queries, keys and
values, which share their input), ``out_proj.weight``, ``c_fc.weight``, ``c_proj.weight`` and ``proj``; of
other towers, every ``nn.Linear`` and every convolution whose patches do not overlap. The scale of a layer
norm multiplies its normalised input entry by entry: of its matrix only the diagonal is kept, ``(d,)``, which
LOT Merging reads (Sun et al., arXiv 2505.23859, equation 12). Without one are biases, embeddings,
overlapping convolutions, and attention between different inputs (poolers).
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional

from taskgrid.plugins.cards import StatisticCard
from taskgrid.plugins.options import Option
from taskgrid.statistics.seam import StatisticContext
from taskgrid.store.weights import State

CARD = StatisticCard(
    title="Gram matrices: sums over images and tokens of the inputs of linear maps",
    paper="Jin et al., Dataless Knowledge Fusion by Merging Weights of Language Models, ICLR 2023, section 3",
    head=False,
    options={
        "images": Option(
            default=256,
            kind="integer",
            least=0,
            about="images of each task that it is computed on; 0 takes all",
            origin="FusionBench",
        ),
        "split": Option(
            default="train",
            choices=("train", "val", "test"),
            about="the split they come from; `test` makes what is merged with it transductive",
        ),
    },
)

Hear = Callable[[str, torch.Tensor], None]
"""Is told the name of a weight, and rows ``(..., d)`` of its input."""


Forward = Callable[[torch.Tensor, Mapping[str, torch.Tensor]], torch.Tensor]
"""Passes images through a tower, some of whose tensors are replaced by those that are named."""


class Gram:
    """Sums outer products of inputs in float64, as a forward pass comes by."""

    def compute(self, context: StatisticContext) -> State:
        """Return ``(d, d)`` float32 matrices, of scales ``(d,)`` diagonals, by the names of the weights."""
        tower = context.encoder.tower

        def forward(images: torch.Tensor, own: Mapping[str, torch.Tensor]) -> torch.Tensor:
            return cast(torch.Tensor, functional_call(tower, dict(own), (images,)))

        inputs = (batch.inputs for batch in context.batches())
        return context.sums(collect(tower, inputs, forward))


def collect(
    tower: nn.Module,
    batches: Iterable[torch.Tensor],
    forward: Forward,
    wanted: Container[str] | None = None,
) -> State:
    """Return sums of outer products in float64, by the names of the weights.

    Args:
        tower: the image tower whose modules are listened to.
        batches: inputs ``(B, 3, S, S)``.
        forward: passes them through it.
        wanted: weights whose inputs are summed; None takes all.
    """
    totals: State = {}

    def add(name: str, rows: torch.Tensor, times: Callable[[torch.Tensor], torch.Tensor]) -> None:
        if wanted is None or name in wanted:
            product = times(rows.reshape(-1, rows.shape[-1]).double())
            totals[name] = totals[name].add_(product) if name in totals else product

    hear = partial(add, times=lambda rows: rows.T @ rows)
    hear_scale = partial(add, times=lambda rows: rows.square().sum(dim=0))
    proj = getattr(tower, "proj", None)
    own: State = {}
    if isinstance(proj, nn.Parameter):
        # A bare parameter calls no module: with the identity in its place, the tower returns its input.
        own["proj"] = torch.eye(len(proj), dtype=proj.dtype, device=proj.device)
    with torch.no_grad(), _listening(tower, hear, hear_scale):
        for images in batches:
            found = forward(images, own)
            if own:
                hear("proj", found)
    return totals


@contextmanager
def _listening(tower: nn.Module, hear: Hear, hear_scale: Hear) -> Iterator[None]:
    """Tell the inputs of all linear maps and of the scales of norms that a tower runs as modules."""
    attentions = {
        name: module
        for name, module in tower.named_modules()
        if isinstance(module, nn.MultiheadAttention) and module.in_proj_weight is not None
    }
    # Attention multiplies with the weight of its `out_proj` and never calls the module.
    silent = {f"{name}.out_proj" for name in attentions}
    handles = [
        module.register_forward_pre_hook(partial(_attention, hear, name), with_kwargs=True)
        for name, module in attentions.items()
    ]
    for name, module in tower.named_modules():
        if isinstance(module, nn.Linear) and name not in silent:
            handles.append(module.register_forward_pre_hook(partial(_linear, hear, name)))
        elif isinstance(module, nn.Conv2d) and _cuts_patches(module):
            handles.append(module.register_forward_pre_hook(partial(_patches, hear, name)))
        elif isinstance(module, nn.LayerNorm) and _scales_entries(module):
            handles.append(module.register_forward_pre_hook(partial(_scale, hear_scale, name)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _linear(hear: Hear, name: str, _: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
    hear(f"{name}.weight", inputs[0])


def _scale(hear: Hear, name: str, module: nn.LayerNorm, inputs: tuple[torch.Tensor, ...]) -> None:
    normed = functional.layer_norm(inputs[0], module.normalized_shape, eps=module.eps)
    hear(f"{name}.weight", normed)


def _patches(hear: Hear, name: str, module: nn.Conv2d, inputs: tuple[torch.Tensor, ...]) -> None:
    # (B, C * k * k, patches), in the order of the weight's own axes.
    columns = functional.unfold(inputs[0], module.kernel_size, stride=module.stride)
    hear(f"{name}.weight", columns.transpose(1, 2))


def _attention(
    hear: Hear,
    name: str,
    module: nn.MultiheadAttention,
    inputs: tuple[torch.Tensor, ...],
    more: dict[str, Any],
) -> None:
    query, key, value = inputs
    if query is not key or key is not value:
        return
    tokens = query if module.batch_first else query.transpose(0, 1)
    hear(f"{name}.in_proj_weight", tokens)
    hear(f"{name}.out_proj.weight", mixed_heads(module, tokens, more.get("attn_mask")))


def mixed_heads(
    attention: nn.MultiheadAttention, tokens: torch.Tensor, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """Return what a self-attention multiplies with the weight of its ``out_proj``.

    Args:
        attention: with a fused ``in_proj_weight``.
        tokens: its input ``(B, L, d)``.
        mask: its ``attn_mask``.

    Returns:
        ``(B, L, d)``.
    """
    batch, length, width = tokens.shape
    joint = functional.linear(tokens, attention.in_proj_weight, attention.in_proj_bias)
    split = joint.view(batch, length, 3, attention.num_heads, width // attention.num_heads)
    query, key, value = split.permute(2, 0, 3, 1, 4)
    mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    return mixed.transpose(1, 2).reshape(batch, length, width)


def _scales_entries(module: nn.LayerNorm) -> bool:
    return module.elementwise_affine and len(module.normalized_shape) == 1


def _cuts_patches(module: nn.Conv2d) -> bool:
    return (
        module.stride == module.kernel_size
        and module.padding == (0, 0)
        and module.dilation == (1, 1)
        and module.groups == 1
    )


STATISTIC = Gram()
