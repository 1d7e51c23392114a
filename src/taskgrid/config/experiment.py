"""What a configuration asks for, spelled out: models, experts, blocks and the tasks in each."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from taskgrid.config.architectures import (
    features,
    image_size,
    operations,
    parameters,
    weights_fingerprint,
)
from taskgrid.config.methods import check_method
from taskgrid.config.needs import all_statistics, needs_of, tasks_seen
from taskgrid.config.outside import check_outside
from taskgrid.config.root import POSTHOC, Config
from taskgrid.config.sections.experts import ExpertSpec
from taskgrid.config.sections.finetune import ModeSpec
from taskgrid.config.sections.grid import MethodSpec
from taskgrid.config.sections.lattice import LatticeSpec
from taskgrid.config.sections.model import ModelSpec
from taskgrid.config.sections.statistics import StatisticSpec
from taskgrid.config.sections.studies import StudySpec
from taskgrid.config.sections.task import TaskSpec
from taskgrid.config.sections.transport import TransportSpec
from taskgrid.config.tasks import files_of, resolved_task
from taskgrid.errors import ConfigError
from taskgrid.lattice.blocks import Block, wide_blocks_of
from taskgrid.lattice.budgets import least_budget
from taskgrid.lattice.points import point_order
from taskgrid.lattice.subsets import parse_subset, subset_name, subset_number, subset_of_number
from taskgrid.plugins.cards import merger_card, mode_card, plugin_options

_GRID = ""
"""Whose subsets those of the grid are: no label of a method."""

_PROBED = 0.3
"""A lambda at which merges of several tasks are about at their best."""


@dataclass(frozen=True)
class Run:
    """A set of experts, one per task: of one base, one mode (or ready-made) and one seed."""

    model: str
    mode: str
    seed: int


class Experiment:
    """A validated configuration with the questions that rules ask of it."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._models = {model.name: model for model in config.models}
        self._tasks = {task.name: resolved_task(task, config) for task in config.tasks}
        self._imports = {expert.name: expert for expert in config.experts}
        self._transports = {each.name: each for each in config.transport}
        self._modes = {mode.path_name: mode for mode in config.finetune.modes}
        self._methods = {method.path_name: method for method in config.grid.methods}
        self._studies = {study.path_name: study for study in config.studies}
        listed = all_statistics(config.statistics, config.grid.methods, config.finetune.modes)
        self._statistics = {spec.path_name: spec for spec in listed}

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the base models."""
        return tuple(self._models)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of all tasks, control tasks among them, in the configuration's order."""
        return tuple(self._tasks)

    @cached_property
    def trained(self) -> tuple[str, ...]:
        """Names of the tasks that have experts, in order: task ``i`` of these is bit ``i``."""
        return tuple(name for name, task in self._tasks.items() if task.expert)

    @property
    def modes(self) -> tuple[str, ...]:
        """Labels of the fine-tuning modes."""
        return tuple(self._modes)

    @property
    def imports(self) -> tuple[str, ...]:
        """Names of the ready-made experts; they stand where labels of modes stand."""
        return tuple(self._imports)

    @property
    def transports(self) -> tuple[str, ...]:
        """Names of the experts of another base; they stand where labels of modes stand."""
        return tuple(self._transports)

    @cached_property
    def runs(self) -> tuple[Run, ...]:
        """Every set of experts as it is evaluated: those of `expert_runs`, and post hoc."""
        again = self.config.evaluation.posthoc
        return self.expert_runs + tuple(
            Run(run.model, POSTHOC, run.seed) for run in self.expert_runs if run.mode == again
        )

    def experts_of(self, mode: str) -> str:
        """Return the mode whose experts a run's mode evaluates: its own, but for `posthoc`."""
        return self.config.evaluation.posthoc or mode if mode == POSTHOC else mode

    def evaluation(self, mode: str) -> str:
        """Say how experts of a mode are evaluated: as they are (`plain`), or as `tangent` models."""
        if mode in self._modes:
            tangent = mode_card(self._modes[mode].name).tangent
        else:
            ready: dict[str, ExpertSpec | TransportSpec] = {**self._imports, **self._transports}
            tangent = mode == POSTHOC or ready[mode].evaluation == "tangent"
        return "tangent" if tangent else "plain"

    @cached_property
    def expert_runs(self) -> tuple[Run, ...]:
        """Every set of experts: each mode with each seed, ready-made ones as seed 0, transported ones."""
        runs = []
        for model in self.models:
            runs += [Run(model, mode, seed) for mode in self.modes for seed in self.seeds]
            runs += [
                Run(model, name, 0)
                for name, spec in self._imports.items()
                if spec.model in (None, model)
            ]
            runs += [
                Run(model, name, spec.seed)
                for name, spec in self._transports.items()
                if spec.to in (None, model)
            ]
        return tuple(runs)

    @property
    def seeds(self) -> tuple[int, ...]:
        """Fine-tuning seeds."""
        return tuple(self.config.finetune.seeds)

    @property
    def methods(self) -> tuple[str, ...]:
        """Labels of the merge methods."""
        return tuple(self._methods)

    def methods_of(self, mode: str) -> tuple[str, ...]:
        """Return the labels of the methods that merge the experts of a run's mode."""
        return tuple(
            label
            for label, method in self._methods.items()
            if method.modes is None or mode in method.modes
        )

    @property
    def studies(self) -> tuple[str, ...]:
        """Labels of the studies."""
        return tuple(self._studies)

    @property
    def statistics(self) -> tuple[str, ...]:
        """Labels of the statistics: those of the configuration, then those that are needed beside them."""
        return tuple(self._statistics)

    def check(self) -> None:
        """Look up what the configuration names outside itself, before any job starts.

        Raises:
            ConfigError: if an architecture, a file of weights, the data of a task or the results of
                another run do not exist, a design of subsets is too large, empty or names what is not
                there, points belong to no subset of the grid, a method lacks weights or merges other
                numbers of tasks, a statistic has no images, the lattice's budget is too small, or a
                recipe is all warm-up.
        """
        for label, method in self._methods.items():
            key = "grid.subsets" if method.subsets is None else f"subsets of method {label!r}"
            self._check_some(key, self.numbers_of(label))
        self._check_points()
        for label, method in self._methods.items():
            merged = {
                mode: spec for mode, spec in self._modes.items() if label in self.methods_of(mode)
            }
            check_method(label, method, self.trained, self.numbers_of(label), merged)
        for label in self.statistics:
            self.tasks_seen(label)
        if self.config.lattice is not None:
            self._check_lattice(self.config.lattice)
        self._check_recipes()
        check_outside(self.config, [*self._tasks.values()])

    def _check_recipes(self) -> None:
        for mode in self.modes:
            for task in self.trained:
                steps, warmup = (self.recipe(task, mode)[key] for key in ("steps", "warmup_steps"))
                if steps is not None and warmup >= steps:
                    raise ConfigError(
                        f"the recipe of task {task!r} in mode {mode!r} has warmup_steps {warmup}, but only "
                        f"{steps} steps; lower the one, or raise the other"
                    )

    def _check_some(self, key: str, numbers: tuple[int, ...]) -> None:
        if not numbers:
            raise ConfigError(
                f"{key} chooses none of the subsets of {len(self.trained)} tasks; correct its sizes or "
                "lists"
            )

    def _check_points(self) -> None:
        for label, method in self._methods.items():
            # Those of the grid are for whatever method merges their tasks.
            there = {*(self.numbers if method.points is None else self.numbers_of(label))}
            for subset in map(dict, self.config.grid.entries_of(method)):
                if subset_number(subset, self.trained) not in there:
                    raise ConfigError(
                        f"method {label!r} has points of {subset_name(subset)}, which is not on the grid; "
                        "add it to grid.subsets.include"
                    )

    def _check_lattice(self, lattice: LatticeSpec) -> None:
        if all(self.evaluation(run.mode) == "tangent" for run in self.runs):
            raise ConfigError(
                "lattice asks for a budget, but all experts are tangent models, whose whole lattice is "
                "exact; leave `lattice` out, or add experts that are evaluated as they are"
            )
        numbers = lattice.design().numbers(self.trained, "lattice.subsets")
        self._check_some("lattice.subsets", numbers)
        # The core is that of the tasks that are measured, and a merge is evaluated once.
        union = 0 if not self.config.evaluation.outside else (1 << len(self.trained)) - 1
        for number in numbers:
            union |= number
        larger = sum(number.bit_count() > 2 for number in numbers)
        needed = least_budget(union.bit_count(), larger, lattice.audit)
        if lattice.budget < needed:
            raise ConfigError(
                f"lattice.budget is {lattice.budget}, but {union.bit_count()} tasks and the audit of "
                f"{lattice.audit} need {needed}: the base, all tasks and pairs, and the audit"
            )

    def model(self, name: str) -> ModelSpec:
        """Return a base model's specification."""
        return self._models[name]

    def task(self, name: str) -> TaskSpec:
        """Return a task's specification."""
        return self._tasks[name]

    def imported(self, name: str) -> ExpertSpec:
        """Return the specification of ready-made experts."""
        return self._imports[name]

    def transport(self, name: str) -> TransportSpec:
        """Return the specification of experts of another base."""
        return self._transports[name]

    def parameters(self, model: str) -> int:
        """Return the number of parameters of a model's image tower."""
        return parameters(self._models[model].architecture)

    def features(self, model: str) -> int:
        """Return the dimension of a model's features."""
        return features(self._models[model].architecture)

    def operations(self, model: str) -> int:
        """Return the multiply-adds that a model's image tower takes for an image."""
        return operations(self._models[model].architecture)

    def mode(self, label: str) -> ModeSpec:
        """Return a fine-tuning mode's specification."""
        return self._modes[label]

    def method(self, label: str) -> MethodSpec:
        """Return a merge method's specification."""
        return self._methods[label]

    def study(self, label: str) -> StudySpec:
        """Return a study's specification."""
        return self._studies[label]

    def statistic(self, label: str) -> StatisticSpec:
        """Return a statistic's specification."""
        return self._statistics[label]

    def tasks_seen(self, label: str) -> tuple[str, ...]:
        """Return the tasks whose images a statistic is computed on."""
        return tasks_seen(self._statistics[label], self.tasks, self.trained)

    def needs(self, method: str) -> dict[str, str]:
        """Return the statistics that a merge method needs: name -> label of the one it takes."""
        return needs_of(self._methods[method], self.config.statistics)

    def learns(self, method: str) -> bool:
        """Return whether a merge method learns, with its options."""
        spec = self._methods[method]
        options = plugin_options("merger", spec.name, spec.options)
        return merger_card(spec.name).learns(options)

    def mode_needs(self, mode: str) -> dict[str, str]:
        """Return the statistics of other tasks that a fine-tuning mode needs: name -> label."""
        return needs_of(self._modes[mode], self.config.statistics)

    def image_size(self, model: str) -> int:
        """Return the side of a model's images, in pixels."""
        return image_size(self._models[model].architecture)

    def pixels(self, model: str) -> str:
        """Return the name of the decoded images that a model shares with others of its size."""
        return f"{self.image_size(model)}px"

    def weights_fingerprint(self, model: str) -> str:
        """Return a digest of a model's weights where they are a local file, else its tag."""
        spec = self._models[model]
        return weights_fingerprint(spec.architecture, spec.pretrained)

    def lambdas(self, method: str) -> tuple[str, ...]:
        """Return a method's coefficients as text, increasing: lambdas, thresholds, or ``1.00`` alone."""
        return self.config.grid.lambdas_of(self._methods[method])

    def points(self, method: str, subset: str | tuple[str, ...]) -> tuple[str, ...]:
        """Return the sweep of a method on a subset as text, points of these very tasks last.

        Args:
            method: its label.
            subset: its name, or its tasks.
        """
        tasks = parse_subset(subset) if isinstance(subset, str) else tuple(sorted(subset))
        own = self.config.grid.points_of(self._methods[method]).get(tasks, ())
        return tuple(sorted({*self.lambdas(method), *own}, key=point_order))

    def probe(self) -> tuple[str, str]:
        """Return the method and the lambda that a precision is proven with.

        The method is the first that needs nothing but experts, or the first of all where none does.
        """
        plain = [label for label in self.methods if not self.learns(label)]
        method = (plain or self.methods)[0]
        moving = [scale for scale in self.lambdas(method) if float(scale)]
        return method, min(moving, key=lambda scale: abs(float(scale) - _PROBED), default="0.00")

    def files_of(self, task: str) -> tuple[str, ...]:
        """Return the files and folders that a task's images, class names and prompts come from.

        Published images are not among them: the download rule looks after those.
        """
        return files_of(self._tasks[task])

    def recipe(self, task: str, mode: str) -> dict[str, Any]:
        """Return the recipe by which a task's expert is trained in a mode, as builtins."""
        return asdict(self.config.recipe_of(self._tasks[task], self._modes[mode]))

    @cached_property
    def numbers(self) -> tuple[int, ...]:
        """Numbers of all subsets that any method merges, increasing.

        Raises:
            ConfigError: if there would be more than 65,536 of a method.
        """
        return tuple(sorted({number for found in self._numbers.values() for number in found}))

    def numbers_of(self, method: str) -> tuple[int, ...]:
        """Numbers of the subsets that a method merges, increasing."""
        return self._numbers[self._shared(method)]

    def blocks(self, method: str) -> tuple[Block, ...]:
        """Blocks of a method's subsets; each holds at least one."""
        return self._blocks[self._shared(method)]

    def block(self, label: str) -> Block:
        """Return a block by its label."""
        return Block.parse(label, self.config.grid.block_size)

    def subsets(self, method: str, block: Block | None = None) -> tuple[str, ...]:
        """Return the names of the subsets that a method merges, or those of a block, by increasing number."""
        numbers = self.numbers_of(method)
        if block is not None:
            numbers = numbers[bisect_left(numbers, block.start) : bisect_left(numbers, block.stop)]
        return tuple(subset_name(subset_of_number(number, self.trained)) for number in numbers)

    def _shared(self, method: str) -> str:
        # Methods without subsets of their own share the grid's, which are counted once.
        return method if self._methods[method].subsets is not None else _GRID

    @cached_property
    def _numbers(self) -> dict[str, tuple[int, ...]]:
        grid = self.config.grid
        designs = {
            self._shared(label): grid.design_of(spec) for label, spec in self._methods.items()
        }
        return {shared: design.numbers(self.trained) for shared, design in designs.items()}

    @cached_property
    def _blocks(self) -> dict[str, tuple[Block, ...]]:
        size = self.config.grid.block_size
        return {shared: wide_blocks_of(found, size) for shared, found in self._numbers.items()}
