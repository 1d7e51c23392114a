"""What a person sees of Snakemake's records, in a terminal and in a file."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskgrid.workflow.terminal.forecast import foresee
from taskgrid.workflow.terminal.output import JobOutput
from taskgrid.workflow.terminal.screen import Screen, failure, last_error
from tests.unit.workflow.example_experiment import experiment
from tests.unit.workflow.terminal.example_jobs import (
    MACHINE,
    evaluation,
    finetune,
    job,
    record,
    started,
)

JOBS = (finetune("textures"), evaluation("average"))


class Stream(io.StringIO):
    """A file, or a terminal."""

    terminal = False

    def isatty(self) -> bool:
        return self.terminal


class Log(JobOutput):
    """Takes output without taking the streams of the tests."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.closed = False

    def write(self, text: str) -> None:
        self.lines.append(text)

    def close(self) -> None:
        self.closed = True


class Watched:
    """A screen with a clock of its own, and what it shows."""

    def __init__(self, dry: bool = False) -> None:
        self.now, self.stream, self.log = 100.0, Stream(), Log()
        self.screen = Screen(
            experiment(),
            MACHINE,
            self.stream,
            dry=dry,
            clock=lambda: self.now,
            capture=lambda: self.log,
        )

    def tell(self, *records: logging.LogRecord) -> None:
        for one in records:
            self.screen.emit(one, one.getMessage())

    @property
    def text(self) -> str:
        return self.stream.getvalue()


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def watched() -> Iterator[Watched]:
    found = Watched()
    found.tell(
        record("workflow_started", "SNAKEMAKE"),
        record(taskgrid=foresee(experiment(), JOBS, MACHINE)),
    )
    yield found
    found.screen.close()


def finished(number: int) -> logging.LogRecord:
    return record("job_finished", f"Finished jobid: {number}", job_id=number)


def failed(number: int, *logs: str) -> logging.LogRecord:
    text = f"Error in rule finetune, jobid: {number}"
    return record("job_error", text, logging.ERROR, jobid=number, rule_name="finetune", log=[*logs])


def test_a_run_is_its_forecast_now_and_then_a_line_and_its_end(watched: Watched) -> None:
    watched.tell(record(message="Select jobs to execute..."), started(1, JOBS[0]))
    watched.now += 11
    watched.tell(finished(1), started(2, JOBS[1]), record("progress", "1 of 2 steps (50%) done"))
    watched.now += 5
    watched.tell(finished(2), record(message="Complete log(s): x"))
    watched.screen.close()
    first, line, last = watched.text.splitlines()
    assert first == (
        "1 new expert and 9 new points in 2 jobs, for a time that is not known yet, "
        "because nothing is there yet"
    )
    assert "1 of 2 jobs" in line and line.strip().startswith("5")
    assert last == "2 jobs in 16 s; all that was said: results/logs/run.log"


def test_all_else_is_in_the_log(watched: Watched) -> None:
    watched.tell(record(message="Select jobs to execute..."))
    assert "Select jobs" not in watched.text and "Select jobs to execute..." in watched.log.lines
    watched.screen.close()
    assert watched.log.closed


def test_a_terminal_has_one_line_that_names_the_method(watched: Watched) -> None:
    watched.stream.terminal = True
    watched.tell(started(2, JOBS[1]))
    (line,) = [part for part in watched.text.split("\r") if "0 of 2 jobs" in part][-1:]
    assert "eval of m standard 0 average 00000" in line and "\n" not in line


def test_a_failed_job_says_why_in_one_sentence_and_where_more_is(watched: Watched) -> None:
    Path("job.log").write_text("loading\nerror: data/a.npz is not there; put it there\nbye\n")
    watched.tell(started(1, JOBS[0]), failed(1, "job.log"))
    assert "failed" not in watched.text.splitlines()[-1]
    watched.now += 1
    watched.screen.close()
    assert (
        f"failed: {JOBS[0].title}: data/a.npz is not there; put it there\n    log: job.log\n"
    ) in watched.text
    assert watched.text.splitlines()[-1].startswith("1 of 2 jobs failed, 0 are done and kept; ")


def test_what_snakemake_says_again_at_the_end_is_left_out(watched: Watched) -> None:
    watched.tell(
        record(message="Exiting because a job execution failed. Look above", level=logging.ERROR),
        record("error", "WorkflowError:\nAt least one job did not complete", logging.ERROR),
        record("error", "RuleException:\nCalledProcessError in file x, line 5:", logging.ERROR),
    )
    assert not any(word in watched.text for word in ("WorkflowError", "Exiting", "RuleException"))


def test_after_an_interrupt_nothing_more_is_said(watched: Watched) -> None:
    watched.tell(started(1, JOBS[0]), failed(1))
    watched.tell(
        record(message="Terminating processes on user request, this might take some time.")
    )
    watched.tell(failed(1), record("error", "WorkflowError:\nsomething", logging.ERROR))
    watched.now += 5
    watched.screen.close()
    assert len(watched.text.splitlines()) == 1


def test_warnings_errors_and_second_attempts_are_seen(watched: Watched) -> None:
    watched.tell(
        record(message="clocks differ", level=logging.WARNING),
        record("error", "WorkflowError:\nthe folder is locked", logging.ERROR),
        record(message="Trying to restart job 3."),
    )
    for words in ("clocks differ", "the folder is locked", "Trying to restart"):
        assert words in watched.text


def test_a_job_that_is_asked_for_what_it_says_says_it() -> None:
    watched, doctor = Watched(), job("doctor", None)
    Path("doctor.log").write_text("device  ready  CPU\n")
    watched.tell(
        record(taskgrid=foresee(experiment(), (doctor,), MACHINE)),
        started(1, doctor, "doctor.log"),
        finished(1),
    )
    watched.screen.close()
    assert watched.text == "device  ready  CPU\n"


def test_a_dry_run_shows_the_plan() -> None:
    watched = Watched(dry=True)
    watched.tell(
        record("workflow_started", "SNAKEMAKE"), *(started(n, j) for n, j in enumerate(JOBS))
    )
    assert watched.text == ""
    watched.screen.close()
    assert watched.text.startswith("1 new expert ")
    assert [line.split()[0] for line in watched.text.splitlines()[1:]] == ["experts", "merges"]


def test_a_dry_run_without_jobs_and_a_run_of_nothing_say_so() -> None:
    for dry in (True, False):
        watched = Watched(dry=dry)
        watched.tell(record(message="Nothing to be done (all requested files are up to date)."))
        watched.screen.close()
        assert watched.text == "everything is up to date\n"


def test_a_dry_run_that_cannot_be_planned_says_only_why() -> None:
    watched = Watched(dry=True)
    watched.tell(record("error", "MissingInputException", logging.ERROR))
    watched.screen.close()
    assert watched.text == "MissingInputException\n"


def test_where_the_log_cannot_be_written_jobs_print_where_they_did() -> None:
    watched = Watched()

    def refuse() -> JobOutput:
        raise PermissionError(13, "Permission denied")

    watched.screen = Screen(experiment(), MACHINE, watched.stream, dry=False, capture=refuse)
    watched.tell(record("workflow_started", "SNAKEMAKE"))
    watched.screen.close()
    assert watched.text.startswith("results/logs/run.log cannot be written (Permission denied)")


def test_the_last_error_of_a_log_is_found_or_its_last_line() -> None:
    log = Path("x.log")
    assert last_error(log) is None and failure("t", []) == "failed: t"
    log.write_text("\n")
    assert last_error(log) is None
    log.write_text("a\nerror: one\nerror: two\nb\n")
    assert last_error(log) == "two"
    log.write_bytes(b"x" * 100_000 + b"\nKilled \xff\n\n")
    assert last_error(log) == "Killed \N{REPLACEMENT CHARACTER}"
