"""Which statistics there are, and which of them a method or a mode takes."""

from __future__ import annotations

from collections.abc import Sequence

from taskgrid import plugins
from taskgrid.config.sections.plugin import NeedySpec
from taskgrid.config.sections.statistics import StatisticSpec
from taskgrid.errors import ConfigError
from taskgrid.plugins.cards import merger_card, mode_card, plugin_options, statistic_card
from taskgrid.plugins.registry import NOUNS
from taskgrid.sentences import choices


def needs_of(spec: NeedySpec, listed: Sequence[StatisticSpec]) -> dict[str, str]:
    """Return the statistics that a method or a mode needs: name -> label of the one it takes.

    Args:
        spec: the method or mode.
        listed: the configured statistics; one that is not among them has its name for a label.

    Raises:
        ConfigError: if there is no such statistic, or which one is meant is not said, or wrongly.
    """
    owner = f"{NOUNS[spec.kind]} {spec.path_name!r}"
    needed = _needed(spec)
    for name in spec.statistics:
        if name not in needed:
            raise ConfigError(
                f"{owner} has {name!r} under `statistics`, but does not need it; "
                f"{choices(name, needed, 'it needs')}"
            )
    return {name: _label(owner, name, spec.statistics.get(name), listed) for name in needed}


def all_statistics(
    listed: Sequence[StatisticSpec], *needy: Sequence[NeedySpec]
) -> tuple[StatisticSpec, ...]:
    """Return the configured statistics, then those that somebody needs beside them.

    Args:
        listed: the configured ones.
        *needy: methods and modes.

    Raises:
        ConfigError: as ``needs_of``, or if a label is the name of another statistic that is needed.
    """
    found = {spec.path_name: spec for spec in listed}
    for spec in (spec for specs in needy for spec in specs):
        for name, label in needs_of(spec, listed).items():
            if found.setdefault(label, StatisticSpec(name=name)).name != name:
                raise ConfigError(
                    f"statistics: {label!r} is a label of statistic {found[label].name!r}, but "
                    f"{NOUNS[spec.kind]} {spec.path_name!r} needs the statistic of that name; choose "
                    "another label"
                )
    return tuple(found.values())


def tasks_seen(
    spec: StatisticSpec, tasks: Sequence[str], trained: Sequence[str]
) -> tuple[str, ...]:
    """Return the tasks whose images a statistic is computed on: of one per base, what ``of`` says.

    Args:
        spec: the statistic.
        tasks: all tasks.
        trained: those that have experts.

    Raises:
        ConfigError: if there are none.
    """
    if statistic_card(spec.name).per == "task":
        return tuple(trained)
    of = plugin_options("statistic", spec.name, spec.options).of
    controls = tuple(task for task in tasks if task not in trained)
    found = {"control": controls, "trained": tuple(trained), "all": tuple(tasks)}[of]
    if not found:
        raise ConfigError(
            f"statistic {spec.path_name!r} is computed on images of control tasks, and there are none; add "
            "one (`expert: false`), or say `of: trained` under its options in `statistics`"
        )
    return found


def _needed(spec: NeedySpec) -> tuple[str, ...]:
    if spec.kind == "merger":
        return merger_card(spec.name).needs
    return tuple(name for name in mode_card(spec.name).others if name != "images")


def _label(owner: str, name: str, chosen: str | None, listed: Sequence[StatisticSpec]) -> str:
    known = plugins.names("statistic")
    if name not in known:
        raise ConfigError(
            f"{owner} needs statistic {name!r}, which does not exist; {choices(name, known)}"
        )
    labels = [spec.path_name for spec in listed if spec.name == name]
    if chosen is not None:
        if chosen not in (labels or [name]):
            raise ConfigError(
                f"{owner} takes {name!r} from {chosen!r}; {choices(chosen, labels or [name])}"
            )
        return chosen
    if len(labels) > 1:
        raise ConfigError(
            f"{owner} needs statistic {name!r}, which stands in `statistics` as {', '.join(labels)}; "
            f"say which: `statistics: {{{name}: {labels[0]}}}`"
        )
    return labels[0] if labels else name
