"""Which merge a record is of: the same for every version of it."""

from __future__ import annotations

import json

from taskgrid.provenance.digests import digest


def merge_id(model: str, mode: str, seed: int | str, method: str, options: str, subset: str) -> str:
    """Return the ``point_id`` of a merge.

    Args:
        model: the base model's name.
        mode: fine-tuning mode.
        seed: fine-tuning seed.
        method: the method's name.
        options: its options as JSON.
        subset: name of the merged tasks.
    """
    version = f"@{digest(json.loads(options))[:8]}" if options not in ("", "{}") else ""
    return f"subset/{model}/{mode}/{seed}/{method}{version}/{subset}"
