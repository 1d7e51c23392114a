"""A rule's listing as its script reads it; `taskgrid.workflow.files` writes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from taskgrid.errors import ArtifactError
from taskgrid.evaluation.opening.files import GridFiles, TaskFiles
from taskgrid.evaluation.opening.references import TaskManifests


@dataclass(frozen=True)
class Listing:
    """A listing as a script reads it.

    Attributes:
        run: kind -> file.
        tasks: task -> kind -> file.
        learned: name of a subset -> file of what was learned for it; ``METHOD/SUBSET`` where several methods
            are read.
    """

    run: Mapping[str, Path]
    tasks: Mapping[str, Mapping[str, Path]]
    learned: Mapping[str, Path] = field(default_factory=dict)

    @classmethod
    def read(cls, value: Mapping[str, object]) -> Listing:
        """Return the listing that ``Files.listing`` wrote.

        Raises:
            ArtifactError: if it is none.
        """
        try:
            tasks: Mapping[str, Mapping[str, str]] = value["tasks"]  # type: ignore[assignment]
            learned: Mapping[str, str] = value.get("learned", {})  # type: ignore[assignment]
            run = {
                kind: Path(str(path))
                for kind, path in value.items()
                if kind not in ("tasks", "learned")
            }
            found = {
                task: {kind: Path(path) for kind, path in files.items()}
                for task, files in tasks.items()
            }
        except (AttributeError, KeyError, TypeError):
            raise ArtifactError(
                'a listing is {"base": PATH, ..., "tasks": {TASK: {"images": PATH, ...}}}, and this '
                f"is {str(value)[:80]}"
            ) from None
        return cls(run, found, {subset: Path(path) for subset, path in learned.items()})

    def of(self, kind: str) -> dict[str, Path]:
        """Return the file of a kind of every task."""
        return {task: files[kind] for task, files in self.tasks.items()}

    def statistics(self) -> dict[str, dict[str, Path] | Path]:
        """Return the files of statistics: label -> task -> file; of one of the base, label -> file."""
        found: dict[str, dict[str, Path]] = {}
        for task, files in self.tasks.items():
            for label, path in _labelled(files, "statistic").items():
                found.setdefault(label, {})[task] = path
        return found | _labelled(self.run, "statistic")

    def base_statistics(self) -> dict[str, Path]:
        """Return the manifests of statistics of the base, by label."""
        return _labelled(self.run, "statistic_manifest")

    def statistic_manifests(self) -> list[Path]:
        """Return the manifests of all statistics."""
        every = [self.run, *self.tasks.values()]
        return [path for files in every for path in _labelled(files, "statistic_manifest").values()]

    def files(self) -> GridFiles:
        """Return the files of base, experts, vectors, heads and images, as far as they are listed."""
        tasks = {
            task: TaskFiles(
                images=files["images"],
                split=files["split"],
                head=files["head"],
                expert=files.get("expert"),
                vector=files.get("vector"),
                statistics=_labelled(files, "statistic"),
            )
            for task, files in self.tasks.items()
        }
        return GridFiles(
            self.run["card"],
            self.run["base"],
            tasks,
            statistics=_labelled(self.run, "statistic"),
            learned=self.learned,
        )

    def manifests(self) -> dict[str, TaskManifests]:
        """Return what is known of each task's data, head, vector or expert."""
        return {
            task: TaskManifests(
                dataset=files["dataset"],
                split=files["split"],
                head=files["head_manifest"],
                vector=files.get("vector_manifest"),
                expert=files.get("expert_manifest"),
                statistics=_labelled(files, "statistic_manifest"),
            )
            for task, files in self.tasks.items()
        }


def _labelled(files: Mapping[str, Path], kind: str) -> dict[str, Path]:
    """Return the files of a kind that has labels, by label."""
    named = (name.partition("/") for name in files)
    return {label: files[f"{kind}/{label}"] for name, _, label in named if name == kind and label}
