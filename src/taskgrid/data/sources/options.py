"""Options of a source and of a reader of original files, validated."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from taskgrid.data.sources.seam import TaskData
from taskgrid.errors import DataError


class SourceOptions(BaseModel):
    """Options of a source: unknown ones are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Options = TypeVar("Options", bound=SourceOptions)


def parse_options(task: TaskData, model: type[Options]) -> Options:
    """Validate a task's options.

    Raises:
        DataError: if an option is unknown or does not fit; the text lists those that exist.
    """
    return check_options(task.options, model, f"the source {task.source!r}")


def check_options(
    options: Mapping[str, Any],
    model: type[Options],
    owner: str,
    beside: Iterable[str] = (),
) -> Options:
    """Validate options.

    Args:
        options: the options.
        model: what they are validated by.
        owner: whose options they are, for the text.
        beside: options of the same owner that were taken out.

    Raises:
        DataError: if an option is unknown or does not fit; the text lists those that exist.
    """
    try:
        return model.model_validate(dict(options))
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
    key = ".".join(str(step) for step in problem["loc"])
    if problem["type"] == "extra_forbidden":
        allowed = (*beside, *model.model_fields)
        raise DataError(
            f"{owner} has no option {key!r}; {did_you_mean(key, allowed)}"
            f"allowed: {', '.join(allowed) or 'none'}"
        )
    raise DataError(f"options.{key} is {problem['input']!r}; {problem['msg'].lower()}")


def did_you_mean(name: str, allowed: Iterable[str]) -> str:
    """Return ``"did you mean 'x'? "`` for the closest allowed name, or nothing."""
    close = difflib.get_close_matches(name, list(allowed), n=1)
    return f"did you mean {close[0]!r}? " if close else ""
