"""What texts of modules say is kept, found by the texts themselves, and never believed of others."""

from __future__ import annotations

from pathlib import Path

import pytest

import taskgrid
from taskgrid.provenance.code import ModuleText, read_module
from taskgrid.workflow import known_code
from taskgrid.workflow.known_code import KnownCode

NAME = "taskgrid.some.module"
TEXT = b"from . import other\nimport numpy\nX = 1\n"


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """What is kept of one text."""
    path = tmp_path / "code.json"
    known = KnownCode(path)
    assert known.read(TEXT, NAME, False) == read_module(TEXT, NAME, False)
    known.keep()
    return path


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Texts that are read."""
    found: list[bytes] = []

    def read(text: bytes, name: str, is_package: bool) -> ModuleText:
        found.append(text)
        return read_module(text, name, is_package)

    monkeypatch.setattr(known_code, "read_module", read)
    return found


def test_of_the_whole_library_it_is_what_their_texts_say(
    tmp_path: Path, asked: list[bytes]
) -> None:
    texts = [
        (path.read_bytes(), path.stem, path.name == "__init__.py")
        for path in Path(taskgrid.__file__).parent.rglob("*.py")
    ]
    first, path = KnownCode(tmp_path / "code.json"), tmp_path / "code.json"
    said = [first.read(*text) for text in texts]
    first.keep()
    asked.clear()
    again = KnownCode(path)
    assert [again.read(*text) for text in texts] == said and not asked
    assert len({text.digest for text in said}) > 300


def test_another_text_or_place_of_it_is_read(kept: Path, asked: list[bytes]) -> None:
    known = KnownCode(kept)
    assert known.read(TEXT, NAME, False).imports and not asked
    # Relative imports begin elsewhere there.
    assert "taskgrid.some.module.other" in known.read(TEXT, NAME, True).imports
    assert known.read(TEXT, "taskgrid.else", False).imports != known.read(TEXT, NAME, False).imports
    assert known.read(TEXT + b"Y = 2\n", NAME, False) != known.read(TEXT, NAME, False)
    assert asked == [TEXT, TEXT, TEXT + b"Y = 2\n"]
    known.keep()
    asked.clear()
    assert KnownCode(kept).read(TEXT, NAME, True) == known.read(TEXT, NAME, True) and not asked


def test_what_is_damaged_or_of_another_reader_is_forgotten(
    kept: Path, asked: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = kept.read_bytes()
    kept.write_bytes(whole.replace(b"numpy", b"scipy"))
    assert "numpy" in KnownCode(kept).read(TEXT, NAME, False).imports and len(asked) == 1
    kept.write_bytes(whole)
    monkeypatch.setattr(known_code, "_reader", lambda: "another")
    KnownCode(kept).read(TEXT, NAME, False)
    assert len(asked) == 2


def test_nothing_is_kept_where_there_is_no_folder(tmp_path: Path) -> None:
    known = KnownCode(tmp_path / "none" / "code.json")
    known.read(TEXT, NAME, False)
    known.keep()
    assert not (tmp_path / "none").exists()
