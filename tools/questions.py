"""Ten questions to the tables, each answered in pandas and in DuckDB: a part of `docs/tables.md`.

A test runs every answer on finished results, both ways, and compares them.
"""

from __future__ import annotations

from dataclasses import dataclass

OPENING = """
from taskgrid.results import read_frame, read_grid, read_pairs, read_selected

grid, selected, pairs = read_grid("results"), read_selected("results"), read_pairs("results")
addition = selected[selected["study"] == "addition"]
"""
"""What stands before every answer in pandas."""

SQL_OPENING = "SET file_search_path = 'results/tables'"
"""What stands before every answer in SQL."""

_HEAD = f"""
## Ten questions

Each is answered twice: in pandas, and in SQL for DuckDB (`pip install duckdb`, then
`duckdb.sql("...").df()`), which reads the files as they are. Both begin in the folder that holds `results`.
Where there are several models, modes or seeds, name the one that is meant, or add the column to those that
are grouped by.

```python
{OPENING.strip()}
```

```sql
{SQL_OPENING}
```
"""


@dataclass(frozen=True)
class Question:
    """A question, and two answers of at most three lines: the last line in pandas is the answer's table."""

    asks: str
    pandas: str
    sql: str


QUESTIONS = (
    Question(
        "Which method is the best for each number of tasks?",
        """
means = addition.groupby(["size", "method"])["test_accuracy"].mean().round(4).reset_index()
best = means.sort_values(["test_accuracy", "method"], ascending=[False, True])
best.drop_duplicates("size").sort_values("size")
""",
        """
SELECT DISTINCT ON (size) size, method, round(avg(test_accuracy), 4) AS test_accuracy
FROM 'selected.parquet' WHERE study = 'addition'
GROUP BY size, method ORDER BY size, test_accuracy DESC, method
""",
    ),
    Question(
        "Which task hurts which? Change of the accuracy on a task (row) by each partner (column).",
        """
pairs.pivot_table("change", "task", "partner")
""",
        """
PIVOT 'pairs.csv' ON partner USING avg(change) GROUP BY task
""",
    ),
    Question(
        "How good is the merge of all tasks on each of them, with its interval?",
        """
point = ["model", "mode", "seed", "method", "options", "subset", "size", "point"]
every = addition.loc[addition["size"] == addition["size"].max(), point]
every.merge(grid[grid["split"] == "test"], on=point).filter(regex="^(method|task|accuracy)")
""",
        """
SELECT method, task, accuracy, accuracy_low, accuracy_high FROM 'grid.parquet'
JOIN 'selected.parquet' USING (model, mode, seed, method, options, subset, size, point)
WHERE study = 'addition' AND split = 'test' AND size = (SELECT max(size) FROM 'selected.parquet')
""",
    ),
    Question(
        "Which λ is chosen for how many tasks?",
        """
addition.pivot_table("scale", "size", "method", aggfunc="median")
""",
        """
PIVOT (FROM 'selected.parquet' WHERE study = 'addition') ON method USING median(scale) GROUP BY size
""",
    ),
    Question(
        "What do the base and the experts get right?",
        """
rows = grid[(grid["split"] == "test") & (grid["in_subset"] | (grid["method"] == "zeroshot"))]
rows[rows["method"].isin(["zeroshot", "expert"])].pivot_table("accuracy", "task", "method")
""",
        """
PIVOT (FROM 'grid.parquet' WHERE split = 'test' AND (in_subset OR method = 'zeroshot'))
ON method IN ('expert', 'zeroshot') USING avg(accuracy) GROUP BY task
""",
    ),
    Question(
        "What does an expert (row) do to the other tasks (column)? Change from zero-shot.",
        """
test = grid[grid["split"] == "test"].pivot_table("accuracy", ["method", "subset"], "task")
test.loc["expert"] - test.loc[("zeroshot", "")]
""",
        """
PIVOT (SELECT e.subset, task, e.accuracy - z.accuracy AS change FROM 'grid.parquet' e JOIN 'grid.parquet' z
USING (model, task, split) WHERE e.method = 'expert' AND z.method = 'zeroshot' AND split = 'test')
ON task USING avg(change) GROUP BY subset
""",
    ),
    Question(
        "Where did the choice end at the edge of the sweep, so that more λ may help?",
        """
edges = addition[addition["at_edge"]]
edges.groupby(["method", "size"]).size().reset_index(name="merges")
""",
        """
SELECT method, size, count(*) AS merges FROM 'selected.parquet'
WHERE study = 'addition' AND at_edge GROUP BY method, size
""",
    ),
    Question(
        "Which tasks go together best? The subset of each size that keeps most of its experts' accuracy.",
        """
by = ["test_normalized", "subset", "method"]
best = addition.round({"test_normalized": 4}).sort_values(by, ascending=[False, True, True])
best.drop_duplicates("size")[["size", *by]]
""",
        """
SELECT DISTINCT ON (size) size, round(test_normalized, 4) AS test_normalized, subset, method
FROM 'selected.parquet' WHERE study = 'addition'
ORDER BY size, round(test_normalized, 4) DESC, subset, method
""",
    ),
    Question(
        "Whose task vectors point the same way? Cosine over all weights.",
        """
conflicts = read_frame("results/tables/conflicts.parquet")
conflicts[conflicts["layer"] == "all"].pivot_table("cosine", "task_a", "task_b")
""",
        """
PIVOT (FROM 'conflicts.parquet' WHERE layer = 'all') ON task_b USING avg(cosine) GROUP BY task_a
""",
    ),
    Question(
        "How does the merge of all tasks fare over λ? Mean accuracy on validation.",
        """
rows = grid[(grid["split"] == "val") & grid["in_subset"] & (grid["size"] == grid["size"].max())]
rows.pivot_table("accuracy", "scale", "method")
""",
        """
PIVOT (FROM 'grid.parquet' WHERE split = 'val' AND in_subset
AND size = (SELECT max(size) FROM 'grid.parquet')) ON method USING avg(accuracy) GROUP BY scale
""",
    ),
)


def questions() -> str:
    """Return the part of the page: each question with its answers."""
    parts = [_HEAD]
    for number, one in enumerate(QUESTIONS, start=1):
        parts.append(f"\n**{number}. {one.asks}**\n\n")
        parts.append(f"```python\n{one.pandas.strip()}\n```\n\n```sql\n{one.sql.strip()}\n```\n")
    return "".join(parts)
