"""Configurations with a mistake: hundreds of them are refused in a sentence, or accepted.

What the Snakefile does before it plans a job is done here in process; `tests/workflow/test_mutations.py`
takes some of them through Snakemake itself.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, seed

from taskgrid.sentences import shown
from taskgrid.workflow.project import DEFAULT, ROOT
from tests.unit.workflow.example_mutations import (
    FILES,
    Mutation,
    bounded,
    mutations,
    refusal,
    texts,
)

LONGEST = 300


def names_its_key(message: str, mutation: Mutation) -> bool:
    """Say whether a refusal names what was changed, or what it lies in."""
    keys = [shown(key, quotes=False) for key in mutation.place if not isinstance(key, int)]
    return any(key in message for key in keys) or shown(mutation.place[-1]) in message


def names_its_value(message: str, value: Any) -> bool:
    """Say whether a refusal shows a value, or what is wrong within it; of nothing, that it is missing."""
    if isinstance(value, dict | list) and value:
        items = [*value.values(), *value] if isinstance(value, dict) else value
        return shown(value) in message or any(names_its_value(message, one) for one in items)
    missing = ("empty", "needs", "is missing") if not value else ()
    return any(word in message for word in (shown(value), shown(value, quotes=False), *missing))


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder in which nothing is written."""
    folder = tmp_path / "empty"
    folder.mkdir()
    monkeypatch.chdir(folder)
    yield folder
    assert not any(folder.iterdir())


@pytest.mark.usefixtures("empty")
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_wrong_value_is_named_with_its_key(file: Path) -> None:
    @seed(11)
    @bounded(100)
    @given(mutations(file))
    def check(mutation: Mutation) -> None:
        message = refusal(values=mutation.config)
        assert len(message) < LONGEST
        if message:
            assert names_its_key(message, mutation), message
            assert not mutation.changed or names_its_value(message, mutation.value), message

    check()


@pytest.mark.usefixtures("empty")
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_spoilt_file_is_refused_in_a_sentence(file: Path, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "presets", tmp_path / "presets")
    shutil.copy(DEFAULT, tmp_path / "config.yaml")
    path = tmp_path / file.relative_to(ROOT)
    assert refusal(DEFAULT, path) == ""

    @seed(12)
    @bounded(50)
    @given(texts(file))
    def check(text: bytes) -> None:
        path.write_bytes(text)
        assert len(refusal(DEFAULT, path)) < LONGEST

    check()
