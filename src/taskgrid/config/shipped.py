"""Which data sets and numbers of the literature the project holds, by the names of their files."""

from __future__ import annotations

from functools import cache

import yaml

from taskgrid.plugins.resources import resource_names, resource_path


@cache
def published_names() -> tuple[str, ...]:
    """Return the names of the described data sets, sorted."""
    return resource_names("tasks", ".yaml")


@cache
def published_lineages() -> tuple[str, ...]:
    """Return the names of the lineages of published numbers, sorted."""
    return resource_names("published", ".csv")


@cache
def published_prompts(dataset: str) -> tuple[str, ...]:
    """Return the lineages whose prompts for a data set differ from the papers'."""
    text = resource_path(f"tasks/{dataset}.yaml").read_text(encoding="utf-8")
    # Of a thousand class names above it, nothing is asked here.
    _, key, below = text.partition("\nvariants:\n")
    return tuple(yaml.safe_load(key + below)["variants"]) if key else ()


@cache
def prompt_lineages() -> tuple[str, ...]:
    """Return the lineages whose prompts for some data set differ from the papers', sorted."""
    return tuple(sorted({name for each in published_names() for name in published_prompts(each)}))
