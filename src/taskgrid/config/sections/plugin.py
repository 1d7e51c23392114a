"""Plug-ins in the configuration: a registered name, a label, options as the card declares them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar, Self

from pydantic import Field, StrictStr, field_validator, model_validator

from taskgrid import plugins
from taskgrid.config.sections.values import Name, Section, refused
from taskgrid.plugins.cards import plugin_options
from taskgrid.plugins.registry import NOUNS
from taskgrid.sentences import unknown


class PluginSpec(Section):
    """A plug-in with its options."""

    kind: ClassVar[plugins.Kind]

    name: StrictStr
    """The registered name."""
    label: Name | None = None
    """Name in paths and tables; needed when the same one stands twice with other options."""
    options: dict[StrictStr, Any] = Field({})
    """Its options, as its page lists them; the others keep their defaults."""

    @field_validator("name")
    @classmethod
    def _known_name(cls, value: str) -> str:
        return known_name(value, cls.kind)

    @model_validator(mode="after")
    def _known_options(self) -> Self:
        with refused():
            plugin_options(self.kind, self.name, self.options)
        return self

    @property
    def path_name(self) -> str:
        """The label, or the name where there is none."""
        return self.label or self.name


class NeedySpec(PluginSpec):
    """A plug-in that may need statistics."""

    statistics: dict[StrictStr, StrictStr] = Field({})
    """Which one of `statistics` it takes, where the same one stands there twice: name -> label."""


def known_name(value: str, kind: plugins.Kind) -> str:
    """Return a registered name as it is.

    Raises:
        ValueError: if it is not registered.
    """
    if value not in plugins.names(kind):
        raise ValueError(unknown(NOUNS[kind], value, plugins.names(kind)))
    return value


def distinct(specs: Sequence[PluginSpec]) -> None:
    """Check that every label stands once.

    Raises:
        ValueError: if one stands twice.
    """
    counts = Counter(spec.path_name for spec in specs)
    for spec in specs:
        if counts[spec.path_name] > 1:
            raise ValueError(
                f"{NOUNS[spec.kind]} {spec.path_name!r} stands twice; give each a `label` of its own"
            )
