"""The package ``outside`` as pip would leave it in a folder, without a build."""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path

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
    about = folder / "outside_plugins-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: outside-plugins\nVersion: 1.0\n")
    lines = [f"{name} = {module}" for name, module in registration().items()]
    (about / "entry_points.txt").write_text("\n".join(["[taskgrid.plugins]", *lines, ""]))
    return folder
