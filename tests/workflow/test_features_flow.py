"""A look inside networks through Snakemake: asked for beside a finished grid, it is all that runs."""

from __future__ import annotations

import pytest

from tests.workflow.conftest import Checkout

pytestmark = pytest.mark.workflow

BIAS = "results/tables/features/bias.parquet"


@pytest.fixture(scope="module")
def flow(finished: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    checkout = finished.copy_to(tmp_path_factory.mktemp("features") / "checkout")
    checkout.config["studies"] = ["addition", {"name": "features", "options": {"images": 6}}]
    assert checkout.plan("features") == {"watch": 1, "study": 5, "figure": 5, "features": 1}
    checkout.run(BIAS)
    return checkout


def test_networks_are_looked_at_where_their_points_were_chosen(flow: Checkout) -> None:
    bias = flow.table("features/bias.parquet")
    assert set(bias["task"]) == {"a", "b", "c"} and set(bias["n"]) == {6}
    assert not bias.loc[bias["method"] == "expert", "l1"].any()
    chosen = flow.table("selected.parquet").query("subset == 'a+b+c'").set_index("method")["point"]
    looked = bias[bias["subset"] == "a+b+c"].groupby("method")["point"].unique()
    assert {name: list(points) for name, points in looked.items()} == {
        name: [point] for name, point in chosen.items()
    }
    assert set(chosen.index) == {"average", "task_arithmetic"}


def test_nothing_is_looked_at_twice_and_other_images_look_again(flow: Checkout) -> None:
    assert flow.plan("features") == {"study": 4, "figure": 5, "features": 1}
    flow.config["studies"][1]["options"]["images"] = 7
    planned = flow.plan(BIAS)
    flow.config["studies"][1]["options"]["images"] = 6
    assert planned == {"watch": 1, "study": 1}
