"""A transported expert as files: what a fine-tuning writes, with the lineage of both bases."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taskgrid import plugins
from taskgrid.alignment.door import transport_of
from taskgrid.alignment.seam import Side
from taskgrid.errors import LineageError
from taskgrid.experts.untrained import UntrainedFiles
from taskgrid.models.card import ModelCard, check_expert
from taskgrid.provenance.code import code_digest
from taskgrid.provenance.digests import canonical_json
from taskgrid.store.atomic import read_json
from taskgrid.store.weights import Lineage, load_state
from taskgrid.vectors import TaskVector


@dataclass(frozen=True)
class SideFiles:
    """A base as files.

    Attributes:
        card: its model card.
        base: theta_0.
    """

    card: Path
    base: Path

    def read(self) -> Side:
        """Read both.

        Raises:
            ArtifactError: if a file is missing or damaged.
        """
        return Side(load_state(self.base)[0], ModelCard.from_json(read_json(self.card)))


def transport_expert(
    source: SideFiles,
    expert: Path,
    target: SideFiles,
    settings: Mapping[str, Any],
    out: UntrainedFiles,
) -> str:
    """Bring an expert of another run's base to a base of this run.

    Args:
        source: the base that the expert was fine-tuned from.
        expert: theta_t.
        target: the base that it is brought to.
        settings: ``model``, ``mode``, ``seed``, ``task`` of the expert here; ``aligner``, ``options``;
            ``source``: what the other run calls the expert's ``model``, ``mode`` and ``seed``.
        out: what is written.

    Returns:
        What is to be said about it, in a sentence.

    Raises:
        ArtifactError: if a file is missing or damaged.
        LineageError: if the expert is another task's or another base's, or the aligner cannot bring it
            over.
    """
    started, task, aligner = time.perf_counter(), settings["task"], settings["aligner"]
    here, there = target.read(), source.read()
    state, lineage = load_state(expert)
    check_expert(lineage, there.the_card(), task)
    if lineage.get("task", task) != task:
        raise LineageError(
            f"{expert} is the expert of task {lineage['task']!r}, not of {task!r}; tasks are found by "
            "their names, which must mean the same in both runs"
        )
    vector = TaskVector.between(there.base, state, lineage)
    found = transport_of(
        aligner, there, here, task, vector.deltas, settings["options"], settings["seed"]
    )
    moved = found.expert(here.base, vector.deltas)
    digest = out.write(moved, _lineage(here, vector.lineage, settings), started)
    size = TaskVector.between(here.base, moved).norm()
    return (
        f"{task}: brought from base {there.the_card().base[:8]} to {here.the_card().base[:8]} by "
        f"{aligner!r}, norm {vector.norm():.4f} -> {size:.4f}, digest {digest}"
    )


def _lineage(here: Side, vector: Lineage, settings: Mapping[str, Any]) -> Lineage:
    aligner, source = settings["aligner"], settings["source"]
    return {
        "kind": "expert",
        **here.the_card().lineage(),
        **{name: str(settings[name]) for name in ("task", "model", "mode", "seed")},
        "aligner": aligner,
        "aligner_options": canonical_json(settings["options"]),
        "aligner_code": code_digest(plugins.module_of("aligner", aligner)),
        "source_base": vector["base"],
        "source_expert": vector["expert"],
        **{f"source_{name}": str(source[name]) for name in ("model", "mode", "seed")},
    }
