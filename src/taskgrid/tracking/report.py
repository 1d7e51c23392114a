"""What bringing a registry level came to, in numbers and in one line for a person."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Status = Literal["level", "delayed", "incomplete"]


@dataclass(frozen=True)
class SyncReport:
    """What a synchronisation did.

    Attributes:
        uri: the registry, without credentials.
        created: runs made.
        unchanged: records that had their run already.
        superseded: older runs of a changed record, now tagged so.
        repaired: unfinished runs of an interrupted synchronisation, removed.
        retired: runs of points that are not on the grid any more, now tagged so.
        models: versions of registered models made.
        delayed: records that have to wait, for ``reason``.
        failed: a sentence for each record that the registry refused.
        reason: why records were delayed; empty if none were.
    """

    uri: str
    created: int = 0
    unchanged: int = 0
    superseded: int = 0
    repaired: int = 0
    retired: int = 0
    models: int = 0
    delayed: int = 0
    failed: tuple[str, ...] = field(default=())
    reason: str = ""

    @property
    def status(self) -> Status:
        """``level``, ``delayed`` (try again later) or ``incomplete`` (some records were refused)."""
        if self.delayed:
            return "delayed"
        return "incomplete" if self.failed else "level"

    def sentence(self) -> str:
        """Return one line for a person."""
        if self.delayed:
            return (
                f"MLflow is not up to date: {self.delayed} records wait because {self.reason}; nothing is "
                "lost, run `snakemake registry` later"
            )
        counts = {
            "new": self.created,
            "unchanged": self.unchanged,
            "superseded": self.superseded,
            "no longer on the grid": self.retired,
            "repaired": self.repaired,
            "models registered": self.models,
            "refused": len(self.failed),
        }
        told = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
        return f"MLflow at {self.uri}: {told or 'nothing to log'}"

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {
            "status": self.status,
            "uri": self.uri,
            "created": self.created,
            "unchanged": self.unchanged,
            "superseded": self.superseded,
            "repaired": self.repaired,
            "retired": self.retired,
            "models": self.models,
            "delayed": self.delayed,
            "failed": list(self.failed),
            "reason": self.reason,
        }
