"""What is known of a statistic without its tensors: small JSON beside the weights. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taskgrid.errors import ArtifactError, LineageError
from taskgrid.models.card import ModelCard, check_expert
from taskgrid.models.lineage import check_lineage
from taskgrid.store.atomic import read_json, write_json


@dataclass(frozen=True)
class StatisticManifest:
    """A statistic as others depend on it.

    Attributes:
        digest: digest of its tensors.
        statistic: its registered name.
        part: the split that its images come from: ``train``, ``val`` or ``test``.
        images: how many there were.
        options: all its options, defaults filled in.
        lineage: what it was made from: the model card's entries and ``code``; of a statistic per task
            ``task``, ``expert``, ``split``, and ``head`` where it sees one; of one per base ``TASK.split``
            and ``TASK.head`` of each task whose images it saw.
    """

    digest: str
    statistic: str
    part: str
    images: int
    options: Mapping[str, Any]
    lineage: Mapping[str, str]

    @property
    def transductive(self) -> bool:
        """Whether test images were looked at: so must say the row of any merge made with it."""
        return self.part == "test"

    def write(self, path: str | Path) -> None:
        """Write the manifest.

        Raises:
            ArtifactError: if the file system refuses to write.
        """
        own = {name: value for name, value in vars(self).items() if name != "lineage"}
        write_json(path, {**self.lineage, **own, "options": dict(self.options)})

    @classmethod
    def read(cls, path: str | Path) -> StatisticManifest:
        """Read a manifest.

        Raises:
            ArtifactError: if the file is missing, or no such manifest.
        """
        found = read_json(path)
        own = [name for name in cls.__dataclass_fields__ if name != "lineage"]
        if not isinstance(found, dict) or any(name not in found for name in own):
            raise ArtifactError(f"{path} is no manifest of a statistic; delete it and run again")
        return cls(
            **{name: found.pop(name) for name in own},
            lineage={name: str(value) for name, value in found.items()},
        )


def read_statistic(
    path: str | Path,
    *,
    card: ModelCard,
    task: str = "",
    expert: str | None = None,
    used: Mapping[str, str] | None = None,
) -> StatisticManifest:
    """Read a manifest, and refuse a statistic that belongs to something else.

    Args:
        path: the manifest.
        card: the base model in use.
        task: whose statistic it is; empty for one of the base.
        expert: digest of the expert in use; None for a statistic of the base.
        used: digests of heads and splits in use, named as in the lineage; what it did not see is not
            compared.

    Raises:
        ArtifactError: if the file is missing, or no such manifest.
        LineageError: if it was made from another base, expert, head or split; names both.
    """
    found = StatisticManifest.read(path)
    check_expert(found.lineage, card, task)
    whose = f"of task {task!r}" if task else "of the base"
    what = f"the statistic {found.statistic!r} {whose}"
    if found.lineage.get("expert") != expert:
        raise LineageError(
            f"{what} was made from expert {found.lineage.get('expert')}, but {expert} is in use; run the "
            "statistics rule again"
        )
    compared = [name for name in used or {} if name in found.lineage]
    check_lineage(what, found.lineage, used or {}, compared, "run the statistics rule again")
    return found
