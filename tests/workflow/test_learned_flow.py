"""Learned coefficients through the flow: a rule of their own, points, a file of one."""

from __future__ import annotations

from taskgrid.models.clip import load_clip
from taskgrid.store.atomic import write_json
from tests.workflow.conftest import Checkout

RUN = "taskgrid-vit-4-s0/standard/0/adamerging"
ROWS = f"results/eval/{RUN}/00000/rows.parquet"
POINT = f"results/export/{RUN}/a+b/1.00.safetensors"


def test_coefficients_are_learned_once_and_used_by_rows_and_exports(checkout: Checkout) -> None:
    checkout.config["tasks"] = checkout.config["tasks"][:2]
    options = {"steps": 3, "batch_size": 4, "level": "task"}
    checkout.config["grid"] |= {
        "methods": [{"name": "adamerging", "options": options}],
        "subsets": {"include": [["a", "b"]]},
    }
    first = checkout.run(ROWS, POINT)
    assert first.rules["learn"] == 1
    learned = f"results/learned/{RUN}/a+b/coefficients.json"
    found = checkout.json(learned)
    assert [step for step, _ in found["history"]] == [0, 1, 2]
    assert set(found["coefficients"]) == {"a", "b"} and found["images"] == "test"

    import pandas

    rows = pandas.read_parquet(checkout / ROWS)
    rows = rows[rows["method"] == "adamerging"]
    assert set(rows["point"]) == {"0.00", "0.50", "1.00"} and rows["transductive"].all()
    clip = load_clip("taskgrid-vit-4", str(checkout / POINT))
    assert clip.visual_digest != load_clip("taskgrid-vit-4", "s0").visual_digest

    assert checkout.plan(ROWS, POINT) == {}
    # More subsets learn their own coefficients, and what was learned stays.
    small = checkout.config["grid"].pop("subsets")
    assert checkout.plan(ROWS)["learn"] == 2
    checkout.config["grid"]["subsets"] = small

    # Coefficients of other images are refused, whoever wrote them.
    write_json(checkout / learned, found | {"lineage": found["lineage"] | {"a.images": "else"}})
    refused = checkout.snakemake(ROWS)
    assert refused.code != 0 and "was learned for a+b comes from another a.images" in refused.text
