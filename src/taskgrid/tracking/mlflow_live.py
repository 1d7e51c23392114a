"""A training's curves on a server while it trains: a process of its own, fed by lines.

Nothing depends on it. The run that it fills is no current one; the synchronisation from the records
completes it, or deletes it where it says anything that they do not.

    python -m taskgrid.tracking.mlflow_live SETTINGS < POINTS
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mlflow.entities import Metric
from mlflow.tracking import MlflowClient

from taskgrid.provenance.digests import digest
from taskgrid.tracking.access import check_reachable
from taskgrid.tracking.building.experts import expert_point, training_curve
from taskgrid.tracking.limits import metric_key
from taskgrid.tracking.mlflow_experiments import LIVE, experiment_id
from taskgrid.tracking.target import Target, resolve_target


class LiveRun:
    """The run of a training that is at work: that of its first attempt, where there was one.

    Args:
        target: the server.
        settings: of the training.
    """

    def __init__(self, target: Target, settings: Mapping[str, Any]) -> None:
        self._client = MlflowClient(target.uri, target.uri)
        point_id, named = expert_point(settings)
        tags = {
            "project": target.project,
            "point_id": point_id,
            "superseded": "pending",
            LIVE: digest(dict(settings)),
        }
        experiment = experiment_id(self._client, target, "expert")
        which = " and ".join(f"tags.{key} = '{value}'" for key, value in tags.items())
        found = self._client.search_runs([experiment], which, max_results=1)
        if found:
            run = found[0]
            self._client.update_run(run.info.run_id, status="RUNNING")
        else:
            more = {**named, "kind": "expert", "mlflow.source.name": "taskgrid"}
            run = self._client.create_run(experiment, tags={**tags, **more}, run_name=named["task"])
        self._run = run.info.run_id
        self._last = {key: self._last_step(key) for key in run.data.metrics}

    def _last_step(self, key: str) -> int:
        return max(each.step for each in self._client.get_metric_history(self._run, key))

    def log(self, points: Sequence[tuple[int, str, float]]) -> None:
        """Write points of curves; those that are there already are left out."""
        now, fresh = int(time.time() * 1000), []
        for step, name, value in points:
            key = metric_key(training_curve(name))
            if step > self._last.get(key, -1):
                self._last[key] = step
                fresh.append(Metric(key, value, now, step))
        if fresh:
            self._client.log_batch(self._run, metrics=fresh)

    def end(self, status: str) -> None:
        """Say how the training ended."""
        self._client.set_terminated(self._run, status)


def follow(lines: Iterable[str], target: Target, settings: Mapping[str, Any]) -> None:
    """Write what comes line by line: points as JSON lists, at last a status.

    Raises:
        TrackingError: if the server does not answer.
    """
    check_reachable(target)
    run = LiveRun(target, settings)
    for line in lines:
        said = json.loads(line)
        if isinstance(said, str):
            run.end(said)
        else:
            run.log(said)


def main() -> None:
    """Follow a training until it ends, or the server does."""
    # The training decides what a signal to both of them means; with its end the lines end.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    given = json.loads(sys.argv[1])
    target = resolve_target(given["uri"], given["experiment"], results=given["results"])
    if not target.is_remote:
        return
    try:
        follow(sys.stdin, target, given["training"])
    except Exception as error:
        reason = target.told(str(error).partition("\n")[0])[:200]
        print(
            f"no live curves in MLflow ({reason}); the registry is written later", file=sys.stderr
        )


if __name__ == "__main__":
    main()
