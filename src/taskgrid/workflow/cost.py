"""What jobs ask of a machine: memory in MB, minutes, GPUs. No result depends on it."""

from __future__ import annotations

from taskgrid.config import Experiment
from taskgrid.machine import devices

_LONGEST = 8 * 60
"""Minutes of a first attempt. Long jobs resume, and short ones get through a queue sooner."""

_ROW = 0.003
"""MB of a row and what is chosen among rows, while tables are made."""

_VIT_B_32 = 4.5e9
"""Multiply-adds of an image through ViT-B/32."""


def visible_gpus(experiment: Experiment) -> int:
    """Return how many GPUs this machine has for an experiment."""
    return 0 if experiment.config.device == "cpu" else len(devices.visible_gpus())


def gpus(experiment: Experiment, visible: int, *, elsewhere: bool) -> int:
    """Return the GPUs that a job needs: none where there is none, so that jobs do not wait for it.

    Args:
        experiment: the experiment.
        visible: GPUs of this machine.
        elsewhere: whether jobs run on other machines, of whose GPUs this one knows nothing.
    """
    device = experiment.config.device
    return int(device != "cpu" and (visible > 0 or elsewhere or device == "cuda"))


def is_small(experiment: Experiment) -> bool:
    """Return whether tasks are made and towers small, so that data and heads take less than a queue."""
    return all(experiment.task(task).source == "builtin" for task in experiment.tasks) and all(
        experiment.operations(model) < _VIT_B_32 / 10 for model in experiment.models
    )


def memory(
    experiment: Experiment, model: str, fixed: int, towers: int, *, vectors: bool = False
) -> int:
    """Return the MB that a job takes.

    Args:
        experiment: the experiment.
        model: the base model.
        fixed: MB that Python and its batches take.
        towers: copies of the image tower.
        vectors: whether the vectors of all tasks are held beside them.
    """
    tower = 4 * experiment.parameters(model) / 1e6
    return round(fixed + tower * (towers + (len(experiment.trained) if vectors else 0)))


def lattice_memory(experiment: Experiment, model: str) -> int:
    """Return the MB of a lattice on a budget.

    An evaluation job's, the predictor's matrices and the predicted rows; logits are in files.
    """
    lattice, tasks = experiment.config.lattice, len(experiment.trained)
    evaluation = memory(experiment, model, 5000, 8, vectors=True)
    if lattice is None:
        return evaluation
    merges = lattice.design().count(tasks)
    bytes_each = 32 * lattice.budget + 4000 * tasks
    return round(evaluation + merges * bytes_each / 1e6)


def table_memory(experiment: Experiment) -> int:
    """Return the MB of the grid's tables: 2.6 GB were measured for a million rows (docs/scale.md)."""
    # Of every subset a sweep on validation and a point on test, on each of its tasks.
    per_run = {
        method: (len(experiment.lambdas(method)) + 1)
        * sum(number.bit_count() for number in experiment.numbers_of(method))
        for method in experiment.methods
    }
    merged = (method for run in experiment.runs for method in experiment.methods_of(run.mode))
    rows = sum(per_run[method] for method in merged)
    return round(max(4000, 1000 + rows * _ROW))


def minutes(experiment: Experiment, model: str, small: int) -> int:
    """Return the minutes of a job: ``small`` for models up to ViT-B/32, up to 8 hours for larger ones."""
    cost = max(1, experiment.operations(model) / _VIT_B_32)
    return round(max(small, min(small * cost, _LONGEST)))


def evaluation_minutes(experiment: Experiment, model: str, bf16: int, fp32: int) -> int:
    """Return the minutes of an evaluation, more where no matrix product is in bf16."""
    reduced = experiment.config.evaluation.precision == "bf16"
    return minutes(experiment, model, bf16 if reduced else fp32)


def decoders(experiment: Experiment, task: str) -> int:
    """Return the threads that decode a task: files of some size are worth several, made pixels not."""
    return 1 if experiment.task(task).source in ("builtin", "npz") else 8
