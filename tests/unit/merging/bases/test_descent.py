from __future__ import annotations

import numpy as np

from taskgrid.merging.bases.descent import batches


def test_batches_are_passes_over_all_images() -> None:
    some = np.array([2, 3, 5, 7, 11, 13, 17])
    drawn = batches(some, 3, seed=0)
    rows = np.concatenate([next(drawn) for _ in range(7)])
    assert [sorted(rows[start : start + 7]) for start in (0, 7, 14)] == [list(some)] * 3
    assert len({tuple(rows[start : start + 7]) for start in (0, 7, 14)}) == 3
    assert next(batches(some[:2], 5, seed=0)).shape == (5,)
