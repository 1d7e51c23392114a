"""What the Snakefile tells a logger (`--logger taskgrid`): extras of empty records in Snakemake's log."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from taskgrid.config import Experiment
from taskgrid.workflow.terminal.jobs import jobs_of_graph
from taskgrid.workflow.terminal.times import Machine

EXTRA = "taskgrid"
"""The attribute of such a record."""


def of_call(
    experiment: Experiment, cores: int | None, nodes: int | None, gpus: int
) -> Mapping[str, Any]:
    """Return what a call is about.

    Args:
        experiment: the experiment.
        cores: cores of this machine that may be used.
        nodes: jobs that a cluster may run at once; None on this machine alone.
        gpus: visible GPUs that the experiment may use.
    """
    return {EXTRA: {"experiment": experiment, "machine": machine(cores or 1, nodes, gpus)}}


def of_jobs(graph: Any) -> Mapping[str, Any]:
    """Return what is to run, when all that can be known of it is known.

    Args:
        graph: Snakemake's graph, ``workflow.dag``.
    """
    return {EXTRA: jobs_of_graph(graph)}


def machine(cores: int, nodes: int | None, gpus: int) -> Machine:
    """Return what jobs run on."""
    if nodes is not None:
        many = nodes == sys.maxsize
        return Machine(nodes, 0, "a cluster" if many else f"a cluster, {nodes} jobs at once")
    place = f"{cores} core{'' if cores == 1 else 's'}"
    if gpus:
        place += f" and {gpus} GPU{'' if gpus == 1 else 's'}"
    return Machine(cores, gpus, place)
