"""A transported expert as files: what a fine-tuning writes, with the lineage of both bases."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from taskgrid.alignment.kept import read_transport
from taskgrid.alignment.sides import SideFiles, read_vector
from taskgrid.experts.untrained import UntrainedFiles
from taskgrid.experts.vector import vector_of
from taskgrid.store.weights import Lineage, load_state

_WAY = ("aligner", "aligner_options", "aligner_code")


def transport_expert(
    source: SideFiles,
    expert: Path,
    target: SideFiles,
    alignment: Path,
    settings: Mapping[str, Any],
    out: UntrainedFiles,
) -> str:
    """Bring an expert of another run's base to a base of this run, by a transport that was found before.

    Args:
        source: the base that the expert was fine-tuned from.
        expert: theta_t.
        target: the base that it is brought to.
        alignment: the transport.
        settings: ``model``, ``mode``, ``seed``, ``task`` of the expert here; ``carry``; ``source``: what
            the other run calls the expert's ``model``, ``mode`` and ``seed``.
        out: what is written.

    Returns:
        What is to be said about it, in a sentence.

    Raises:
        ArtifactError: if a file is missing or damaged.
        LineageError: if the expert is another task's or another base's, or the transport one between
            others.
    """
    started, task, carry = time.perf_counter(), settings["task"], settings["carry"]
    here, there = target.read(), source.read()
    vector = read_vector(there, expert, task)
    found, way = read_transport(alignment, there.end, here.end)
    moved = (
        found.model(here.base, load_state(expert)[0])
        if carry == "model"
        else found.expert(here.base, vector.deltas)
    )
    lineage: Lineage = {
        "kind": "expert",
        **here.the_card().lineage(),
        **{name: str(settings[name]) for name in ("task", "model", "mode", "seed")},
        **{name: way[name] for name in _WAY},
        "alignment": way["digest"],
        "carry": carry,
        "source_base": vector.lineage["base"],
        "source_expert": vector.lineage["expert"],
        **{f"source_{name}": str(settings["source"][name]) for name in ("model", "mode", "seed")},
    }
    digest = out.write(moved, lineage, started)
    size = vector_of(here.base, moved, lineage).norm()
    return (
        f"{task}: {carry} brought from base {there.end.base[:8]} to {here.end.base[:8]} by "
        f"{way['aligner']!r}, norm {vector.norm():.4f} -> {size:.4f}, digest {digest}"
    )
