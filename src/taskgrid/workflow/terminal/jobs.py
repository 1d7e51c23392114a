"""Jobs as Snakemake tells of them: in its graph before they run, or one by one in its log."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

BENCHMARKS = PurePosixPath("results/benchmarks")

STAGES: Mapping[str, tuple[str, ...]] = {
    "data": ("download", "dataset", "split"),
    "models": ("pretrain", "base", "head"),
    "experts": ("base_statistic", "align", "import", "finetune", "transport", "verify"),
    "vectors": ("taskvector", "conflict", "statistic", "learn"),
    "merges": (
        "precision",
        "merge",
        "reference",
        "eval",
        "continuous",
        "predict",
        "watch",
        "margins",
    ),
    "tables": ("record", "grid", "conflicts", "lattice", "study"),
    "figures": ("figure", "explorer", "report"),
    "registry": ("register", "registry"),
}
"""Kinds of jobs by the stage of the flow that they belong to; a kind is a folder of benchmarks."""

ON_DEVICE = frozenset(
    {"align", "verify", "finetune", "statistic", "base_statistic", "learn", "precision"}
    | {"reference", "eval", "continuous", "predict", "watch", "margins"}
)
"""Kinds that ask for a GPU where there is one."""


@dataclass(frozen=True)
class Job:
    """A job that is to run.

    Attributes:
        rule: its rule.
        labels: its wildcards.
        title: what it does, in the words of its rule.
        reason: why Snakemake runs it, in Snakemake's words.
        benchmark: where the time that it takes is noted.
    """

    rule: str
    labels: Mapping[str, str]
    title: str
    reason: str
    benchmark: str | None = None

    @property
    def key(self) -> str:
        """What tells a job from all others."""
        return " ".join(
            [self.rule, *(f"{name}={self.labels[name]}" for name in sorted(self.labels))]
        )

    @property
    def kind(self) -> str:
        """The folder of its benchmark: jobs of a kind take about as long."""
        return kind_of(self.benchmark) if self.benchmark else self.rule

    @property
    def stage(self) -> str:
        """The stage of the flow; of a kind that is not listed, tables."""
        return next((name for name, kinds in STAGES.items() if self.kind in kinds), "tables")

    @property
    def derived(self) -> bool:
        """Whether it runs because another job does."""
        return "Input files updated by another job: " in self.reason

    @property
    def block(self) -> tuple[str, ...]:
        """The block of the grid that a merge or an evaluation is of."""
        return tuple(self.labels[name] for name in ("model", "mode", "seed", "method", "block"))

    @classmethod
    def of_record(cls, record: logging.LogRecord) -> Job | None:
        """Return the job that a record tells of; targets, which only name files, are none."""
        found = vars(record)
        if not found["rule_msg"]:
            return None
        benchmark = found["benchmark"]
        return cls(
            found["rule_name"],
            dict(found["wildcards"]),
            found["rule_msg"],
            found["reason"],
            str(benchmark) if benchmark else None,
        )


def jobs_of_graph(graph: Any) -> tuple[Job, ...]:
    """Return the jobs that are to run.

    Args:
        graph: Snakemake's graph, ``workflow.dag``.
    """
    return tuple(_of_graph(graph))


def _of_graph(graph: Any) -> Iterator[Job]:
    for job in graph.needrun_jobs():
        if job.message:
            benchmark = str(job.benchmark) if job.benchmark else None
            yield Job(
                job.rule.name,
                dict(job.wildcards_dict),
                job.message,
                str(graph.reason(job)),
                benchmark,
            )


def kind_of(benchmark: str) -> str:
    """Return the kind of jobs that a benchmark is of: the first part of its path."""
    path = PurePosixPath(benchmark)
    inner = path.relative_to(BENCHMARKS) if path.is_relative_to(BENCHMARKS) else path
    return inner.parts[0].removesuffix(".tsv")
