"""Section `transport`: experts of another base."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import ConfigDict, Field, StrictStr, field_validator, model_validator

from taskgrid.config.sections.plugin import known_name
from taskgrid.config.sections.values import Name, Natural, Place, Section, refused
from taskgrid.plugins.cards import plugin_options


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
    evaluation: Literal["plain", "tangent"] = "plain"
    """`tangent` for experts that were trained in the tangent space."""

    @field_validator("aligner")
    @classmethod
    def _known_aligner(cls, value: str) -> str:
        return known_name(value, "aligner")

    @model_validator(mode="after")
    def _known_options(self) -> Self:
        with refused():
            plugin_options("aligner", self.aligner, self.options)
        return self
