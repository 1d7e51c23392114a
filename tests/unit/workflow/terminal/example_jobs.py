"""Jobs, records and results of a small experiment, for tests of what a terminal shows."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from taskgrid.config import Experiment
from taskgrid.store.atomic import write_json
from taskgrid.workflow import paths
from taskgrid.workflow.settings import merge
from taskgrid.workflow.terminal.jobs import Job
from taskgrid.workflow.terminal.times import Machine
from tests.unit.workflow.example_experiment import BLOCK, RUN

MACHINE = Machine(2, 0, "2 cores")
MISSING = "Missing output files: results/x.json"


def job(rule: str, benchmark: str | None, reason: str = MISSING, **labels: str) -> Job:
    found = f"results/benchmarks/{benchmark}.tsv" if benchmark else None
    return Job(rule, labels, f"{rule} of {' '.join(labels.values())}", reason, found)


def finetune(task: str, reason: str = MISSING) -> Job:
    return job("finetune", f"finetune/m/standard/0/{task}", reason, **RUN, task=task)


def plan(method: str = "task_arithmetic", block: str = "00000", reason: str = MISSING) -> Job:
    place = f"merge/m/standard/0/{method}/{block}"
    return job("merge", place, reason, **{**BLOCK, "method": method, "block": block})


def evaluation(method: str = "task_arithmetic", block: str = "00000", reason: str = MISSING) -> Job:
    place = f"eval/m/standard/0/{method}/{block}"
    return job("eval", place, reason, **{**BLOCK, "method": method, "block": block})


def changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return the reason that Snakemake gives where settings are others than before."""
    texts = [repr(json.dumps(value, separators=(",", ":"))) for value in (before, now)]
    return (
        "Params have changed since last execution: Union of exclusive params before and now across "
        f"all output: before: {texts[0]} now: {texts[1]} "
    )


def graph_of(*jobs: Job) -> Any:
    """Return as much of Snakemake's graph as is read here: some jobs, and the target behind them."""
    inner = [
        SimpleNamespace(
            rule=SimpleNamespace(name=job.rule),
            wildcards_dict=dict(job.labels),
            message=job.title,
            benchmark=job.benchmark,
            reason=job.reason,
        )
        for job in jobs
    ]
    target = SimpleNamespace(message=None)
    return SimpleNamespace(needrun_jobs=lambda: [*inner, target], reason=lambda job: job.reason)


def updated(*files: str) -> str:
    return f"Input files updated by another job: {', '.join(files)}"


def write_plan(folder: Path, experiment: Experiment, labels: Mapping[str, str] = BLOCK) -> None:
    """Write as much of a block's plan as is read here, for what an experiment asks of it."""
    asked = json.loads(merge.plan(experiment, **labels))
    kept = {key: asked[key] for key in ("lambdas", "points", "subsets", "studies")}
    path = folder / paths.BLOCK_PLAN.format(**labels)
    path.parent.mkdir(parents=True, exist_ok=True)
    method = {"name": asked["method"], "options": asked["options"]}
    write_json(path, {**kept, "method": method, "setting": {"precision": asked["precision"]}})


def write_benchmark(folder: Path, place: str, *seconds: float) -> None:
    path = folder / "results/benchmarks" / f"{place}.tsv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["s\th:m:s", *(f"{each}\t0:00:00" for each in seconds)]) + "\n")


def write_timing(folder: Path, place: str, images: int, seconds: float) -> None:
    path = folder / "results/eval" / place / "timing.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"images": images, "measured_seconds": seconds})


def record(
    event: str | None = None, message: str = "", level: int = logging.INFO, **extra: Any
) -> logging.LogRecord:
    made = logging.LogRecord("snakemake", level, "", 0, message, None, None)
    vars(made).update(extra, **({"event": event} if event else {}))
    return made


def started(number: int, of: Job, *logs: str) -> logging.LogRecord:
    """Return the record by which Snakemake says that a job runs."""
    return record(
        "job_info",
        jobid=number,
        rule_name=of.rule,
        rule_msg=of.title,
        wildcards=dict(of.labels),
        reason=of.reason,
        benchmark=of.benchmark,
        log=list(logs),
    )
