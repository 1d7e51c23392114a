"""The batch size that was left when a GPU ran out of memory, for the next job of the same kind.

A small file per kind of job beside the store. Nothing depends on it; whoever changes the machine's
other work may delete it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from taskgrid.errors import ArtifactError
from taskgrid.models.batches import advise
from taskgrid.provenance.digests import digest
from taskgrid.store.atomic import read_json, write_json


@dataclass(frozen=True)
class Job:
    """What the memory of a pass depends on.

    Attributes:
        tower: ``keys.tower_key``.
        evaluation: ``plain`` or ``tangent``.
        precision: ``fp32`` or ``bf16``.
        compiled: whether whole batches pass through ``torch.compile``.
        device: the device's name.
        torch: torch's version.
    """

    tower: str
    evaluation: str
    precision: str
    compiled: bool
    device: str
    torch: str


@dataclass(frozen=True)
class RememberedSize:
    """A batch size on disk.

    Attributes:
        folder: where sizes are kept.
        job: what it is the size of.
    """

    folder: Path
    job: Job

    def find(self) -> int | None:
        """Return the size that was kept; None where there is none that can be read."""
        try:
            found = read_json(self._path)
        except ArtifactError:
            return None
        size = found.get("batch_size") if isinstance(found, dict) else None
        return size if type(size) is int and size > 0 else None

    def keep(self, size: int) -> str:
        """Keep a size; return what is to be said about it."""
        try:
            write_json(self._path, {**asdict(self.job), "batch_size": size})
        except ArtifactError:
            return advise(size)
        return f"the next job begins there, until {self._path} is deleted"

    @property
    def _path(self) -> Path:
        return self.folder / f"{digest(asdict(self.job))}.json"
