"""What all tests share."""

from __future__ import annotations

import os

from hypothesis import settings

# Test processes run side by side; threads of one, or of its children, would wait for those of another.
os.environ["OMP_NUM_THREADS"] = "1"

# Machines are busy, and how long an example takes is no property of the code.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
