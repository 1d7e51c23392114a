"""Options of a source and of a reader of original files, validated."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from taskgrid.data.sources.seam import TaskData
from taskgrid.errors import DataError
from taskgrid.sentences import pydantic_sentence


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
    beside: Collection[str] = (),
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
        sentence = pydantic_sentence(error, model, within="options", beside=beside)
    raise DataError(f"{owner}: {sentence}")
