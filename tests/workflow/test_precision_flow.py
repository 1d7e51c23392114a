"""A reduced precision through the flow: proven before anything is evaluated, or refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from taskgrid.store.atomic import write_json
from tests.workflow.conftest import GRID, Checkout

pytestmark = pytest.mark.workflow

PROOF = "results/eval/taskgrid-vit-4-s0/standard/0/precision.json"
TABLES = (GRID, "results/tables/precision.csv")


@pytest.fixture(scope="module")
def proven(finished: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout with experts and a proof, and nothing evaluated; copy it before you change it."""
    checkout = finished.copy_to(tmp_path_factory.mktemp("proven") / "checkout")
    checkout.config["tasks"] = checkout.config["tasks"][:2]
    checkout.config["grid"] |= {"methods": ["task_arithmetic"], "lambdas": [0, 0.25, 1]}
    checkout.config["evaluation"] = {
        "precision": "bf16",
        "proof": {"images": 20, "tolerance": 0.05},
    }
    outcome = checkout.run(PROOF)
    assert not {"merge", "reference", "eval"} & set(outcome.rules)
    return checkout


@pytest.fixture
def checkout(proven: Checkout, tmp_path: Path) -> Checkout:
    """A copy that the test may change."""
    return proven.copy_to(tmp_path / "checkout")


def test_the_grid_is_evaluated_in_bf16_with_the_proof_beside_it(checkout: Checkout) -> None:
    proof = checkout.json(PROOF)
    assert (proof["precision"], proof["device"], proof["probe"]["scale"]) == ("bf16", "cpu", "0.25")
    assert [one["n"] for one in proof["comparisons"]] == 6 * [20]
    assert all(one["largest"] > 0 for one in proof["comparisons"])

    # A proof of something else lets nothing in.
    text = (checkout / PROOF).read_text()
    write_json(checkout / PROOF, {**proof, "device": "cuda"})
    refused = checkout.snakemake(GRID)
    assert refused.code != 0
    assert "was made for device cuda, but cpu is in use" in refused.text
    assert refused.evaluated == 0

    (checkout / PROOF).write_text(text)
    outcome = checkout.run(*TABLES)
    assert outcome.evaluated > 0
    assert "precision" not in outcome.rules
    table = checkout.table("precision.csv")
    assert len(table) == 3 * 2 + 3
    assert table["passed"].all()
    assert not checkout.plan(*TABLES)

    # More tolerance is a new proof, and no new evaluation.
    checkout.config["evaluation"]["proof"]["tolerance"] = 0.06
    planned = checkout.plan(*TABLES)
    assert planned["precision"] == 1
    assert not {"merge", "reference", "eval", "grid"} & set(planned)


def test_a_precision_that_costs_accuracy_stops_before_the_grid(checkout: Checkout) -> None:
    # As good as can be in fp32, and always wrong in bf16.
    checkout.edit(
        "src/taskgrid/evaluation/engine/engine.py",
        "        return self._measure(request, listening), heads[-1].heard()\n",
        "        outcome, logits = self._measure(request, listening), heads[-1].heard()\n"
        "        labels = self.labels(request.task, request.split)\n"
        '        logits[np.arange(len(logits)), labels] += -99 if self._precision == "bf16" else 99\n'
        "        return outcome, logits\n",
    )
    outcome = checkout.snakemake(GRID)
    assert outcome.code != 0
    assert "Traceback" not in outcome.text
    (line,) = {line for line in outcome.text.splitlines() if line.startswith("error: ")}
    for words in ("bf16 is refused", "0.00% of", "100.00% in fp32", "evaluation.proof.tolerance"):
        assert words in line
    assert outcome.evaluated == 0
    assert not (checkout / PROOF).exists()
