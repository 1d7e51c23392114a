"""Packages of plug-ins as pip would leave them in a folder, without a build; ``outside`` is one."""

from __future__ import annotations

import shutil
import sys
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from taskgrid.plugins import cards, registry

PACKAGE = Path(__file__).parent / "outside"


def registration() -> dict[str, str]:
    """Return the lines that register its plug-ins: KIND.NAME -> module."""
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]
    found: dict[str, str] = project["entry-points"]["taskgrid.plugins"]
    return found


def install(folder: Path) -> Path:
    """Put the package and what is written about it into a folder; return that folder.

    Args:
        folder: a folder on the import path, or to be put there.
    """
    shutil.copytree(
        PACKAGE / "outside_plugins",
        folder / "outside_plugins",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    register(folder, "outside_plugins", registration())
    return folder


def register(folder: Path, package: str, points: Mapping[str, str]) -> None:
    """Write what is written about an installed package: its plug-ins, KIND.NAME -> module."""
    about = folder / f"{package}-1.0.dist-info"
    about.mkdir()
    name = package.replace("_", "-")
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = [f"{point} = {module}" for point, module in points.items()]
    (about / "entry_points.txt").write_text("\n".join(["[taskgrid.plugins]", *lines, ""]))


def forget() -> None:
    """Let the registry look anew for installed packages."""
    registry._outside.cache_clear()
    registry._root.cache_clear()
    cards.read_card.cache_clear()


@contextmanager
def importable(folder: Path, package: str) -> Iterator[None]:
    """Have a folder on the import path, and no trace of its package afterwards."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        forget()
        yield
    for loaded in [name for name in sys.modules if name.startswith(package)]:
        del sys.modules[loaded]
    forget()
