"""A release's notes are its section of the changelog."""

from __future__ import annotations

import pytest

from tools import release


def test_notes_are_one_section() -> None:
    text = "# Changelog\n\n## 1.10.0\n\nten\n\n## 1.1.0 - 2027-01-01\n\n### Added\n\n- one\n\n## 1.0.0\n"
    assert release.notes(text, "1.1.0") == "### Added\n\n- one\n"
    assert release.notes(text, "1.10.0") == "ten\n"
    for version in ("1.0.0", "1.1", "2.0.0"):
        with pytest.raises(SystemExit, match="no section"):
            release.notes(text, version)


def test_what_is_not_released_yet_begins_with_what_it_comes_to() -> None:
    told = release.notes(release.CHANGELOG.read_text(encoding="utf-8"), "Unreleased")
    assert told.startswith("### In short\n")
