"""Aligners of the tests, under the names of their files."""

from __future__ import annotations

import pytest

from tests.unit.alignment.toys import looking, shared


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {module.__name__.rpartition(".")[2]: module.__name__ for module in (looking, shared)}
    monkeypatch.setattr("taskgrid.plugins.registry._outside", lambda: {"aligner": found})
    looking.SHOWN.clear()
    shared.ASKED.clear()
