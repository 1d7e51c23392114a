"""What rows depend on, as scripts ask for it: a rule's settings and the files that it lists."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from taskgrid.evaluation.opening.references import read_setting
from taskgrid.evaluation.plan.setting import Setting
from taskgrid.models.card import ModelCard
from taskgrid.store.atomic import read_json
from taskgrid.workflow.listing import Listing


def setting_of(settings: Mapping[str, Any], listing: Listing) -> Setting:
    """Read what rows depend on, and check that it belongs together.

    Args:
        settings: ``model``, ``mode`` and ``seed``; ``precision``, if it may be other than ``fp32``; and
            ``evaluation``, if models may be measured as tangent models.
        listing: the files of a run.

    Raises:
        ArtifactError: if a manifest is missing or damaged.
        LineageError: if files come from other bases, heads, splits or data than those in use.
    """
    return read_setting(
        model=settings["model"],
        mode=settings["mode"],
        seed=settings["seed"],
        precision=settings.get("precision", "fp32"),
        card=ModelCard.from_json(read_json(listing.run["card"])),
        tasks=listing.manifests(),
        statistics=listing.base_statistics(),
        evaluation=settings.get("evaluation", "plain"),
    )
