"""Whose runs are whose: a registry may hold those of several results folders, under equal names."""

from __future__ import annotations

import platform
import re
from pathlib import Path

from taskgrid.errors import ArtifactError
from taskgrid.provenance.digests import digest
from taskgrid.store.atomic import read_json, write_json


def project_of(results: Path) -> str:
    """Return the name that the runs of a results folder carry.

    It is the one that the folder keeps, so that a folder that moves keeps its runs; where it keeps none, one
    that follows from the machine and the place, so that a folder that is deleted and made again does too.

    Args:
        results: the folder, as an absolute path.
    """
    try:
        return str(read_json(_kept(results))["project"])
    except (ArtifactError, KeyError):
        readable = re.sub(r"[^A-Za-z0-9_.-]+", "_", results.parent.name)
        return f"{readable}-{digest([platform.node(), str(results)])[:8]}"


def keep_project(results: Path, project: str) -> None:
    """Let a results folder keep the name.

    Raises:
        ArtifactError: if the file system refuses to write.
    """
    if not _kept(results).exists():
        write_json(_kept(results), {"project": project})


def _kept(results: Path) -> Path:
    return results / "registry" / "project.json"
