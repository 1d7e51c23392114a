"""Whether merge methods fit what they are to merge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from taskgrid.config.sections.finetune import ModeSpec
from taskgrid.config.sections.grid import MethodSpec
from taskgrid.errors import ConfigError
from taskgrid.lattice.subsets import subset_name, subset_of_number
from taskgrid.plugins.cards import merger_card, mode_card


def check_methods(
    methods: Mapping[str, MethodSpec],
    trained: tuple[str, ...],
    numbers: Sequence[int],
    modes: Mapping[str, ModeSpec],
) -> None:
    """Check methods against the tasks and subsets of the grid.

    Args:
        methods: by label.
        trained: the tasks that are merged.
        numbers: the subsets on the grid.
        modes: how experts are trained, by label.

    Raises:
        ConfigError: if weights by task lack one, an option counts more tasks than any subset has, a method
            merges another number of tasks than a subset has, or it merges factors and a mode has none.
    """
    for label, method in methods.items():
        card = merger_card(method.name)
        for name, option in card.options.items():
            given = method.options.get(name) if option.shape == "numbers" else None
            if given and (lacking := sorted({*trained} - {*given})):
                raise ConfigError(
                    f"option {name!r} of method {label!r} lacks task {lacking[0]!r}; name every task"
                )
            counted = method.options.get(name) if option.counts_tasks else None
            if counted and counted > (largest := max(map(int.bit_count, numbers), default=0)):
                raise ConfigError(
                    f"option {name!r} of method {label!r} is {counted}, but no subset on the grid has more "
                    f"than {largest} tasks; give at most {largest}"
                )
        for mode, spec in modes.items() if card.factors else ():
            if not mode_card(spec.name).factors:
                raise ConfigError(
                    f"method {label!r} merges LoRA experts only, but mode {mode!r} trains others; leave one "
                    "of them out, or give them an experiment each"
                )
        for number in numbers if card.tasks is not None else ():
            if number.bit_count() != card.tasks:
                subset = subset_name(subset_of_number(number, trained))
                raise ConfigError(
                    f"method {label!r} merges {card.tasks} tasks, but {subset} is on the grid; write "
                    f"grid.subsets: {{sizes: [{card.tasks}]}}, or leave the method out"
                )
