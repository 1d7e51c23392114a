"""An alignment as files: from two bases, images and heads on disk to a transport and what is known of it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from taskgrid import plugins
from taskgrid.alignment.door import transport_of
from taskgrid.alignment.images import Images
from taskgrid.alignment.kept import save_transport
from taskgrid.alignment.maps import Transport
from taskgrid.alignment.output import output_map, with_output
from taskgrid.alignment.sides import SideFiles, read_vector
from taskgrid.data.manifest import SplitManifest, check_images
from taskgrid.models.heads import Head
from taskgrid.provenance.code import code_digest
from taskgrid.provenance.digests import canonical_json, derive_seed
from taskgrid.statistics.seam import Examples, chosen_rows
from taskgrid.statistics.written import ShownFiles
from taskgrid.store.atomic import write_json
from taskgrid.store.images import ImageStore, PixelRows
from taskgrid.store.weights import Lineage, State


@dataclass(frozen=True)
class AlignmentFiles:
    """What an aligner may look at.

    Attributes:
        source: the base that vectors come from.
        target: the base that they are brought to.
        expert: theta_t of the task, for an aligner of a task.
        tasks: task -> images of it, and its head for an aligner that sees labels; empty for one that looks
            at none.
        heads: task -> its heads at the source and at the target, where the output is mapped by them.
    """

    source: SideFiles
    target: SideFiles
    expert: Path | None = None
    tasks: Mapping[str, ShownFiles] = field(default_factory=dict)
    heads: Mapping[str, tuple[Path, Path]] = field(default_factory=dict)


def write_alignment(
    files: AlignmentFiles,
    out: Path,
    manifest: Path,
    settings: Mapping[str, Any],
    device: torch.device | str = "cpu",
) -> str:
    """Find the transport between two bases, or for a task, and write it with its manifest.

    Args:
        files: what is read.
        out: where the transport goes.
        manifest: where the manifest goes.
        settings: ``aligner``, ``options``, ``seed``, ``task`` (empty for an aligner of bases), and
            ``calibration``: ``images`` of each task and the ``draw`` of them, empty where none are looked at.
        device: where networks are run.

    Returns:
        What is to be said about it, in a sentence.

    Raises:
        ArtifactError: if a file is missing, damaged, or cannot be written.
        ConfigError: if the aligner or an option is unknown, or a value does not fit.
        DataError: if a task has no images.
        DeviceError: if the device has no memory for a single image.
        LineageError: if files do not belong together, or the aligner cannot align the two.
    """
    started, task, aligner = time.perf_counter(), settings["task"], settings["aligner"]
    here, there = files.target.read(), files.source.read()
    lineage: Lineage = {
        "kind": "alignment",
        **here.the_card().lineage(),
        "aligner": aligner,
        "aligner_options": canonical_json(settings["options"]),
        "aligner_code": code_digest(plugins.module_of("aligner", aligner)),
        "calibration": canonical_json(settings["calibration"]),
        "seed": str(settings["seed"]),
    }
    vector: State = {}
    if files.expert is not None:
        own = read_vector(there, files.expert, task)
        vector = own.deltas
        lineage |= {"task": task, "source_expert": own.lineage["expert"]}
    images, seen = _images(files.tasks, settings, torch.device(device))
    found = transport_of(
        aligner, there, here, task, vector, settings["options"], settings["seed"], images
    )
    lineage |= seen
    if files.heads:
        found, mapped = _with_output(found, files.heads)
        lineage |= mapped
    digest = save_transport(out, found, lineage)
    write_json(manifest, {**lineage, "source_base": there.end.base, "digest": digest})
    return (
        f"{aligner!r} from base {there.end.base[:8]} to {here.end.base[:8]}"
        f"{f' for {task}' if task else ''}: {len(images)} images, digest {digest}, "
        f"{time.perf_counter() - started:.1f} s"
    )


def _with_output(
    found: Transport, heads: Mapping[str, tuple[Path, Path]]
) -> tuple[Transport, Lineage]:
    theirs, ours = (
        {task: Head.load(pair[at]) for task, pair in sorted(heads.items())} for at in (0, 1)
    )
    mapping, missed = output_map(theirs, ours)
    lineage = {"output": "heads", "output_missed": f"{missed:.3g}"}
    for task in theirs:
        lineage[f"{task}.source_head"] = theirs[task].lineage["digest"]
        lineage[f"{task}.head"] = ours[task].lineage["digest"]
    return with_output(found, mapping), lineage


def _images(
    tasks: Mapping[str, ShownFiles], settings: Mapping[str, Any], device: torch.device
) -> tuple[Images, Lineage]:
    examples, heads, lineage = {}, {}, {}
    for task, files in sorted(tasks.items()):
        split, store = SplitManifest.read(files.split), ImageStore.open(files.images)
        check_images(store, split)
        train, wanted = store.rows(split.ids("train")), settings["calibration"]
        seed = derive_seed("alignment", settings["seed"], wanted["draw"], task)
        rows = train[chosen_rows(len(train), wanted["images"], seed)]
        # Rows of the memory map: what is not chosen is never read.
        examples[task] = Examples(PixelRows(store.pixels, rows), store.labels[rows])
        lineage[f"{task}.split"] = split.digest
        if files.head is not None:
            heads[task] = Head.load(files.head)
            lineage[f"{task}.head"] = heads[task].lineage["digest"]
    return Images(examples, heads, device), lineage
