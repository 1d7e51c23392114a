"""Options of plug-ins: typed, frozen, with one sentence per mistake."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from taskgrid.errors import ConfigError


class Options(BaseModel):
    """Base of a plug-in's options: unknown ones are refused, values never change.

    ``model_dump(mode="json")`` is their canonical form: every option, also those left at defaults.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)


AnyOptions = TypeVar("AnyOptions", bound=Options)


def parse_options(owner: str, model: type[AnyOptions], values: Mapping[str, Any]) -> AnyOptions:
    """Validate the options of a plug-in and fill in the defaults.

    Args:
        owner: what the messages call the plug-in, e.g. ``merge method 'ties'``.
        model: the model of its options.
        values: option -> value.

    Raises:
        ConfigError: if an option is unknown or a value does not fit.
    """
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
    key = ".".join(str(step) for step in problem["loc"])
    if problem["type"] == "extra_forbidden":
        allowed = ", ".join(model.model_fields) or "none"
        raise ConfigError(f"{owner} has no option {key!r}; its options: {allowed}")
    if problem["type"] == "missing":
        raise ConfigError(f"{owner} needs the option {key!r}")
    message = problem["msg"].removeprefix("Value error, ")
    raise ConfigError(f"option {key!r} of {owner} is {problem['input']!r}: {message}")
