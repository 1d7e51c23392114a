"""What all tests share."""

from __future__ import annotations

import pytest
from hypothesis import settings

# Machines are busy, and how long an example takes is no property of the code.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Test processes run side by side; threads of one would wait for those of another."""
    import torch

    torch.set_num_threads(1)
