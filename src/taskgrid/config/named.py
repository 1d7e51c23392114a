"""Grid points that a person names, on the grid or beside it."""

from __future__ import annotations

from taskgrid.config.experiment import Experiment
from taskgrid.errors import ConfigError
from taskgrid.lattice.points import read_point
from taskgrid.lattice.subsets import parse_subset, subset_name
from taskgrid.sentences import choices


def point_tasks(
    experiment: Experiment, model: str, mode: str, seed: str, method: str, subset: str, point: str
) -> tuple[str, ...]:
    """Return the tasks of a grid point that a person names, which need not be on the grid.

    Raises:
        ConfigError: if a name does not exist, or the point is called otherwise in tables.
    """
    tasks = parse_subset(subset)
    if not tasks:
        raise ConfigError("a grid point has at least one task; lambda 0.00 of any is the base")
    runs = {(run.model, run.mode, str(run.seed)) for run in experiment.runs}
    for what, name, there in (
        ("model", model, experiment.models),
        ("mode", mode, sorted({mode for _, mode, _ in runs})),
        ("seed", seed, sorted({seed for _, _, seed in runs})),
        ("method", method, experiment.methods),
        *(("task", task, experiment.trained) for task in tasks),
    ):
        if name not in there:
            raise ConfigError(f"there is no {what} {name!r}; {choices(name, there)}")
    if (model, mode, seed) not in runs:
        raise ConfigError(
            f"there are no experts {model}/{mode}/{seed}; there are: "
            f"{', '.join('/'.join(run) for run in sorted(runs))}"
        )
    named = read_point(point).named
    if named and tuple(named) != tasks:
        raise ConfigError(
            f"the point {point!r} names {', '.join(named)}; name each task of {subset_name(tasks)}"
        )
    if subset_name(tasks) != subset:
        raise ConfigError(
            f"this grid point is called {subset_name(tasks)}/{point}; ask for that instead"
        )
    return tasks
