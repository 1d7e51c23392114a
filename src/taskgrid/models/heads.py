"""Zero-shot heads: classifiers made of class names, prompt templates and a text tower."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import nn
from torch.nn import functional

from taskgrid.errors import ArtifactError, ConfigError
from taskgrid.models.card import ModelCard
from taskgrid.models.lineage import check_lineage
from taskgrid.provenance.digests import canonical_json, digest
from taskgrid.store.weights import Lineage, load_state, save_state


class _HasText(Protocol):
    @property
    def model(self) -> nn.Module: ...
    @property
    def tokenizer(self) -> Any: ...
    @property
    def logit_scale(self) -> float: ...
    def card(self) -> ModelCard: ...


@dataclass(frozen=True)
class Head:
    """A frozen linear classifier on normalised features.

    Attributes:
        weight: ``(C, D)`` float32; unit rows times the logit scale.
        classes: the class names in label order.
        lineage: what the head was made from.
    """

    weight: torch.Tensor
    classes: tuple[str, ...]
    lineage: Mapping[str, str]

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        """Return logits ``(B, C)`` of features ``(B, D)``, which need not be normalised."""
        return functional.normalize(features, dim=-1) @ self.weight.T

    def to(self, device: torch.device | str) -> Head:
        """Return the head with its weight on a device."""
        return Head(self.weight.to(device), self.classes, self.lineage)

    def save(self, path: str | Path) -> str:
        """Write the head as safetensors and return its digest.

        Raises:
            ArtifactError: if the file system refuses to write.
        """
        header = {**self.lineage, "classes": canonical_json(list(self.classes))}
        return save_state(path, {"weight": self.weight}, header)

    @classmethod
    def load(cls, path: str | Path) -> Head:
        """Read a head that ``save`` wrote; its own digest is then in the lineage.

        Raises:
            ArtifactError: if the file is missing, damaged, or not a head.
        """
        state, lineage = load_state(path)
        if lineage.get("kind") != "head" or set(state) != {"weight"} or "classes" not in lineage:
            raise ArtifactError(f"{path} is not a head; delete it and run again")
        classes = tuple(json.loads(lineage.pop("classes")))
        return cls(state["weight"], classes, lineage)


def build_head(
    clip: _HasText,
    classes: Sequence[str],
    templates: Sequence[str],
    *,
    lineage: Mapping[str, str] | None = None,
    device: torch.device | str = "cpu",
) -> Head:
    """Build the zero-shot head of a task (Radford et al. 2021, section 3.1.4).

    For each class all templates are encoded and L2-normalised, averaged, L2-normalised again and
    multiplied with the logit scale. Each class is encoded on its own, so a head's rows do not
    depend on which other classes there are.

    Args:
        clip: a loaded CLIP.
        classes: class names in label order; a name may occur twice.
        templates: prompts with ``{}`` where the class name goes.
        lineage: entries to add, e.g. ``task`` and ``model``.
        device: where to encode.

    Raises:
        ConfigError: if there is no class or no template, or a template lacks ``{}``.

    Examples:
        >>> from taskgrid.models import load_clip
        >>> head = build_head(load_clip("taskgrid-vit-4", "s0"), ["zero", "one"], ["the digit {}."])
        >>> head.classes, head.weight.shape[0]
        (('zero', 'one'), 2)
    """
    if not classes:
        raise ConfigError("a head needs at least one class name")
    if not templates:
        raise ConfigError("a head needs at least one prompt template with {} for the class name")
    for template in templates:
        if "{}" not in template:
            raise ConfigError(f"prompt template {template!r} has no {{}} for the class name")
    model = clip.model.to(device)
    with torch.inference_mode():
        rows = [
            _class_embedding(model, clip.tokenizer, name, templates, device) for name in classes
        ]
        weight = torch.stack(rows).mul_(clip.logit_scale)
    made_from: Lineage = {
        "kind": "head",
        **clip.card().lineage(),
        "class_names": digest(list(classes)),
        "templates": digest(list(templates)),
        **(lineage or {}),
    }
    return Head(weight.cpu().clone(), tuple(classes), made_from)


def check_head(head: Head, card: ModelCard) -> None:
    """Refuse a head that was not built by the text tower of ``card``'s model.

    Raises:
        LineageError: if text tower or activation differ; names both values.
    """
    task = head.lineage.get("task")
    check_lineage(
        f"the head of task {task!r}" if task else "the head",
        head.lineage,
        card.lineage(),
        ("text", "activation"),
        f"build it again with {card.architecture} {card.pretrained}",
    )


def _class_embedding(
    model: nn.Module,
    tokenizer: Any,
    name: str,
    templates: Sequence[str],
    device: torch.device | str,
) -> torch.Tensor:
    texts = [template.replace("{}", name) for template in templates]
    tokens = tokenizer(texts).to(device)
    encode = cast(Any, model).encode_text
    each = functional.normalize(encode(tokens), dim=-1)
    return functional.normalize(each.mean(dim=0), dim=0)
