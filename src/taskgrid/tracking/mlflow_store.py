"""The registry in MLflow, which modules `mlflow_*` alone import.

Every record becomes one run. A run is *current* when it is finished and tagged
``superseded = false``; a point never has two. MLflow cannot choose run ids or change parameters, so
a changed record gets a new run, and the order of steps keeps the promise when the process dies
between any two of them: the new run is made as ``pending``, filled, the old one tagged
``superseded = true``, and only then the new one declared current and finished. What an interrupted
process leaves is an unfinished run; the next one deletes it (MLflow can restore it) and starts over.
So is what a server that dies after a request and before its answer leaves: the client asks again.
A run that a training filled as it went (``mlflow_live``) is completed instead, if all that is in it is
in the record too.

Every run is tagged with its ``project``, a results folder; those of others are never looked at.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlflow.entities import Metric as MlflowMetric
from mlflow.entities import Param, Run, RunTag, ViewType
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from taskgrid.errors import TrackingError
from taskgrid.tracking.access import check_reachable, locked
from taskgrid.tracking.attachments import attachments
from taskgrid.tracking.limits import (
    LONGEST_PARAM,
    LONGEST_TAG,
    MOST_METRICS,
    MOST_PARAMS,
    MOST_TAGS,
    first_and_rest,
    metric_key,
    shortened,
)
from taskgrid.tracking.mlflow_artifacts import forget_places, put_files
from taskgrid.tracking.mlflow_entities import inputs, machine_tags, since, times
from taskgrid.tracking.mlflow_experiments import EXPERIMENTS, LIVE, experiment_id
from taskgrid.tracking.mlflow_models import register_models
from taskgrid.tracking.models import RegisteredModel
from taskgrid.tracking.project import keep_project
from taskgrid.tracking.records import KINDS, Metric, RecordKind, RunRecord
from taskgrid.tracking.report import SyncReport
from taskgrid.tracking.schema import other_tables
from taskgrid.tracking.target import Target

_PAGE = 5000
_LONGEST = 200
"""Characters of an error of MLflow's that are shown."""


@dataclass(frozen=True)
class _Known:
    """What the registry says of one run."""

    run_id: str
    status: str
    tags: dict[str, str]
    metrics: tuple[str, ...]
    started: int
    ended: int | None

    @property
    def is_current(self) -> bool:
        return self.status == "FINISHED" and self.tags.get("superseded") == "false"

    @classmethod
    def of(cls, run: Run) -> _Known:
        info, data = run.info, run.data
        start = info.start_time or 0
        return cls(
            info.run_id, info.status, dict(data.tags), tuple(data.metrics), start, info.end_time
        )


class MlflowRegistry:
    """An MLflow tracking store, written from run records.

    Args:
        target: where it is.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)

    def sync(
        self,
        records: Sequence[RunRecord],
        *,
        models: Sequence[RegisteredModel] = (),
        whole_grid: bool = False,
        advance: Callable[[int], None] = lambda _: None,
    ) -> SyncReport:
        """Bring the store level with the records; the same records again change nothing.

        Args:
            records: the records; of two with one ``point_id`` the later counts.
            models: models to register.
            whole_grid: tag current runs of other points ``in_grid = false``.
            advance: called with 1 after each record.

        Returns:
            What was done. Trouble with the store is reported, not raised.
        """
        latest = {record.point_id: record for record in records}
        ordered = sorted(latest.values(), key=lambda record: KINDS.index(record.kind))
        work = _Work(self._target, ordered, models, advance)
        reason = ""
        try:
            check_reachable(self._target)
            with locked(self._target.lock):
                keep_project(self._target.results, self._target.project)
                work.run(whole_grid=whole_grid)
        except TrackingError as error:
            reason = str(error)
        # Whatever a database, a proxy or a server throws: the results are safe, the registry can wait.
        except Exception as error:
            reason = other_tables(error, self._target.shown) or (
                f"{self._target.shown} gave an error ({_said(error, self._target)})"
            )
        return work.report(reason)


class _Work:
    """One synchronisation: its plan, its counts, and what the store held at its start."""

    def __init__(
        self,
        target: Target,
        records: Sequence[RunRecord],
        models: Sequence[RegisteredModel],
        advance: Callable[[int], None],
    ) -> None:
        self._target = target
        self._records = records
        self._models = models
        self._advance = advance
        self._counts: Counter[str] = Counter()
        self._failed: list[str] = []
        self._done = 0
        self._complete = False
        self._run_ids: dict[str, str] = {}

    def report(self, reason: str) -> SyncReport:
        waiting = 0 if self._complete else max(len(self._records) - self._done, 1)
        return SyncReport(
            uri=self._target.shown,
            delayed=waiting,
            failed=tuple(self._failed),
            reason=reason if waiting else "",
            **self._counts,
        )

    def run(self, *, whole_grid: bool) -> None:
        forget_places(self._target)
        self._client = MlflowClient(self._target.uri, self._target.uri)
        kinds = dict.fromkeys(record.kind for record in self._records)
        experiments = {kind: experiment_id(self._client, self._target, kind) for kind in kinds}
        if whole_grid:
            experiments |= self._existing(set(KINDS) - set(kinds))
        known: dict[str, list[_Known]] = defaultdict(list)
        for experiment in experiments.values():
            for run in self._runs(experiment, "tags.superseded != 'true'"):
                if "point_id" in run.tags:
                    known[run.tags["point_id"]].append(run)
        for record in self._records:
            self._record(record, experiments[record.kind], known[record.point_id])
            self._done += 1
            self._advance(1)
        if self._counts["created"]:
            self._sweep(experiments.values())
        if whole_grid:
            self._retire(known)
        # A model of a refused record waits with it.
        models = [model for model in self._models if model.point_id in self._run_ids]
        self._counts["models"] = register_models(self._client, self._target, models, self._run_ids)
        self._complete = True

    def _existing(self, kinds: Iterable[RecordKind]) -> dict[RecordKind, str]:
        """Return the experiments that are there, of kinds that no record has (any more)."""
        names = {kind: EXPERIMENTS[kind].format(self._target.experiment) for kind in kinds}
        found = {key: self._client.get_experiment_by_name(name) for key, name in names.items()}
        return {
            key: str(experiment.experiment_id)
            for key, experiment in found.items()
            if experiment is not None and experiment.lifecycle_stage == "active"
        }

    def _sweep(self, experiments: Iterable[str]) -> None:
        """Delete the twins of runs that a client asked for again because it had no answer."""
        for experiment in experiments:
            for run in list(self._runs(experiment, "attributes.status != 'FINISHED'")):
                if LIVE not in run.tags:  # a training may be at work
                    self._client.delete_run(run.run_id)
                    self._counts["repaired"] += 1

    def _runs(self, experiment: str, which: str) -> Iterator[_Known]:
        token: str | None = None
        while True:
            page = self._client.search_runs(
                [experiment],
                filter_string=f"tags.project = '{self._target.project}' and {which}",
                run_view_type=ViewType.ACTIVE_ONLY,
                max_results=_PAGE,
                page_token=token,
            )
            yield from map(_Known.of, page)
            token = page.token
            if not token:
                return

    def _record(self, record: RunRecord, experiment: str, runs: Sequence[_Known]) -> None:
        current = sorted((run for run in runs if run.is_current), key=lambda run: run.started)
        same = [run for run in current if run.tags.get("content_key") == record.content_key]
        begun, there = (None, frozenset[Metric]()) if same else self._begun(record, runs)
        for run in runs:
            if not run.is_current and run is not begun:
                self._client.delete_run(run.run_id)
                self._counts["repaired"] += 1
        if same:
            self._keep(record, same[-1])
            self._supersede([run for run in current if run is not same[-1]])
            return
        missing = [
            artifact.path for artifact in record.artifacts if not Path(artifact.path).is_file()
        ]
        if missing:
            self._failed.append(
                f"{record.point_id}: the file {missing[0]} is missing; run the workflow"
            )
            return
        started, ended = times(record) if begun is None else since(begun.started, record)
        run_id = None if begun is None else begun.run_id
        try:
            # Alone, it is current as soon as it is finished; else it waits for the old one to go.
            first = begun is None and not current
            run_id = self._create(record, experiment, started, run_id, first=first)
            self._fill(run_id, record, started, there)
        except MlflowException as error:
            # A refused record must not hold up the others; a store out of reach concerns them all.
            if error.error_code not in ("INVALID_PARAMETER_VALUE", "BAD_REQUEST"):
                raise
            if run_id is not None:
                self._client.delete_run(run_id)
            self._failed.append(f"{record.point_id}: {_said(error, self._target)}")
            return
        self._supersede(current)
        if not first:
            self._client.set_tag(run_id, "superseded", "false")
        self._finish(run_id, ended)
        self._run_ids[record.point_id] = run_id
        self._counts["created"] += 1

    def _begun(
        self, record: RunRecord, runs: Sequence[_Known]
    ) -> tuple[_Known | None, frozenset[Metric]]:
        """Return a run that a training filled, and what is in it, if all of it is the record's."""
        wanted = {Metric(metric_key(key), value, step) for key, value, step in record.metrics}
        for run in runs:
            if LIVE not in run.tags or run.is_current:
                continue
            there = [
                Metric(key, each.value, each.step)
                for key in run.metrics
                for each in self._client.get_metric_history(run.run_id, key)
            ]
            found = frozenset(there)
            if len(found) == len(there) and found <= wanted:
                return run, found
        return None, frozenset()

    def _keep(self, record: RunRecord, run: _Known) -> None:
        self._run_ids[record.point_id] = run.run_id
        self._counts["unchanged"] += 1
        # Rows that were found again were measured where they always were: what is known stays.
        wanted = {"in_grid": "true", **machine_tags(record), **self._parent_tag(record)}
        for key, value in wanted.items():
            if run.tags.get(key) != value:
                self._client.set_tag(run.run_id, key, value)
        # A start cannot be changed. Rows that were found again have no time: what is known stays.
        _, ended = since(run.started, record)
        if ended is not None and run.ended != ended:
            self._finish(run.run_id, ended)

    def _finish(self, run_id: str, ended: int | None) -> None:
        if ended is not None:
            self._client.set_terminated(run_id, "FINISHED", end_time=ended)
        else:  # which would end it now, and so make up a duration
            self._client.update_run(run_id, status="FINISHED")

    def _supersede(self, runs: Sequence[_Known]) -> None:
        for run in runs:
            self._client.set_tag(run.run_id, "superseded", "true")
            self._counts["superseded"] += 1

    def _retire(self, known: dict[str, list[_Known]]) -> None:
        wanted = {record.point_id for record in self._records}
        for point_id, runs in known.items():
            for run in runs:
                if point_id in wanted or run.tags.get("in_grid") == "false" or not run.is_current:
                    continue
                self._client.set_tag(run.run_id, "in_grid", "false")
                self._counts["retired"] += 1

    def _create(
        self, record: RunRecord, experiment: str, started: int, begun: str | None, *, first: bool
    ) -> str:
        tags = {
            **record.tags,
            **machine_tags(record),
            "point_id": record.point_id,
            "content_key": record.content_key,
            "superseded": "false" if first else "pending",
            "in_grid": "true",
            "project": self._target.project,
            "mlflow.source.name": "taskgrid",
            **({"mlflow.note.content": record.note} if record.note else {}),
            **self._parent_tag(record),
        }
        few, rest = first_and_rest(list(shortened(tags, LONGEST_TAG).items()), MOST_TAGS)
        if begun is None:
            run = self._client.create_run(
                experiment, start_time=started, tags=dict(few), run_name=record.name
            )
            begun = str(run.info.run_id)
        else:
            rest = [few, *rest]
        for part in rest:
            self._client.log_batch(begun, tags=[RunTag(key, value) for key, value in part])
        return begun

    def _fill(self, run_id: str, record: RunRecord, moment: int, there: frozenset[Metric]) -> None:
        wanted = [
            Metric(metric_key(key), value, step)
            for key, value, step in dict.fromkeys(record.metrics)
        ]
        metrics = [
            MlflowMetric(each.key, each.value, moment, each.step)
            for each in wanted
            if each not in there
        ]
        params = [Param(*item) for item in shortened(record.params, LONGEST_PARAM).items()]
        some, more = first_and_rest(metrics, MOST_METRICS)
        few, others = first_and_rest(params, MOST_PARAMS)
        self._client.log_batch(run_id, metrics=some, params=few)
        for part in more:
            self._client.log_batch(run_id, metrics=part)
        for rest in others:
            self._client.log_batch(run_id, params=rest)
        if record.datasets:
            self._client.log_inputs(run_id, inputs(record))
        put_files(self._client, self._target, run_id, record.artifacts, attachments(record))

    def _parent_tag(self, record: RunRecord) -> dict[str, str]:
        parent = self._run_ids.get(record.parent or "")
        return {"mlflow.parentRunId": parent} if parent else {}


def _said(error: BaseException, target: Target) -> str:
    """Return the first line of an error; cut when it holds no password any more, not before."""
    text = str(error).strip().splitlines()
    return target.told(text[0])[:_LONGEST] if text else type(error).__name__
