"""The literature's numbers, read once."""

from __future__ import annotations

import pandas as pd
import pytest

from taskgrid.analysis.literature import lineages, read_numbers


@pytest.fixture(scope="session")
def numbers() -> pd.DataFrame:
    """All published numbers."""
    return read_numbers(tuple(lineages()))
