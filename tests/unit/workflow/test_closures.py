"""What re-runs a rule: the code that computes its output, and neither plumbing nor words.

The script of every rule is walked. A module that surprises in a closure costs a person the training of
all experts; one that is missing leaves a wrong number standing.
"""

from __future__ import annotations

import ast
import sys

import pytest

from taskgrid.provenance.code import NEUTRAL_ROOMS
from taskgrid.workflow.project import SCRIPTS, code

NAMES = sorted(path.name for path in SCRIPTS.glob("*.py"))

# Rules before the experts: an edit of anything here trains all of them again.
TO_EXPERTS = ("base.py", "dataset.py", "download.py", "finetune.py", "head.py", "split.py")
LATE = ("analysis", "evaluation", "explorer", "merging", "plots", "studies", "tracking")


def rooms(name: str) -> set[str]:
    return {module.split(".")[1] for module in code(name) if "." in module}


@pytest.mark.parametrize("name", NAMES)
def test_a_script_only_reads_arguments_calls_and_prints(name: str) -> None:
    tree = ast.parse((SCRIPTS / name).read_text())
    defined = [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    assert defined == ["main"]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [alias.name for alias in node.names]
            if isinstance(node, ast.ImportFrom):
                modules = [node.module or ""]
            # What computes is in the library, where digests see it.
            for module in modules:
                assert module.split(".")[0] in {"taskgrid", *sys.stdlib_module_names}, module


@pytest.mark.parametrize("name", NAMES)
def test_no_plumbing_is_in_a_closure(name: str) -> None:
    assert not {room for room in rooms(name) if room in NEUTRAL_ROOMS}
    assert name not in code(name)


@pytest.mark.parametrize("name", TO_EXPERTS)
def test_nothing_late_trains_experts_again(name: str) -> None:
    assert not rooms(name) & set(LATE)


def test_training_knows_no_source_of_data() -> None:
    surprising = {
        module
        for module in code("finetune.py")
        if module.startswith(("taskgrid.data.sources", "taskgrid.data.published"))
    }
    assert not surprising


@pytest.mark.parametrize(
    ("name", "computing"),
    [
        ("finetune.py", ["finetuning.loop", "finetuning.written", "models.encoder"]),
        ("import_expert.py", ["experts.read", "experts.written"]),
        ("align.py", ["alignment.aligning", "alignment.taps", "statistics.seam"]),
        ("transport.py", ["alignment.maps", "alignment.written", "vectors"]),
        ("taskvector.py", ["experts.vector", "vectors"]),
        ("merge.py", ["evaluation.engine.measure", "evaluation.plan.planner"]),
        ("eval.py", ["evaluation.engine.engine", "evaluation.opening.files"]),
        ("reference.py", ["evaluation.engine.engine", "evaluation.opening.files"]),
        ("learn.py", ["evaluation.learning", "evaluation.engine.resident", "models.linearized"]),
        ("watch.py", ["evaluation.features.looking", "alignment.taps", "merging.walks"]),
        ("grid.py", ["analysis.selection", "analysis.beside"]),
        ("pretrain.py", ["pretraining.contrastive", "pretraining.written"]),
        ("split.py", ["data.splits"]),
    ],
)
def test_what_computes_is_in_the_closure(name: str, computing: list[str]) -> None:
    assert {f"taskgrid.{module}" for module in computing} <= set(code(name))


def test_the_vectors_of_all_experts_know_no_aligner() -> None:
    assert "alignment" not in rooms("taskvector.py")


@pytest.mark.parametrize("name", NAMES)
def test_tables_and_records_need_no_model(name: str) -> None:
    if name in ("figure.py", "report.py", "record_expert.py", "registry.py"):
        assert not rooms(name) & {"models", "finetuning", "merging", "pretraining"}
