"""What a configuration asks for, spelled out: models, experts, blocks and the tasks in each."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from taskgrid.config.architectures import image_size
from taskgrid.config.schema import Config, MethodSpec, ModelSpec, SubsetSpec, TaskSpec
from taskgrid.errors import ConfigError
from taskgrid.lattice import (
    Block,
    all_numbers,
    blocks_of,
    numbers_of_sizes,
    sample_numbers,
    subset_name,
    subset_number,
    subset_of_number,
)

_MOST_SUBSETS = 1 << 16


class Experiment:
    """A validated configuration with the questions that rules ask of it."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._models = {model.name: model for model in config.models}
        self._tasks = {task.name: task for task in config.tasks}
        self._methods = {method.path_name: method for method in config.grid.methods}

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the base models."""
        return tuple(self._models)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks, in the configuration's order: task ``i`` is bit ``i``."""
        return tuple(self._tasks)

    @property
    def modes(self) -> tuple[str, ...]:
        """Fine-tuning modes."""
        return tuple(self.config.finetune.modes)

    @property
    def seeds(self) -> tuple[int, ...]:
        """Fine-tuning seeds."""
        return tuple(self.config.finetune.seeds)

    @property
    def methods(self) -> tuple[str, ...]:
        """Labels of the merge methods."""
        return tuple(self._methods)

    def model(self, name: str) -> ModelSpec:
        """Return a base model's specification."""
        return self._models[name]

    def task(self, name: str) -> TaskSpec:
        """Return a task's specification."""
        return self._tasks[name]

    def method(self, label: str) -> MethodSpec:
        """Return a merge method's specification."""
        return self._methods[label]

    def image_size(self, model: str) -> int:
        """Return the side of a model's images, in pixels."""
        return image_size(self._models[model].architecture)

    def pixels(self, model: str) -> str:
        """Return the name of the decoded images that a model shares with others of its size."""
        return f"{self.image_size(model)}px"

    def lambdas(self, method: str) -> tuple[str, ...]:
        """Return a method's scaling coefficients as text."""
        return self.config.grid.lambdas_of(self._methods[method])

    def recipe(self, task: str) -> dict[str, Any]:
        """Return a task's training recipe as builtins."""
        return self.config.recipe_of(self._tasks[task]).model_dump()

    @cached_property
    def numbers(self) -> tuple[int, ...]:
        """Numbers of the subsets on the grid, increasing.

        Raises:
            ConfigError: if `subsets: all` would mean more than 65,536 subsets.
        """
        subsets, count = self.config.grid.subsets, len(self.tasks)
        if not isinstance(subsets, SubsetSpec):
            if 1 << count > _MOST_SUBSETS:
                raise ConfigError(
                    f"grid.subsets: all means {(1 << count) - 1} subsets of {count} tasks; "
                    "choose sizes, include or sample"
                )
            return tuple(all_numbers(count))
        if subsets.sizes is not None:
            return tuple(numbers_of_sizes(count, subsets.sizes))
        if subsets.sample is not None:
            return sample_numbers(count, subsets.sample.per_size, subsets.sample.seed)
        include: Sequence[Sequence[str]] = subsets.include or []
        return tuple(sorted({subset_number(names, self.tasks) for names in include}))

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """Blocks of the grid that hold at least one subset."""
        return blocks_of(self.numbers, self.config.grid.block_size)

    def block(self, label: str) -> Block:
        """Return a block by its label."""
        return Block.at(int(label), self.config.grid.block_size)

    def subsets(self, block: Block) -> tuple[str, ...]:
        """Return the names of a block's subsets, by increasing number."""
        return tuple(
            subset_name(subset_of_number(number, self.tasks))
            for number in self.numbers
            if block.start <= number < block.stop
        )

    def tasks_of(self, block: Block) -> tuple[str, ...]:
        """Return the tasks that occur in a block's subsets, sorted."""
        union = 0
        for number in self.numbers:
            if block.start <= number < block.stop:
                union |= number
        return subset_of_number(union, self.tasks)
