"""Sections `data` and `split`."""

from __future__ import annotations

from typing import Literal

from pydantic import StrictStr, field_validator

from taskgrid.config.sections.values import Fraction, Natural, Place, Positive, Section
from taskgrid.config.shipped import prompt_lineages
from taskgrid.sentences import choices


class DataSpec(Section):
    """Where the images of published tasks come from, for all of them at once."""

    layout: Literal["hub", "original"] = "hub"
    """Parquet files of the Hugging Face hub, or the owners' own files."""
    folder: Place | None = None
    """`original`: the folder of the data sets, as docs/datasets.md lays it out (null: `data`). `hub`: the
    Hugging Face cache (null: the usual one)."""
    limit: Positive | None = None
    """`limit` of every task that has none of its own, e.g. to try things out."""
    prompts: StrictStr | None = None
    """A lineage whose class names and templates are taken where they differ from the papers'
    (`fusion_bench`, `tall_masks`)."""

    @field_validator("prompts")
    @classmethod
    def _known_lineage(cls, value: str | None) -> str | None:
        if value is not None and value not in prompt_lineages():
            raise ValueError(choices(value, prompt_lineages()))
        return value


class SplitSpec(Section):
    """How validation is cut from the training images when a source has none of its own."""

    fraction: Fraction = 0.1
    """Share of the training images."""
    limit: Positive = 5000
    """Largest number of validation images."""
    seed: Natural = 0
    """Seed of the permutation."""
