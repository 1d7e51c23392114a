"""References: what a plan depends on, read from the workflow's manifests, lineage checked.

Manifests are small JSON files beside the artefacts they describe; no weights or images are opened.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from taskgrid.data.manifest import DatasetManifest, SplitManifest
from taskgrid.errors import ArtifactError, LineageError
from taskgrid.evaluation.plan import keys
from taskgrid.evaluation.plan.planner import CurveRef
from taskgrid.evaluation.plan.setting import (
    Evaluation,
    MethodRef,
    Part,
    Setting,
    Shown,
    TaskRef,
    images_of,
)
from taskgrid.lattice.subsets import parse_subset
from taskgrid.models.card import ModelCard, check_expert
from taskgrid.models.lineage import check_lineage
from taskgrid.plugins.cards import merger_card, merger_modules, plugin_options
from taskgrid.provenance.digests import derive_seed, digest, digest_file
from taskgrid.statistics.manifest import StatisticManifest, read_statistic
from taskgrid.store import images
from taskgrid.store.atomic import read_json

if TYPE_CHECKING:
    # A plan holds the kernel's digest, so whoever plans must run again when the kernel changes: the
    # code closure follows this import, the interpreter does not.
    import taskgrid.evaluation.curves.curves
    import taskgrid.evaluation.engine.measure
    import taskgrid.evaluation.tangent.line  # noqa: F401


@dataclass(frozen=True)
class TaskManifests:
    """The manifests of one task.

    Attributes:
        dataset: the decoded images' manifest.
        split: the split manifest.
        head: the head's manifest.
        vector: the task vector's manifest; it names the expert it was made from.
        expert: the expert's manifest, where there is no vector yet.
        statistics: label -> manifest of a statistic.
    """

    dataset: Path
    split: Path
    head: Path
    vector: Path | None = None
    expert: Path | None = None
    statistics: Mapping[str, Path] = field(default_factory=dict)


def read_setting(
    *,
    model: str,
    mode: str,
    seed: int,
    precision: str,
    card: ModelCard,
    tasks: Mapping[str, TaskManifests],
    statistics: Mapping[str, Path] | None = None,
    evaluation: Evaluation = "plain",
) -> Setting:
    """Read what rows depend on, and check that it belongs together.

    Args:
        model: the base model's name.
        mode: fine-tuning mode.
        seed: fine-tuning seed.
        precision: ``fp32`` or ``bf16``.
        card: the base model's card.
        tasks: the manifests of each task.
        statistics: label -> manifest of a statistic of the base.
        evaluation: ``tangent`` measures experts and merges as tangent models.

    Raises:
        ArtifactError: if a manifest is missing or damaged.
        LineageError: if an expert, vector, head or split comes from another base, text tower,
            activation, layout, head, split or data than the one in use; says which, and what to do.
    """
    used = _used(tasks) if statistics else {}
    return Setting(
        model=model,
        mode=mode,
        seed=seed,
        base=card.base,
        tower=tower_of(card),
        kernel=keys.kernel_code(),
        precision=precision,
        tasks={task: _task_ref(task, found, card) for task, found in sorted(tasks.items())},
        statistics={
            label: read_statistic(path, card=card, used=used).digest
            for label, path in sorted((statistics or {}).items())
        },
        tangent=keys.tangent_code() if evaluation == "tangent" else None,
    )


def read_method(
    name: str,
    options: Mapping[str, Any],
    seed: int,
    *,
    needs: Mapping[str, str] | None = None,
    statistics: Iterable[Path] = (),
    learned: Mapping[str, str] | None = None,
) -> MethodRef:
    """Return what rows depend on of a merge method.

    Args:
        name: the method.
        options: its options as configured.
        seed: the seed of the experts; a method that draws (``stochastic``) derives its own from it.
        needs: the label of each statistic it reads; a statistic that is not named has its own name.
        statistics: manifests of these statistics, which say whether one was made of test images.
        learned: name of a subset -> digest of what was learned for it; see ``read_learned``.

    Raises:
        ConfigError: if the method or an option is unknown, or a value does not fit.
    """
    card, checked = merger_card(name), plugin_options("merger", name, options)
    learns = card.learns(checked)
    return MethodRef(
        name=name,
        options=dict(checked),
        code=keys.computing_code(*merger_modules(name, checked)),
        seed=derive_seed("merge", seed) if card.stochastic else None,
        needs={statistic: (needs or {}).get(statistic, statistic) for statistic in card.needs},
        learned=dict(sorted((learned or {}).items())) if learns else {},
        transductive=(learns and images_of(checked) == "test")
        or any(StatisticManifest.read(path).transductive for path in statistics),
    )


def read_learned(
    setting: Setting, name: str, options: Mapping[str, Any], files: Mapping[str, Path]
) -> dict[str, str]:
    """Return the digests of what was learned, by the name of the subset.

    Args:
        setting: what it must have been learned from.
        name: the merge method.
        options: its options as configured.
        files: name of a subset -> its ``coefficients.json``.

    Raises:
        ConfigError: if the method or an option is unknown, or a value does not fit.
        ArtifactError: if a file is missing or damaged.
        LineageError: if it was learned by another method, or from other weights, heads or images.
    """
    checked = plugin_options("merger", name, options)
    found = {}
    for subset, path in sorted(files.items()):
        value, source = (
            read_json(path),
            setting.learned_from(parse_subset(subset), images_of(checked)),
        )
        expected = {"method": name, "options": dict(checked), **source}
        made = {**value["lineage"], "method": value["method"], "options": value["options"]}
        what = f"what was learned for {subset}"
        check_lineage(what, made, expected, [*expected], "run the learn rule again")
        found[subset] = digest_file(path)
    return found


def read_curves(nodes: int, tolerance: float) -> CurveRef:
    """Return what rows depend on of interpolated lambda curves."""
    return CurveRef(nodes, tolerance, code=keys.curves_code())


def tower_of(card: ModelCard) -> str:
    """Return the key of a card's architecture; names and tags do not enter."""
    return keys.tower_key(
        layout=card.layout,
        tower=card.tower,
        activation=card.activation,
        image_size=card.image_size,
        mean=card.mean,
        std=card.std,
    )


def _used(tasks: Mapping[str, TaskManifests]) -> dict[str, str]:
    """Return the heads and splits in use, as a statistic of the base names those that it saw."""
    found = {f"{task}.head": _lineage(own.head)["digest"] for task, own in tasks.items()}
    return found | {
        f"{task}.split": SplitManifest.read(own.split).digest for task, own in tasks.items()
    }


def _task_ref(task: str, manifests: TaskManifests, card: ModelCard) -> TaskRef:
    head = _lineage(manifests.head)
    check_lineage(
        f"the head of task {task!r}",
        head,
        card.lineage(),
        ("text", "activation"),
        f"build it again with {card.architecture} {card.pretrained}",
    )
    split = SplitManifest.read(manifests.split)
    expert, vector = _trained(
        task, manifests, card, {"head": head["digest"], "split": split.digest}
    )
    used = {"head": head["digest"], "split": split.digest}
    statistics = {
        label: read_statistic(path, card=card, task=task, expert=expert, used=used).digest
        for label, path in sorted(manifests.statistics.items())
    }
    parts = _parts(task, manifests, split, card)
    return TaskRef(head["digest"], parts, expert, vector, statistics)


def _parts(
    task: str, manifests: TaskManifests, split: SplitManifest, card: ModelCard
) -> dict[Shown, Part]:
    dataset = DatasetManifest.read(manifests.dataset)
    if dataset.digest != split.dataset:
        raise LineageError(
            f"the split of task {task!r} was made from other images ({split.dataset}) than those that "
            f"are decoded ({dataset.digest}); run the split rule again"
        )
    if (dataset.image_size, dataset.interpolation) != (card.image_size, card.interpolation):
        raise LineageError(
            f"the images of task {task!r} are {dataset.image_size} px, {dataset.interpolation}, but the "
            f"model takes {card.image_size} px, {card.interpolation}; run the dataset rule again"
        )
    return {
        name: Part(dataset.images, digest(list(split.ids(name))), len(split.ids(name)))
        for name in images.SPLITS
    }


def _trained(
    task: str, manifests: TaskManifests, card: ModelCard, used: Mapping[str, str]
) -> tuple[str | None, str | None]:
    """Return the digests of a task's expert and vector, as far as there are any."""
    path = manifests.vector or manifests.expert
    if path is None:
        return None, None
    lineage = _lineage(path)
    check_expert(lineage, card, task)
    check_lineage(
        f"the expert of task {task!r}",
        lineage,
        used,
        [entry for entry in used if entry in lineage],
        "train it again",
    )
    if manifests.vector is None:
        return lineage["digest"], None
    if "expert" not in lineage:
        raise LineageError(
            f"the task vector of task {task!r} does not say which expert it was made from; "
            "run the taskvector rule again"
        )
    return lineage["expert"], lineage["digest"]


def _lineage(path: Path) -> dict[str, Any]:
    value = read_json(path)
    if not isinstance(value, dict) or "digest" not in value:
        raise ArtifactError(f"{path} is no manifest of an artefact; delete it and run again")
    return value
