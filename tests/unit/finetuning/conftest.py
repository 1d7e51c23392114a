"""What tests of fine-tuning share."""

from __future__ import annotations

from pathlib import Path

import pytest

from taskgrid.models.clip import Clip
from tests.unit.example_models import tiny_clip


@pytest.fixture
def clip(tmp_path: Path) -> Clip:
    return tiny_clip(tmp_path)
