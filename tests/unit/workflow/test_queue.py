"""What SLURM still has of a folder: found by where it works, named with what ends it."""

from __future__ import annotations

from pathlib import Path

import pytest

from taskgrid.workflow import queue
from taskgrid.workflow.calls import left_behind
from taskgrid.workflow.queue import Job
from tests.unit.workflow.test_calls import call, note


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder, on a machine whose SLURM has jobs of it and of others."""
    folder = tmp_path / "a | grid"
    folder.mkdir()
    (tmp_path / "link").symlink_to(folder)
    jobs = (
        f"12|RUNNING|rule_finetune_wildcards_vit_standard_0_dtd|{folder}",
        f"13|PENDING|rule_tables|{tmp_path / 'link'}",
        f"14|RUNNING|rule_finetune_wildcards_vit_standard_0_dtd|{tmp_path}",
        f"15|RUNNING|(null)|{folder}",  # the allocation in which Snakemake runs
    )
    bin = tmp_path / "bin"
    bin.mkdir()
    (bin / "squeue").write_text(f"#!/bin/sh\ncat <<'X'\n{chr(10).join(jobs)}\nX\n")
    (bin / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", str(bin), prepend=":")
    monkeypatch.chdir(folder)
    return folder


def test_jobs_are_found_by_their_folder(here: Path) -> None:
    comment = "rule_finetune_wildcards_vit_standard_0_dtd"
    expected = [Job("12", "RUNNING", comment), Job("13", "PENDING", "rule_tables")]
    assert queue.jobs_of(here) == expected


def test_jobs_that_nobody_waits_for_are_named_with_what_ends_them(here: Path) -> None:
    locks = here / ".snakemake/locks"
    note(locks)
    said = left_behind(locks)
    assert said is not None and "\n" not in said
    assert "12 (finetune vit_standard_0_dtd, RUNNING), 13 (tables, PENDING);" in said
    assert "`scancel 12 13`" in said


def test_jobs_of_a_call_that_lives_are_its_own(here: Path) -> None:
    locks = here / ".snakemake/locks"
    with call(locks):
        assert left_behind(locks) is None
    assert left_behind(locks) is not None


def test_many_jobs_are_not_all_described() -> None:
    said = queue.refusal([Job(str(number), "RUNNING", "rule_eval") for number in range(9)])
    assert said is not None
    assert "4 (eval, RUNNING), 4 more;" in said and "`scancel 0 1 2 3 4 5 6 7 8`" in said
    assert queue.refusal([]) is None


@pytest.mark.parametrize("answer", ["exit 1", None])
def test_without_an_answer_there_are_no_jobs(
    answer: str | None, here: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if answer is None:
        monkeypatch.setenv("PATH", str(tmp_path))
    else:
        (tmp_path / "bin/squeue").write_text(f"#!/bin/sh\n{answer}\n")
    assert queue.jobs_of(here) == []
