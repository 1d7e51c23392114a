"""The contrastive training loop of the built-in model.

CLIP's symmetric loss, with one change: several captions of a batch may be true of an image (the
corpus knows which), and all of them are positives. With few subjects and short captions the usual
one-positive loss would push true pairs apart. Everything random comes from generators seeded by the
settings; nothing reads or sets global state.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from taskgrid.data.builtin.task import generator
from taskgrid.pretraining.corpus import Corpus, caption, truth, vocabulary
from taskgrid.sentences import unknown

Tokenize = Callable[[list[str]], Tensor]


@dataclass(frozen=True)
class PretrainingSettings:
    """All numbers of a pre-training run.

    ``seed`` drives initialisation, corpus, order, captions and augmentation.
    """

    seed: int = 0
    images: int = 200_000
    margin: int = 2
    """Corpus images are this many pixels larger than the model's input; training cuts random windows."""
    steps: int = 6000
    batch: int = 192
    lr: float = 1e-3
    warmup: int = 300
    weight_decay: float = 0.05
    clip: float = 1.0
    jitter: float = 0.15
    """Largest random change of brightness and contrast (fractions)."""


@dataclass(frozen=True)
class StepReport:
    """A line of progress: step, mean loss since the last line, images per second, seconds left."""

    step: int
    steps: int
    loss: float
    rate: float
    eta: float

    def __str__(self) -> str:
        return (
            f"step {self.step}/{self.steps} loss {self.loss:.4f} "
            f"{self.rate:.0f} images/s, {self.eta / 60:.1f} min left"
        )


def contrastive_loss(images: Tensor, texts: Tensor, scale: Tensor, true: Tensor) -> Tensor:
    """Symmetric contrastive loss with any number of positives.

    ``images`` and ``texts`` are L2-normalised, B x D; ``true[i, j]`` says that caption j is true of
    image i. Each row and each column has a true entry (the pair itself). The target of a row is
    uniform over its positives.
    """
    logits = scale * images @ texts.T
    weight = true.to(logits.dtype)
    rows = -(weight * logits.log_softmax(1)).sum(1) / weight.sum(1)
    columns = -(weight * logits.log_softmax(0)).sum(0) / weight.sum(0)
    return (rows.mean() + columns.mean()) / 2


def learning_rate(step: int, settings: PretrainingSettings) -> float:
    """Linear warm-up, then cosine to zero; ``step`` counts from 0."""
    if step < settings.warmup:
        return settings.lr * (step + 1) / settings.warmup
    done = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    return settings.lr * 0.5 * (1 + math.cos(math.pi * done))


def augment(
    pixels: Tensor,
    side: int,
    rng: np.random.Generator,
    jitter: float,
    mean: Sequence[float],
    std: Sequence[float],
) -> Tensor:
    """uint8 B x H x W x 3 to normalised float B x 3 x side x side: a random window, brightness, contrast."""
    count, room = len(pixels), pixels.shape[1] - side
    corners = rng.integers(0, room + 1, (count, 2))
    windows = torch.stack(
        [p[y : y + side, x : x + side] for p, (y, x) in zip(pixels, corners, strict=True)]
    )
    batch = windows.permute(0, 3, 1, 2).float().div_(255)
    contrast, brightness = (
        torch.from_numpy(rng.uniform(-jitter, jitter, (count, 1, 1, 1)).astype(np.float32))
        for _ in range(2)
    )
    batch = (batch - 0.5) * (1 + contrast) + 0.5 + brightness
    return (batch - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """As CLIP does: no decay for gains, biases, embeddings and the temperature."""
    decayed: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        plain = parameter.ndim < 2 or "embedding" in name or "logit_scale" in name
        (others if plain else decayed).append(parameter)
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]


@contextmanager
def compact_vocabulary(
    model: nn.Module, used: Tensor
) -> Iterator[Callable[[Callable[[], None]], None]]:
    """Train only the embeddings of the tokens ``used`` (sorted ids).

    The others keep their initial values: most of the standard vocabulary never occurs in the
    corpus, and updating it took a third of a step. Ids keep their order, so the end-of-text token
    stays the largest, which is how open_clip finds it. Yields a function that calls another with
    the model whole, for checkpoints on the way.
    """
    table: nn.Embedding = model.token_embedding  # type: ignore[assignment]
    small = nn.Embedding(len(used), table.embedding_dim)
    small.weight.data.copy_(table.weight.data[used])
    model.token_embedding = small

    def whole(action: Callable[[], None]) -> None:
        table.weight.data[used] = small.weight.data
        model.token_embedding = table
        action()
        model.token_embedding = small

    try:
        yield whole
    finally:
        table.weight.data[used] = small.weight.data
        model.token_embedding = table


def train(
    model: nn.Module,
    tokenize: Tokenize,
    corpus: Corpus,
    settings: PretrainingSettings,
    *,
    side: int,
    mean: Sequence[float],
    std: Sequence[float],
    on_progress: Callable[[StepReport], None] | None = None,
    every: int = 100,
    on_checkpoint: Callable[[int], None] | None = None,
    checkpoint_every: int = 0,
) -> float:
    """Train ``model`` (an open_clip CLIP) in place; returns the last mean loss."""
    used = torch.unique(tokenize(list(vocabulary())))
    with compact_vocabulary(model, used) as whole:

        def checkpoint(step: int) -> None:
            if on_checkpoint is not None:
                save = on_checkpoint
                whole(lambda: save(step))

        return _train(
            model, lambda texts: torch.searchsorted(used, tokenize(texts)), corpus, settings, side, mean, std,
            on_progress, every, checkpoint if on_checkpoint else None, checkpoint_every,
        )  # fmt: skip


def _train(
    model: nn.Module,
    tokenize: Tokenize,
    corpus: Corpus,
    settings: PretrainingSettings,
    side: int,
    mean: Sequence[float],
    std: Sequence[float],
    on_progress: Callable[[StepReport], None] | None,
    every: int,
    on_checkpoint: Callable[[int], None] | None,
    checkpoint_every: int,
) -> float:
    optimizer = torch.optim.AdamW(
        parameter_groups(model, settings.weight_decay), lr=settings.lr, betas=(0.9, 0.98), eps=1e-6
    )
    rng = generator("taskgrid-pretraining", settings.seed)
    images = torch.from_numpy(corpus.pixels)
    tokens: dict[str, Tensor] = {}
    order = np.empty(0, np.int64)
    model.train()
    total, mean_loss, started, seen = 0.0, float("nan"), time.perf_counter(), 0
    for step in range(settings.steps):
        if len(order) < settings.batch:
            order = rng.permutation(len(corpus))
        picked, order = order[: settings.batch], order[settings.batch :]
        facts = [corpus.facts(int(i)) for i in picked]
        claims = [caption(f, rng) for f in facts]
        texts = []
        for claim in claims:
            if claim.text not in tokens:
                tokens[claim.text] = tokenize([claim.text])[0]
            texts.append(tokens[claim.text])
        batch = augment(images[torch.from_numpy(picked)], side, rng, settings.jitter, mean, std)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, settings)
        image_features = functional.normalize(model.encode_image(batch), dim=-1)  # type: ignore[operator]
        text_features = functional.normalize(model.encode_text(torch.stack(texts)), dim=-1)  # type: ignore[operator]
        scale: Tensor = model.logit_scale  # type: ignore[assignment]
        true = torch.from_numpy(truth(facts, claims))
        loss = contrastive_loss(image_features, text_features, scale.exp(), true)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
        optimizer.step()
        with torch.no_grad():
            scale.clamp_(0, math.log(100))
        total, seen = total + loss.item(), seen + 1
        if (step + 1) % every == 0 or step + 1 == settings.steps:
            spent = time.perf_counter() - started
            mean_loss, total, seen = total / seen, 0.0, 0
            if on_progress is not None:
                rate = (step + 1) * settings.batch / spent
                left = (settings.steps - step - 1) * settings.batch / rate
                on_progress(StepReport(step + 1, settings.steps, mean_loss, rate, left))
        if on_checkpoint is not None and checkpoint_every and (step + 1) % checkpoint_every == 0:
            on_checkpoint(step + 1)
    model.eval()
    return mean_loss


def settings_from(values: Mapping[str, Any]) -> PretrainingSettings:
    """Return settings from a JSON object; unknown keys are refused."""
    known = asdict(PretrainingSettings())
    for key in values:
        if key not in known:
            raise ValueError(unknown("pre-training setting", key, known))
    return PretrainingSettings(**values)
