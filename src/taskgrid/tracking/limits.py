"""What MLflow takes: how long names and texts may be, and how much of it in one request."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, TypeVar

_Item = TypeVar("_Item")

MOST_METRICS: Final = 900
MOST_PARAMS: Final = 100
MOST_TAGS: Final = 100
"""Entities per request; MLflow takes 1000 together."""
LONGEST_PARAM: Final = 6000
LONGEST_TAG: Final = 5000
_LONGEST_KEY: Final = 250


def metric_key(key: str) -> str:
    """Replace what MLflow does not allow in a metric's name."""
    return re.sub(r"[^\w\-. :/]", "_", key)[:_LONGEST_KEY]


def shortened(texts: Mapping[str, str], most: int) -> dict[str, str]:
    """Return names and texts cut to what MLflow stores; a text that was cut ends in an ellipsis."""
    return {
        key[:_LONGEST_KEY]: text if len(text) <= most else f"{text[: most - 1]}…"
        for key, text in texts.items()
    }


def first_and_rest(items: list[_Item], size: int) -> tuple[list[_Item], list[list[_Item]]]:
    """Cut what is to be sent into a first request, empty if there is nothing, and further ones."""
    return items[:size], [items[at : at + size] for at in range(size, len(items), size)]
