"""A checkout says which commit it is at; what is installed says nothing."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from taskgrid.provenance.commit import commit


def git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    command = ["git", *identity, *words]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "src" / "package"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    return folder


def test_a_checkout_says_its_commit_and_whether_it_was_edited(
    package: Path, tmp_path: Path
) -> None:
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "one")
    head = git(tmp_path, "rev-parse", "HEAD").strip()
    assert commit(package) == {"commit": head}
    (package / "__init__.py").write_text("EDITED = True\n")
    assert commit(package) == {"commit": f"{head}-dirty"}


def test_a_package_in_somebody_elses_checkout_or_in_none_says_nothing(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert commit(package) == {}
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "commit", "--quiet", "--allow-empty", "--message", "theirs")
    assert commit(package) == {}
    monkeypatch.setenv("PATH", "")
    assert commit(package) == {}
