"""What a configuration names outside itself: architectures, weights, data, results of other runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from taskgrid.config.architectures import image_size, local_weights
from taskgrid.config.root import Config
from taskgrid.config.sections.task import TaskSpec
from taskgrid.config.tasks import files_of
from taskgrid.errors import ConfigError
from taskgrid.remote.cache import is_repository
from taskgrid.sentences import shown, tail

_OWN_RESULTS = Path("results")
"""What this run itself makes, for transports from one base of it to another; it need not be there yet."""


def check_outside(config: Config, tasks: Sequence[TaskSpec]) -> None:
    """Look up what a configuration names outside itself.

    Args:
        config: the configuration.
        tasks: its tasks, resolved.

    Raises:
        ConfigError: if something does not exist or cannot be looked at.
    """
    for transport in config.transport:
        if Path(transport.results) == _OWN_RESULTS:
            continue
        owner = f"transport {transport.name!r}"
        with _looked_at(f"{owner}: from", transport.results):
            if not Path(transport.results).expanduser().is_dir():
                raise ConfigError(
                    f"{owner}: there is no folder {tail(transport.results)}; `from` is the "
                    "results folder of the other run"
                )
    for model in config.models:
        with _looked_at(f"model {model.name!r}: architecture", model.architecture):
            image_size(model.architecture)
        with _looked_at(f"model {model.name!r}: pretrained", model.pretrained):
            local_weights(model.architecture, model.pretrained)
    for task in tasks:
        with _looked_at(f"task {task.name!r}: path", task.path):
            files = files_of(task)
        for path in files:
            key = next((key for key in ("classes", "templates") if _names(task, key, path)), "path")
            with _looked_at(f"task {task.name!r}: {key}", path):
                if not Path(path).expanduser().exists():
                    raise ConfigError(
                        f"task {task.name!r}: {tail(path)} does not exist; correct `{key}`, or put the data "
                        "there"
                    )
    for expert in config.experts:
        for task in (task for task in tasks if task.expert):
            place = expert.place(task.name)
            if Path(place).parts[:1] == ("results",):
                continue  # the run may make it itself, of another mode
            with _looked_at(f"experts {expert.name!r}: source", place):
                if not is_repository(place) and not Path(place).expanduser().exists():
                    raise ConfigError(
                        f"experts {expert.name!r}: {tail(place)}, the expert of task {task.name!r}, does not "
                        "exist; correct `source` or `names`, or put it there"
                    )


def _names(task: TaskSpec, key: str, path: str) -> bool:
    given = getattr(task, key)
    return isinstance(given, str) and path.endswith(given)


@contextlib.contextmanager
def _looked_at(key: str, value: object) -> Iterator[None]:
    """Say which value it was that the file system could not take."""
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigError(f"{key} is {shown(value)}: {reason}; correct it") from None
