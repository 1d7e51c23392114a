"""Section `transport`: experts of another base."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import ConfigDict, Field, StrictStr, field_validator, model_validator

from taskgrid.config.sections.plugin import known_name
from taskgrid.config.sections.values import Name, Natural, Place, Section, refused, unique
from taskgrid.plugins.cards import Sees, aligner_card, plugin_options


class CalibrationSpec(Section):
    """Images that an aligner looks at: of the training split, without labels unless it asks for them."""

    tasks: list[Name] | None = Field(None, min_length=1)
    """Whose images. null: of all tasks with an expert, for one transport that all share; of the task itself
    for one of its own. Tasks that are named keep the transport when others are added."""
    images: Natural = 64
    """Images of each task; 0 takes all. More contain the fewer."""
    draw: Natural = 0
    """Which draw of them, beside the seed: another number, other images."""

    @field_validator("tasks")
    @classmethod
    def _distinct_tasks(cls, value: list[str] | None) -> list[str] | None:
        return None if value is None else unique(value)


class TransportSpec(Section):
    """Experts of another run, fine-tuned from another base, brought to this run's base by an aligner."""

    model_config = ConfigDict(populate_by_name=True)

    name: Name
    """Stands where a mode stands in paths and tables."""
    results: Place = Field(alias="from")
    """Results folder of the other run; `results` itself for another model of this one."""
    model: Name
    """The other run's name of its base model."""
    mode: Name
    """The other run's name of the mode, or of the ready-made experts."""
    seed: Natural = 0
    """The other run's seed; the transported experts keep it."""
    to: Name | None = None
    """The base model here that they are brought to, where there are several; null: each of them."""
    aligner: StrictStr
    """How they are brought there: the registered name of an aligner."""
    options: dict[StrictStr, Any] = Field({})
    """The aligner's options, as its page lists them; the others keep their defaults."""
    calibration: CalibrationSpec | None = None
    """Images for an aligner that looks at any; null: its defaults."""
    carry: Literal["vector", "model"] = "vector"
    """`vector`: the expert here is this base plus the transported task vector. `model`: it is the transported
    expert itself, which methods that merge whole models want; its task vector is what it differs by."""
    output: Literal["same", "heads"] = "same"
    """`heads`: the features of a model that is carried whole are mapped to fit this base's heads as they fit
    its own: by the class vectors of `calibration.tasks`, or of all tasks with an expert, at both bases."""
    evaluation: Literal["plain", "tangent"] = "plain"
    """`tangent` for experts that were trained in the tangent space."""

    @field_validator("aligner")
    @classmethod
    def _known_aligner(cls, value: str) -> str:
        return known_name(value, "aligner")

    @model_validator(mode="after")
    def _known_options(self) -> Self:
        with refused():
            sees = self.sees
        if self.output == "heads" and self.carry == "vector":
            raise ValueError(
                "`output: heads` is for a model that is carried whole; a vector is added to this base, whose "
                "features fit its heads: use `carry: model`, or leave `output` out"
            )
        if self.calibration is not None and sees == "nothing" and self.output == "same":
            raise ValueError(
                f"aligner {self.aligner!r} looks at no images with these options; leave out `calibration`"
            )
        if self.carry == "model" and aligner_card(self.aligner).per == "task":
            raise ValueError(
                f"aligner {self.aligner!r} brings a task's vector over and no whole model; use "
                "`carry: vector`"
            )
        if self.carry == "model" and self.evaluation == "tangent":
            raise ValueError(
                "a model that is carried whole is far from this base, where a tangent model means nothing; "
                "use `evaluation: plain`, or `carry: vector`"
            )
        return self

    @property
    def sees(self) -> Sees:
        """What the aligner looks at with its options."""
        options = plugin_options("aligner", self.aligner, self.options)
        return aligner_card(self.aligner).looks_at(options)
