"""Checks that artefacts belong together, one sentence per mismatch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from taskgrid.errors import LineageError

_WORDS = {
    "activation": "activation function",
    "architecture": "architecture",
    "base": "base weights",
    "head": "head",
    "layout": "key layout",
    "pretrained": "pre-trained weights",
    "split": "split",
    "text": "text tower",
}

IDENTITY = ("layout", "activation", "base")
"""The entries that experts and task vectors of one model must share."""


def check_lineage(
    what: str,
    found: Mapping[str, Any],
    expected: Mapping[str, Any],
    keys: Sequence[str],
    remedy: str,
) -> None:
    """Refuse an artefact whose lineage differs from what it is used with.

    Args:
        what: the artefact, as a person would call it (``the head of task 'mnist'``).
        found: the artefact's own lineage.
        expected: the lineage it must agree with.
        keys: the entries to compare.
        remedy: what to do about a mismatch.

    Raises:
        LineageError: at the first entry that is missing or differs; names both values.
    """
    for key in keys:
        if key not in found:
            raise LineageError(
                f"{what} says nothing about its {_WORDS.get(key, key)} "
                f"(expected {expected[key]}); {remedy}"
            )
        if found[key] != expected[key]:
            raise LineageError(
                f"{what} comes from another {_WORDS.get(key, key)}: "
                f"{found[key]}, but {expected[key]} is in use here; {remedy}"
            )
