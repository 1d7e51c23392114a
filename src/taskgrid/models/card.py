"""The model card: what is needed to rebuild an image tower without its text tower."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from taskgrid.errors import ArtifactError
from taskgrid.models.layout import LAYOUT
from taskgrid.models.lineage import IDENTITY, check_lineage

Activation = Literal["gelu", "quick_gelu"]


@dataclass(frozen=True)
class ModelCard:
    """Everything about a base model except its weights.

    Attributes:
        architecture: open_clip architecture name.
        pretrained: tag or file the weights came from.
        activation: ``gelu`` or ``quick_gelu``; part of the function that the weights define.
        tower: open_clip's ``embed_dim``, ``vision_cfg`` and ``quick_gelu``, as in its model config.
        image_size: side of the square input in pixels.
        mean: channel means on the scale [0, 1].
        std: channel standard deviations on the scale [0, 1].
        interpolation: how images are resized, e.g. ``bicubic``.
        logit_scale: factor on cosine similarities (100 for most CLIPs), already exponentiated.
        base: digest of the image tower's state (theta_0).
        text: digest of everything else in the checkpoint.
        layout: how the state's keys are named.
    """

    architecture: str
    pretrained: str
    activation: Activation
    tower: Mapping[str, Any]
    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str
    logit_scale: float
    base: str
    text: str
    layout: str = LAYOUT

    def to_json(self) -> dict[str, Any]:
        """Return the card as JSON values; ``from_json`` gives an equal card back."""
        values = asdict(self)
        return {**values, "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> ModelCard:
        """Read a card from the values that ``to_json`` gave; other keys are ignored.

        Raises:
            ArtifactError: if an entry is missing.
        """
        names = [field.name for field in fields(cls)]
        absent = [name for name in names if name not in values]
        if absent:
            raise ArtifactError(
                f"the model card lacks {', '.join(absent)}; delete its file and run again"
            )
        kept = {name: values[name] for name in names}
        return cls(**{**kept, "mean": tuple(values["mean"]), "std": tuple(values["std"])})

    def lineage(self) -> dict[str, str]:
        """Return the entries that everything made from this base carries in its lineage."""
        return {
            "architecture": self.architecture,
            "pretrained": self.pretrained,
            "layout": self.layout,
            "activation": self.activation,
            "base": self.base,
            "text": self.text,
        }


def check_expert(lineage: Mapping[str, str], card: ModelCard, task: str = "") -> None:
    """Refuse an expert or task vector that was not made from the base of ``card``.

    Args:
        lineage: the lineage in the file's header.
        card: the base model in use.
        task: task name for the message; taken from the lineage where it is empty.

    Raises:
        LineageError: if layout, activation or base differ; names both values.
    """
    name = task or lineage.get("task", "")
    kind = {"taskvector": "task vector"}.get(lineage.get("kind", ""), lineage.get("kind", "expert"))
    check_lineage(
        f"the {kind} of task {name!r}" if name else f"the {kind}",
        lineage,
        card.lineage(),
        IDENTITY,
        "train it again from this base, or merge only what shares one base",
    )
