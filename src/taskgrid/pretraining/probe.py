"""How good the features of a base are: zero-shot and linear-probe accuracy on the built-in tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from open_clip.model import CLIP
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn import functional

from taskgrid.data.builtin import BuiltinTask, builtin_names, builtin_task, samples
from taskgrid.data.preprocess import prepare
from taskgrid.pretraining.model import Architecture, tokenizer


@dataclass(frozen=True)
class PreparedSplit:
    """A split ready for the model: N x 3 x side x side, normalised float32, and N labels."""

    images: Tensor
    labels: Tensor


def prepare_split(task: BuiltinTask, split: str, architecture: Architecture) -> PreparedSplit:
    """Render a split and prepare it as open_clip's validation transform does."""
    drawn = list(samples(task, split))
    interpolation = str(architecture.preprocess["interpolation"])
    pixels = np.stack([prepare(s.pixels, architecture.side, interpolation) for s in drawn])
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div_(255)
    mean, std = (torch.tensor(architecture.preprocess[k]).view(1, 3, 1, 1) for k in ("mean", "std"))
    return PreparedSplit((images - mean) / std, torch.tensor([s.label for s in drawn]))


@torch.inference_mode()
def features(model: CLIP, images: Tensor, batch: int = 256) -> Tensor:
    """L2-normalised image features, N x D."""
    return torch.cat(
        [
            functional.normalize(model.encode_image(part), dim=-1)
            for part in torch.split(images, batch)
        ]
    )


@torch.inference_mode()
def zero_shot_head(model: CLIP, architecture: Architecture, task: BuiltinTask) -> Tensor:
    """Class weights, D x classes: normalised mean of prompt features, times the logit scale."""
    tokenize = tokenizer(architecture)
    columns = []
    for name in task.classes:
        prompts = functional.normalize(
            model.encode_text(tokenize([template.format(name) for template in task.templates])),
            dim=-1,
        )
        columns.append(functional.normalize(prompts.mean(0), dim=-1))
    head: Tensor = torch.stack(columns, dim=1) * model.logit_scale.exp()
    return head


def linear_probe(train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor) -> float:
    """Test accuracy of a logistic regression on frozen features."""
    classifier = LogisticRegression(C=100.0, max_iter=1000)
    classifier.fit(train.numpy(), train_labels.numpy())
    return float(classifier.score(test.numpy(), test_labels.numpy()))


def report(
    model: CLIP, architecture: Architecture, names: Sequence[str] | None = None
) -> dict[str, dict[str, float]]:
    """Zero-shot and linear-probe test accuracy per task (the control task: zero-shot only)."""
    rows: dict[str, dict[str, float]] = {}
    for name in names if names is not None else builtin_names():
        task = builtin_task(name)
        test = prepare_split(task, "test", architecture)
        seen = features(model, test.images)
        guesses = (seen @ zero_shot_head(model, architecture, task)).argmax(1)
        rows[name] = {"zero_shot": float((guesses == test.labels).float().mean())}
        if task.counts.get("train", 0):
            train = prepare_split(task, "train", architecture)
            rows[name]["linear_probe"] = linear_probe(
                features(model, train.images), train.labels, seen, test.labels
            )
    return rows
