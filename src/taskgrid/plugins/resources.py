"""Where the small files shipped with the project lie."""

from __future__ import annotations

from pathlib import Path

from taskgrid.errors import ArtifactError


def resource_names(folder: str, suffix: str) -> tuple[str, ...]:
    """Return the names, without their suffix and sorted, of the shipped files of a folder.

    Raises:
        ArtifactError: if there is no such folder.
    """
    return tuple(sorted(path.stem for path in resource_path(folder).glob(f"*{suffix}")))


def resource_path(name: str) -> Path:
    """Return the path of a shipped file or folder, in a checkout or in an installed package.

    Raises:
        ArtifactError: if there is no such resource.
    """
    package = Path(__file__).resolve().parents[1]
    for root in (package / "resources", package.parents[1] / "resources"):
        if (root / name).exists():
            return root / name
    raise ArtifactError(
        f"resources/{name} is missing; is the checkout or the installation complete?"
    )
