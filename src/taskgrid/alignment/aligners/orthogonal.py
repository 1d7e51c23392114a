"""Orthogonal maps of the attention projections, learned from few labelled images of the target's task.

    theta = theta_0' + U^T D U

for each query, key, value and output projection of every block: D is the task vector of that matrix, and
U a square matrix of its own. Only the U train, from few images under the task's head:

    loss = cross-entropy + beta * mean ||U^T U - I||_F

The last term is there where U is free (``soft``); by default U is orthogonal by parametrisation, and D keeps
its norm, its singular values and its rank. It is a similarity: eigenvalues stay, too, so that it cannot
express what a general transport A D B^T can. Biases, and the rest of the vector, are added as they are.

Kawamoto, Endo and Kera, "Cross-Model Transfer of Task Vectors via Few-Shot Orthogonal Alignment" (2025,
arXiv 2505.12021).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import cast

import torch
from torch import nn
from torch.func import functional_call
from torch.nn.utils import parametrizations

from taskgrid.alignment.aligners import none
from taskgrid.alignment.few import learn
from taskgrid.alignment.maps import Blocks, TensorMap, Transport
from taskgrid.alignment.seam import AlignContext
from taskgrid.errors import LineageError
from taskgrid.finetuning.modes.seam import Trainee
from taskgrid.models.encoder import ImageEncoder
from taskgrid.models.layout import projection_of
from taskgrid.plugins.cards import AlignerCard
from taskgrid.plugins.options import Option, Options
from taskgrid.provenance.digests import derive_seed
from taskgrid.store.weights import State
from taskgrid.vectors import add_scaled

CARD = AlignerCard(
    title="Orthogonal maps from few images",
    paper="Kawamoto et al., Cross-Model Transfer of Task Vectors via Few-Shot Orthogonal Alignment, "
    "arXiv 2505.12021",
    per="task",
    sees="labels",
    options={
        "orthogonality": Option(
            default="hard",
            choices=("hard", "soft"),
            about="`hard`: U is orthogonal by parametrisation; `soft`: it is free, and `beta` pulls it there",
            origin="the authors' code is `soft`",
        ),
        "beta": Option(
            default=1.0,
            least=0,
            about="with `orthogonality: soft`, weight of the mean of ||U^T U - I||",
            origin="the authors' code",
        ),
        "start": Option(
            default="identity",
            choices=("identity", "random"),
            about="U at the start; with `identity` the training begins at direct transfer",
            origin="the authors' code",
        ),
        "others": Option(
            default="direct",
            choices=("direct", "zero"),
            about="what becomes of all other tensors of the vector: `direct` adds them as they are",
            origin="the authors' code",
        ),
        "steps": Option(
            default=300,
            kind="integer",
            least=1,
            most=1_000_000,
            about="steps of AdamW, however many images there are",
        ),
        "batch_size": Option(
            default=64, kind="integer", least=1, about="images in a step, where there are so many"
        ),
        "lr": Option(
            default=1e-3,
            above=0,
            about="its peak learning rate",
            origin="the authors' code takes 1e-5",
        ),
        "weight_decay": Option(
            default=0.0,
            least=0,
            about="pulls a free U to zero, and an orthogonal one to its start",
            origin="the authors' code takes 0.1",
        ),
        "augment": Option(
            default=0.9,
            above=0,
            most=1,
            about="smallest area of a random crop, as a share of the image; 1 crops nothing",
            origin="the recipe's `crop_scale`",
        ),
    },
)  # fmt: skip


class Orthogonal:
    """Learns a map per attention projection; all else is direct transfer."""

    def align(self, context: AlignContext) -> Transport:
        """Return the transport; refuses bases that differ in shape or activation."""
        as_it_is = Options({"activation": "same", "tensors": "all"})
        direct = none.ALIGNER.align(replace(context, options=as_it_is))
        keys = attention_matrices(context.target.end.shapes)
        if not keys:
            raise LineageError(
                "the target has no attention projections, which are all that aligner 'orthogonal' maps; "
                "use another aligner"
            )
        axes: dict[str, TensorMap] = dict.fromkeys(keys, ())
        if context.options.others == "direct":
            axes |= dict.fromkeys(direct.map.keys, ())
        # A vector that leaves attention alone is turned by nothing.
        if any(context.vector[key].any() for key in keys):
            axes |= self._learned(context, context.transport_by(axes), keys)
        return context.transport_by(axes)

    def _learned(
        self, context: AlignContext, direct: Transport, keys: Sequence[str]
    ) -> dict[str, TensorMap]:
        base, moved = context.target.base, direct.exact(context.vector)
        rest = {
            key: add_scaled(tensor, None if key in keys else moved.get(key), 1.0)
            for key, tensor in base.items()
        }
        encoder = ImageEncoder.from_card(context.target.the_card(), rest)
        seed = derive_seed("orthogonal", context.seed, context.task)
        trainee = Turned(encoder, {key: context.vector[key] for key in keys}, context.options, seed)
        learn(context, trainee)
        return trainee.maps()


class Turned(Trainee):
    """A tower with U^T D U added to each of its attention projections; the U train.

    Args:
        encoder: the target, with all of the vector but D; frozen.
        vector: D, by the keys of the projections.
        options: ``orthogonality``, ``beta`` and ``start``.
        seed: of a random start.
    """

    sent: torch.Tensor
    held: torch.Tensor
    turns: torch.Tensor

    def __init__(
        self,
        encoder: ImageEncoder,
        vector: Mapping[str, torch.Tensor],
        options: Options,
        seed: int = 0,
    ) -> None:
        super().__init__(encoder)
        own = encoder.live_state()
        self._shapes = {key: tuple(tensor.shape) for key, tensor in vector.items()}
        self._beta = options.beta if options.orthogonality == "soft" else None
        self.register_buffer("sent", _squares(vector.values()))
        self.register_buffer("held", _squares(own[key].clone() for key in vector))
        self.turns = nn.Parameter(_start(self.sent, options.start, seed))
        if options.orthogonality == "hard":
            # The Cayley transform: exact, and far cheaper to differentiate than an exponential.
            parametrizations.orthogonal(self, "turns", orthogonal_map="cayley")

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the features of the target with the mapped vector."""
        with torch.autocast(images.device.type, enabled=False):
            changed = {f"tower.{key}": tensor for key, tensor in self._changed().items()}
        return cast(torch.Tensor, functional_call(self.encoder, changed, (images,)))

    def penalty(self, step: int) -> torch.Tensor | None:
        """Return beta times the mean distance of a free U from the orthogonal ones."""
        if self._beta is None:
            return None
        away = self.turns.mT @ self.turns - torch.eye(self.turns.shape[-1]).to(self.turns)
        return cast(torch.Tensor, self._beta * torch.linalg.vector_norm(away, dim=(1, 2)).mean())

    def visual_state(self) -> State:
        """Return the target with the mapped vector."""
        with torch.no_grad():
            return self.encoder.state() | self._changed()

    def maps(self) -> dict[str, TensorMap]:
        """Return D -> U^T D U for each projection: found in float64, kept in float32, on the CPU."""
        with torch.no_grad():
            # As it is read from a file: a product's last bits depend on how a matrix lies.
            rows = self.double().turns.mT.float().cpu().contiguous()
        return {
            key: Blocks(tuple((each, each) for each in part))
            for key, part in self._parts(rows).items()
        }

    def _changed(self) -> State:
        turns = self.turns
        changed = self.held + turns.mT @ self.sent @ turns
        return {key: part.reshape(self._shapes[key]) for key, part in self._parts(changed).items()}

    def _parts(self, stack: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return what is each projection's of a stack of square matrices."""
        counts = [_count(shape) for shape in self._shapes.values()]
        return dict(zip(self._shapes, torch.split(stack, counts), strict=True))


def attention_matrices(shapes: Mapping[str, tuple[int, ...]]) -> tuple[str, ...]:
    """Return the keys of the attention projections: square matrices, or three one under another."""
    return tuple(
        key
        for key, shape in shapes.items()
        if projection_of(key) in ("qkv", "attention_out")
        and key.endswith("weight")
        and _count(shape) in (1, 3)
    )


def _count(shape: tuple[int, ...]) -> int:
    return shape[0] // shape[1]


def _squares(tensors: Iterable[torch.Tensor]) -> torch.Tensor:
    """Return projections as one stack of square matrices ``(M, d, d)``."""
    return torch.cat([tensor.reshape(-1, tensor.shape[1], tensor.shape[1]) for tensor in tensors])


def _start(like: torch.Tensor, start: str, seed: int) -> torch.Tensor:
    if start == "identity":
        return torch.eye(like.shape[-1]).to(like).expand_as(like).clone()
    drawn = torch.randn(like.shape, generator=torch.Generator().manual_seed(seed))
    # With the signs of R in Q, and only then, Q is uniform among the orthogonal matrices.
    q, r = torch.linalg.qr(drawn)
    return cast(torch.Tensor, q * r.diagonal(dim1=1, dim2=2).sign()[:, None, :]).to(like)


ALIGNER = Orthogonal()
