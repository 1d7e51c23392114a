"""How all stands: what is done, what is stale and why, what runs, and the hours so far and to go."""

from __future__ import annotations

from base64 import urlsafe_b64decode
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from taskgrid.config import Experiment
from taskgrid.errors import ArtifactError
from taskgrid.store.atomic import read_json
from taskgrid.workflow import calls, queue, runs
from taskgrid.workflow.terminal.forecast import Forecast
from taskgrid.workflow.terminal.jobs import ON_DEVICE
from taskgrid.workflow.terminal.times import read_benchmarks

_INCOMPLETE = Path(".snakemake/incomplete")
_SHOWN = 5


def status(experiment: Experiment, forecast: Forecast, folder: Path = Path()) -> Iterator[str]:
    """Yield the lines of how all stands.

    Args:
        experiment: the experiment.
        forecast: what a run would take now.
        folder: the working folder.
    """
    experts, points = len(runs.experts(experiment)), points_of(experiment)
    yield f"experts  {experts - forecast.experts} of {experts}"
    yield f"points   {points - forecast.points:,} of {points:,}"
    yield f"to do    {forecast}"
    yield f"running  {'; '.join(running(folder)) or 'nothing'}"
    yield f"time     {hours(forecast, folder)}"


def points_of(experiment: Experiment) -> int:
    """Return how many points the grid has."""
    of_method = {
        method: sum(len(experiment.points(method, name)) for name in experiment.subsets(method))
        for method in experiment.methods
    }
    return sum(
        of_method[method] for run in experiment.runs for method in experiment.methods_of(run.mode)
    )


def running(folder: Path = Path()) -> Iterator[str]:
    """Yield the calls of Snakemake in a folder, what they make now, and SLURM's jobs.

    Args:
        folder: the working folder.
    """
    others = calls.living(folder / calls.LOCKS)
    yield from map(str, others)
    if others:
        made = sorted({str(path.parent) for path in incomplete(folder / _INCOMPLETE)})
        yield from made[:_SHOWN]
        if len(made) > _SHOWN:
            yield f"and {len(made) - _SHOWN} more"
    yield from map(str, queue.jobs_of(folder)[:_SHOWN])


def incomplete(folder: Path = _INCOMPLETE) -> list[Path]:
    """Return the files that jobs are making now, by the marks that Snakemake sets meanwhile.

    Args:
        folder: Snakemake's folder of marks; long names are cut into folders that begin with ``@``.
    """
    found = []
    for path in sorted(folder.rglob("*")):
        coded = "".join(part.removeprefix("@") for part in path.relative_to(folder).parts)
        # A folder is the beginning of a name, and no name.
        with suppress(ValueError):
            if path.is_file():
                found.append(Path(urlsafe_b64decode(coded).decode()))
    return found


def hours(forecast: Forecast, folder: Path = Path()) -> str:
    """Say how long jobs that may use a GPU took so far, and take yet.

    A job that was run again counts once, for it has one benchmark.

    Args:
        forecast: what a run would take now.
        folder: the working folder.
    """
    benchmarks = read_benchmarks(folder)
    taken = sum(sum(benchmarks.get(kind, {}).values()) for kind in ON_DEVICE)
    coming = sum(
        forecast.seconds.get(job.key, 0.0) for job in forecast.jobs if job.kind in ON_DEVICE
    )
    unit = "GPU hours" if _on_gpu(folder) or forecast.machine.gpus else "hours without a GPU"
    return f"{taken / 3600:.2f} {unit} so far, about {coming / 3600:.2f} to go"


def _on_gpu(folder: Path) -> bool:
    """Say whether experts were trained on a GPU."""
    for path in (folder / "results" / "experts").glob("*/*/*/*/timing.json"):
        with suppress(ArtifactError):
            return str(read_json(path).get("device", "cpu")) != "cpu"
    return False
