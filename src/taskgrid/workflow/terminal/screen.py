"""Snakemake's log as a person wants it: what it will take, one line of progress, errors, and the end."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TextIO

from taskgrid.config import Experiment
from taskgrid.workflow.terminal.display import Display
from taskgrid.workflow.terminal.forecast import Forecast, foresee
from taskgrid.workflow.terminal.jobs import Job
from taskgrid.workflow.terminal.output import RUN_LOG, JobOutput
from taskgrid.workflow.terminal.progress import RunProgress
from taskgrid.workflow.terminal.status import status
from taskgrid.workflow.terminal.times import Machine, spoken

Show = Literal["plan", "status"]

_TICK = 1.0
_PATIENCE = 0.7
"""Seconds that a failed job waits to be told of: of those that Ctrl-C ended, nothing is said."""
_INTERRUPTED = "Terminating processes on user request"
_SAID = ("Will exit after finishing", "Trying to restart job")
_SAID_ALREADY = (
    "CalledProcessError in file",
    "Exiting because a job execution failed",
    "At least one job did not complete",
)
"""Of errors that are told of job by job."""
_LONGEST_TAIL = 65_536


class Screen:
    """Takes Snakemake's records and shows what a person wants to see of them.

    Args:
        experiment: the experiment.
        machine: what jobs run on.
        stream: where it is shown.
        dry: whether nothing is run, and what would be is shown instead.
        show: of a dry run, the plan or how all stands.
        clock: gives seconds.
        capture: opens what takes the output of jobs.
    """

    def __init__(
        self,
        experiment: Experiment,
        machine: Machine,
        stream: TextIO,
        *,
        dry: bool,
        show: Show = "plan",
        clock: Callable[[], float] = time.monotonic,
        capture: Callable[[], JobOutput] = JobOutput,
    ) -> None:
        self._experiment, self._machine = experiment, machine
        self._dry, self._what, self._clock, self._capture = dry, show, clock, capture
        self._display = Display(stream, clock)
        self._jobs: dict[int, Job] = {}
        self._logs: dict[int, list[Path]] = {}
        self._progress: RunProgress | None = None
        self._output: JobOutput | None = None
        self._held: list[tuple[float, str]] = []
        self._interrupted = self._failed = False
        self._lock = threading.RLock()
        self._over = threading.Event()

    def emit(self, record: logging.LogRecord, text: str) -> None:
        """Take a record.

        Args:
            record: the record.
            text: how Snakemake would print it.
        """
        with self._lock:
            if self._output is not None and text:
                self._output.write(text)
            found = vars(record)
            forecast = found.get("taskgrid")
            if isinstance(forecast, Forecast):
                self._begin(forecast)
            elif event := found.get("event"):
                self._event(str(event), record, text)
            else:
                self._message(record, text)

    def close(self) -> None:
        """Say how it ended, and give the terminal back."""
        with self._lock:
            if self._over.is_set():
                return
            self._over.set()
            self._tell(patience=0.0)
            self._display.close()
            if self._output is not None:
                self._output.close()
                self._output = None
            if self._dry and not self._failed:
                self._foretell()
            elif self._progress is not None and not self._interrupted:
                self._display.say(self._ending(self._progress))

    def _begin(self, forecast: Forecast) -> None:
        if not any(job.benchmark for job in forecast.jobs):
            return
        self._display.say(str(forecast))
        self._progress = RunProgress(forecast, self._clock)
        threading.Thread(target=self._tick, daemon=True).start()

    def _event(self, event: str, record: logging.LogRecord, text: str) -> None:
        found = vars(record)
        if event == "workflow_started" and not self._dry:
            self._open()
        elif event == "job_info" and (job := Job.of_record(record)) is not None:
            self._jobs[found["jobid"]] = job
            self._logs[found["jobid"]] = [Path(log) for log in found["log"]]
            if self._progress is not None:
                self._progress.start(job)
        elif event == "job_finished" and found["job_id"] in self._jobs:
            self._finished(found["job_id"])
        elif event == "job_error":
            self._job_failed(found)
        elif event == "error":
            self._error(text)
        self._refresh()

    def _message(self, record: logging.LogRecord, text: str) -> None:
        message = record.getMessage()
        if message.startswith(_INTERRUPTED):
            self._interrupted = True
            self._held.clear()
        elif message.startswith("Nothing to be done"):
            if not self._dry:
                self._display.say("everything is up to date")
        elif record.levelno >= logging.ERROR:
            self._error(text)
        elif record.levelno >= logging.WARNING or message.startswith(_SAID):
            self._display.say(text)

    def _open(self) -> None:
        try:
            self._output = self._capture()
        except OSError as error:
            # Then all of it is seen, which is better than nothing.
            self._display.say(f"{RUN_LOG} cannot be written ({error.strerror}); jobs print here")

    def _finished(self, number: int) -> None:
        job = self._jobs[number]
        if self._progress is not None:
            self._progress.finish(job)
        if job.benchmark is None and not self._dry:
            # What such a job says is all that it is for: doctor, registry.
            for log in self._logs[number]:
                self._display.say(log.read_text(encoding="utf-8", errors="replace").rstrip())

    def _job_failed(self, found: Mapping[str, Any]) -> None:
        job = self._jobs.get(found["jobid"])
        if self._progress is not None and job is not None:
            self._progress.fail(job)
        title = job.title if job is not None else found["rule_name"]
        self._held.append((self._clock(), failure(title, [*map(str, found["log"])])))

    def _error(self, text: str) -> None:
        if any(known in text for known in _SAID_ALREADY):
            return
        self._failed = True
        if not self._interrupted:
            self._display.say(text)

    def _tick(self) -> None:
        while not self._over.wait(_TICK):
            with self._lock:
                self._tell(_PATIENCE)
                self._refresh()

    def _tell(self, patience: float) -> None:
        """Tell of failed jobs that have waited long enough."""
        until = self._clock() - patience
        for _, text in [one for one in self._held if one[0] <= until]:
            if not self._interrupted:
                self._display.say(text)
        self._held = [one for one in self._held if one[0] > until]

    def _refresh(self) -> None:
        if self._progress is not None and not self._over.is_set():
            self._display.show(self._progress.fraction, str(self._progress))

    def _foretell(self) -> None:
        forecast = foresee(self._experiment, tuple(self._jobs.values()), self._machine)
        self._display.say("\n".join(foretold(self._experiment, forecast, self._what)))

    def _ending(self, progress: RunProgress) -> str:
        if progress.failed or self._failed:
            return (
                f"{progress.failed} of {progress.total} jobs failed, {progress.done} are done and kept; the "
                f"same command goes on from there; all that was said: {RUN_LOG}"
            )
        return f"{progress.done} jobs in {spoken(progress.elapsed)}; all that was said: {RUN_LOG}"


def foretold(experiment: Experiment, forecast: Forecast, show: Show) -> Iterable[str]:
    """Return the lines of a dry run.

    Args:
        experiment: the experiment.
        forecast: what a run would take.
        show: the plan, or how all stands.
    """
    if show == "status":
        return status(experiment, forecast)
    return [str(forecast), *forecast.stages()]


def failure(title: str, logs: Iterable[str]) -> str:
    """Say which job failed, why in its own words, and where more is said.

    Args:
        title: what the job does.
        logs: its log files.
    """
    logs = list(logs)
    reason = next((found for log in logs if (found := last_error(Path(log)))), None)
    lines = [f"failed: {title}{f': {reason}' if reason else ''}"]
    return "\n".join([*lines, *(f"    log: {log}" for log in logs)])


def last_error(log: Path) -> str | None:
    """Return the last line of a log that is an error, or else its last line."""
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, log.stat().st_size - _LONGEST_TAIL))
            lines = stream.read().decode(errors="replace").splitlines()
    except OSError:
        return None
    lines = [line.strip() for line in lines if line.strip()]
    errors = [line for line in lines if line.startswith("error: ")]
    found = errors or lines
    return found[-1].removeprefix("error: ") if found else None
