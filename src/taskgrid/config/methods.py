"""Whether merge methods fit what they are to merge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from taskgrid.config.sections.finetune import ModeSpec
from taskgrid.config.sections.grid import MethodSpec
from taskgrid.errors import ConfigError
from taskgrid.lattice.subsets import subset_name, subset_of_number
from taskgrid.plugins.cards import merger_card, mode_card, plugin_options


def check_method(
    label: str,
    method: MethodSpec,
    trained: tuple[str, ...],
    numbers: Sequence[int],
    modes: Mapping[str, ModeSpec],
) -> None:
    """Check a method against the tasks and subsets that it merges.

    Args:
        label: its name in paths and tables.
        method: the method.
        trained: the tasks that are merged.
        numbers: its subsets.
        modes: how experts that it merges are trained, by label.

    Raises:
        ConfigError: if weights by task lack one, or add up to zero over a subset where they are divided by
            that; an option counts more tasks than any subset has; a method merges another number of tasks
            than a subset has, or it merges factors and a mode has none.
    """
    _check_options(label, method, trained, numbers)
    card = merger_card(method.name)
    for mode, spec in modes.items() if card.factors else ():
        if not mode_card(spec.name).factors:
            raise ConfigError(
                f"method {label!r} merges LoRA experts only, but mode {mode!r} trains others; name "
                "the others in the method's `modes`"
            )
    for number in numbers if card.tasks is not None else ():
        if number.bit_count() != card.tasks:
            subset = subset_name(subset_of_number(number, trained))
            raise ConfigError(
                f"method {label!r} merges {card.tasks} tasks, but {subset} is on the grid; give it "
                f"`subsets: {{sizes: [{card.tasks}]}}`"
            )


def _check_options(
    label: str, method: MethodSpec, trained: tuple[str, ...], numbers: Sequence[int]
) -> None:
    """Check what options say by task, or of a number of tasks."""
    options = plugin_options("merger", method.name, method.options)
    for name, option in merger_card(method.name).options.items():
        given: Mapping[str, float] = (options[name] if option.shape == "numbers" else None) or {}
        if given and (lacking := sorted({*trained} - {*given})):
            raise ConfigError(
                f"option {name!r} of method {label!r} lacks task {lacking[0]!r}; name every task"
            )
        for number in numbers if given and option.divided(options) else ():
            tasks = subset_of_number(number, trained)
            if sum(given[task] for task in tasks) == 0:
                raise ConfigError(
                    f"option {name!r} of method {label!r} adds up to zero over {subset_name(tasks)}, "
                    "which nothing can be divided by; change a weight, or leave that subset out"
                )
        counted = method.options.get(name) if option.counts_tasks else None
        if counted and counted > (largest := max(map(int.bit_count, numbers), default=0)):
            raise ConfigError(
                f"option {name!r} of method {label!r} is {counted}, but no subset on the grid has more "
                f"than {largest} tasks; give at most {largest}"
            )
