"""Values of configuration keys, and what all sections share."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Hashable, Iterator
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    StrictInt,
    StrictStr,
)
from pydantic_core import CoreSchema

from taskgrid.errors import ConfigError
from taskgrid.lattice.subsets import TASK_NAME
from taskgrid.sentences import shown

Item = TypeVar("Item", bound=Hashable)

_SUFFIXES = ("csv", "html", "json", "log", "parquet", "safetensors")


def _number(value: Any) -> Any:
    if isinstance(value, str):
        hint = ""
        with contextlib.suppress(ValueError):
            hint = (
                f"; write {float(value)!r}"
                if "e" not in value.lower()
                else "; write 1.0e-5, not 1e-5"
            )
        raise ValueError(f"this is text, but must be a number{hint}")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"this must be a number, not {shown(value)}")
    return value


def _no_address(value: str) -> str:
    if "://" in value:
        raise ValueError(
            "this is an address, and nothing is downloaded from one; give the path of a copy here"
        )
    return value


def _no_file(value: str) -> str:
    ending = value.rpartition(".")[2]
    if value.endswith(tuple(f".{suffix}" for suffix in _SUFFIXES)):
        raise ValueError(f"a name that ends in .{ending} would be taken for a file; leave that out")
    return value


MOST = 2**32 - 1
"""The largest whole number: every generator takes it for a seed."""
NAME_PATTERN = f"^{TASK_NAME.pattern}$"

Number = Annotated[float, BeforeValidator(_number)]
Name = Annotated[StrictStr, Field(pattern=NAME_PATTERN, max_length=64), AfterValidator(_no_file)]
Text = Annotated[StrictStr, Field(min_length=1)]
Place = Annotated[Text, AfterValidator(_no_address)]
"""A path, or what stands for one."""
Fraction = Annotated[Number, Field(gt=0, lt=1)]
Positive = Annotated[StrictInt, Field(ge=1, le=MOST)]
Natural = Annotated[StrictInt, Field(ge=0, le=MOST)]


class Section(BaseModel):
    """A part of the configuration: unknown keys are refused, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


SECTION = ConfigDict(extra="forbid")
"""The same for a section that is a data class, because others use it without a configuration."""


class _BareNames:
    """Marks a list of mappings in which a bare name will do, for the JSON schema."""

    def __get_pydantic_json_schema__(
        self, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        schema = dict(handler(core_schema))
        schema["items"] = {"anyOf": [{"type": "string"}, schema["items"]]}
        return schema


def _expand(value: Any) -> Any:
    """Read a bare name in a list as a mapping that has a name and nothing else."""
    if isinstance(value, list):
        return [{"name": item} if isinstance(item, str) else item for item in value]
    return value


Named = Annotated[list[Item], BeforeValidator(_expand), _BareNames()]
"""A list of mappings with a ``name``; a bare name stands for a mapping with nothing else."""


def unique(values: list[Item], where: str = "") -> list[Item]:
    """Return values as they are.

    Args:
        values: the values.
        where: the key below which they stand, where pydantic does not say it.

    Raises:
        ValueError: if one stands twice.
    """
    for value, count in Counter(values).items():
        if count > 1:
            raise ValueError(f"{where}{shown(value)} stands twice; keep one")
    return values


@contextlib.contextmanager
def refused(where: str = "") -> Iterator[None]:
    """Let a ConfigError be a mistake in the section that is read."""
    try:
        yield
    except ConfigError as error:
        raise ValueError(f"{where}{error}") from None
