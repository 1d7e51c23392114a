"""Jobs as Snakemake tells of them."""

from __future__ import annotations

import re

import pytest

from taskgrid.workflow.project import ROOT
from taskgrid.workflow.terminal.jobs import ON_DEVICE, STAGES, Job, jobs_of_graph, kind_of
from tests.unit.workflow.terminal.example_jobs import (
    evaluation,
    finetune,
    graph_of,
    job,
    record,
    started,
)


def test_a_record_and_the_graph_tell_the_same_of_a_job() -> None:
    told = finetune("textures")
    assert Job.of_record(started(3, told)) == told
    assert jobs_of_graph(graph_of(told)) == (told,)


def test_a_target_is_no_job() -> None:
    assert Job.of_record(record("job_info", rule_msg=None, rule_name="all")) is None


@pytest.mark.parametrize(
    ("benchmark", "kind"),
    [
        ("results/benchmarks/finetune/m/standard/0/a.tsv", "finetune"),
        ("results/benchmarks/grid.tsv", "grid"),
    ],
)
def test_a_kind_is_a_folder_of_benchmarks(benchmark: str, kind: str) -> None:
    assert kind_of(benchmark) == kind


def test_jobs_are_told_apart_by_rule_and_labels() -> None:
    keys = {finetune("a").key, finetune("b").key, evaluation().key, evaluation(block="00001").key}
    assert len(keys) == 4


def test_a_job_of_no_listed_kind_counts_among_the_tables() -> None:
    assert [finetune("a").stage, job("new", "new/a").stage] == ["experts", "tables"]


def test_kinds_are_those_of_the_rules_and_kinds_on_a_device_ask_for_one() -> None:
    rules, asking = set(), set()
    for file in (ROOT / "rules").glob("*.smk"):
        for text in re.split(r"(?m)^(?=rule )", file.read_text()):
            for found in re.findall(r'"(results/benchmarks/[^"]+)"', text):
                rules.add(kind_of(found))
                if re.search(r"(?m)^        gpu=", text):
                    asking.add(kind_of(found))
    assert {kind for kinds in STAGES.values() for kind in kinds} <= rules
    assert asking == ON_DEVICE
