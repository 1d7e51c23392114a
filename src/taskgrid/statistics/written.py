"""A statistic as files: from images, head and weights on disk to its tensors and what is known of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taskgrid import plugins
from taskgrid.data.manifest import SplitManifest, check_images
from taskgrid.machine.meter import OpenTally
from taskgrid.models.batches import BatchChoice
from taskgrid.models.card import ModelCard, check_expert
from taskgrid.models.heads import Head
from taskgrid.models.lineage import check_lineage
from taskgrid.plugins.cards import plugin_options, statistic_card
from taskgrid.provenance.code import code_digest
from taskgrid.provenance.digests import canonical_json, derive_seed
from taskgrid.statistics.computing import add_up, compute_statistic
from taskgrid.statistics.manifest import StatisticManifest
from taskgrid.statistics.seam import IMAGES, Examples
from taskgrid.store.atomic import read_json
from taskgrid.store.images import ImageStore, PixelRows
from taskgrid.store.weights import load_state, save_state

_REMEDY = "run the base rule again"


@dataclass(frozen=True)
class ShownFiles:
    """What a statistic sees of a task.

    Attributes:
        split: the split manifest.
        images: the decoded images.
        head: the task's head; None where the statistic sees none.
    """

    split: Path
    images: Path
    head: Path | None = None


@dataclass(frozen=True)
class StatisticFiles:
    """What a statistic is made from.

    Attributes:
        card: the base model's card.
        weights: the expert, for a statistic per task; the base, for one per base.
        tasks: task -> what is seen of it: of a statistic per task, that task alone.
    """

    card: Path
    weights: Path
    tasks: Mapping[str, ShownFiles]


def write_statistic(
    files: StatisticFiles,
    state: Path,
    manifest: Path,
    *,
    name: str,
    options: Mapping[str, Any],
    seed: int = 0,
    device: Any = "cpu",
    batch_size: BatchChoice = "auto",
    progress: OpenTally | None = None,
) -> StatisticManifest:
    """Compute a statistic and write its tensors, then its manifest.

    Args:
        files: what is read.
        state: where the tensors go.
        manifest: where the manifest goes.
        name: the statistic.
        options: its options.
        seed: the seed of the experts, 0 for a statistic of the base; with the task it gives that of the
            draws.
        device: where to compute.
        batch_size: images per pass.
        progress: makes a counter of images.

    Raises:
        ArtifactError: if a file is missing, damaged, or cannot be written.
        LineageError: if weights, head, split and images do not belong together.
        ConfigError: as ``compute_statistic``, and so are DataError and DeviceError.
    """
    card = ModelCard.from_json(read_json(files.card))
    checked = plugin_options("statistic", name, options)
    weights, origin = load_state(files.weights)
    per_task = statistic_card(name).per == "task"
    lineage = {
        "kind": "statistic",
        **card.lineage(),
        "seed": str(seed),
        "code": code_digest(plugins.module_of("statistic", name)),
    }
    if per_task:
        (task,) = files.tasks
        check_expert(origin, card, task)
        lineage |= {"task": task, "expert": origin["digest"]}
    else:
        check_lineage("the base", {"base": origin["digest"]}, card.lineage(), ("base",), _REMEDY)
    states = []
    for task, shown in sorted(files.tasks.items()):
        split = SplitManifest.read(shown.split)
        head = Head.load(shown.head) if shown.head and statistic_card(name).head else None
        of = "" if per_task else f"{task}."
        lineage[f"{of}split"] = split.digest
        if head is not None:
            lineage[f"{of}head"] = head.lineage["digest"]
        states.append(
            compute_statistic(
                name,
                card,
                weights,
                head,
                _examples(shown, split, checked.split),
                checked,
                seed=derive_seed("statistic", seed, task),
                device=device,
                batch_size=batch_size,
                progress=progress,
            )
        )
    found = add_up(states)
    header = {**lineage, "statistic": name, "options": canonical_json(dict(checked))}
    made = StatisticManifest(
        digest=save_state(state, found, header),
        statistic=name,
        part=checked.split,
        images=int(found[IMAGES]),
        options=dict(checked),
        lineage=lineage,
    )
    made.write(manifest)
    return made


def _examples(files: ShownFiles, split: SplitManifest, part: str) -> Examples:
    store = ImageStore.open(files.images)
    check_images(store, split)
    rows = store.rows(split.ids(part))  # type: ignore[arg-type]
    # Rows of the memory map: what is not chosen is never read.
    return Examples(PixelRows(store.pixels, rows), store.labels[rows])
