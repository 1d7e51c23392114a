"""What the Snakefile tells a logger (`--logger taskgrid`): extras of empty records in Snakemake's log."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from taskgrid.config import Experiment
from taskgrid.workflow.terminal.forecast import foresee
from taskgrid.workflow.terminal.jobs import jobs_of_graph
from taskgrid.workflow.terminal.times import Machine

EXTRA = "taskgrid"
"""The attribute of such a record."""


def of_call(experiment: Experiment, machine: Machine) -> Mapping[str, Any]:
    """Return what a call is about.

    Args:
        experiment: the experiment.
        machine: what jobs run on.
    """
    return {EXTRA: {"experiment": experiment, "machine": machine}}


def of_jobs(experiment: Experiment, machine: Machine, graph: Any) -> Mapping[str, Any]:
    """Return what the jobs of a call will take, before the first one begins.

    Loggers read their records later, when the first jobs have taken away what they make anew, and with
    it what there was before.

    Args:
        experiment: the experiment.
        machine: what jobs run on.
        graph: Snakemake's graph, ``workflow.dag``.
    """
    return {EXTRA: foresee(experiment, jobs_of_graph(graph), machine)}


def machine_of(cores: int | None, nodes: int | None, gpus: int) -> Machine:
    """Return what jobs run on.

    Args:
        cores: cores of this machine that may be used; None is one.
        nodes: jobs that a cluster may run at once; None on this machine alone.
        gpus: visible GPUs that the experiment may use.
    """
    cores = cores or 1
    if nodes is not None:
        many = nodes == sys.maxsize
        return Machine(nodes, 0, "a cluster" if many else f"a cluster, {nodes} jobs at once")
    place = f"{cores} core{'' if cores == 1 else 's'}"
    if gpus:
        place += f" and {gpus} GPU{'' if gpus == 1 else 's'}"
    return Machine(cores, gpus, place)
