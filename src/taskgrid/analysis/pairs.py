"""What a partner does to a task: accuracy with it in the merge, against the task alone."""

from __future__ import annotations

import pandas as pd

COLUMNS = (
    "model",
    "mode",
    "seed",
    "method",
    "options",
    "task",
    "partner",
    "alone",
    "together",
    "change",
)
"""The columns of the table of pairs: accuracies on test, each merge at its own chosen point."""

_RUN = ["model", "mode", "seed", "method", "options"]


def pair_changes(
    grid: pd.DataFrame, selected: pd.DataFrame, study: str = "addition"
) -> pd.DataFrame:
    """Return, for every ordered pair of tasks, the change in accuracy when the second joins the first.

    Args:
        grid: rows of the grid.
        selected: the chosen points.
        study: whose choices count.

    Returns:
        The columns ``COLUMNS``, sorted; pairs without a merge, or of a task that was not merged alone,
        are left out.
    """
    chosen = selected[(selected["study"] == study) & selected["size"].isin((1, 2))]
    on = [*_RUN, "subset", "size", "point"]
    test = grid[(grid["split"] == "test") & grid["in_subset"].astype(bool)]
    scores = test.merge(chosen[on].drop_duplicates(), on=on)[
        [*_RUN, "size", "subset", "task", "accuracy"]
    ]
    alone = scores[scores["size"] == 1].rename(columns={"accuracy": "alone"})
    both = scores[scores["size"] == 2].rename(columns={"accuracy": "together"})
    pairs = both.merge(alone[[*_RUN, "task", "alone"]], on=[*_RUN, "task"])
    named = zip(pairs["subset"], pairs["task"], strict=True)
    partners = [next(name for name in subset.split("+") if name != task) for subset, task in named]
    table = pairs.assign(partner=partners, change=pairs["together"] - pairs["alone"])
    return table.sort_values([*_RUN, "task", "partner"])[[*COLUMNS]].reset_index(drop=True)
