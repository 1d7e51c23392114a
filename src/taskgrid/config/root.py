"""The whole configuration: its sections, and what they ask of each other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, Self

from pydantic import Field, StrictStr, field_validator, model_validator

from taskgrid.config.needs import all_statistics
from taskgrid.config.sections.data import DataSpec, SplitSpec
from taskgrid.config.sections.evaluation import EvaluationSpec
from taskgrid.config.sections.experts import ExpertSpec
from taskgrid.config.sections.export import ExportSpec
from taskgrid.config.sections.finetune import FinetuneSpec, ModeSpec
from taskgrid.config.sections.grid import GridSpec
from taskgrid.config.sections.lattice import LatticeSpec
from taskgrid.config.sections.model import ModelSpec
from taskgrid.config.sections.plugin import distinct, known_name
from taskgrid.config.sections.recipe import RecipeSpec, laid_over
from taskgrid.config.sections.statistics import StatisticSpec
from taskgrid.config.sections.studies import StudySpec
from taskgrid.config.sections.task import TaskSpec
from taskgrid.config.sections.tracking import TrackingSpec
from taskgrid.config.sections.transport import TransportSpec
from taskgrid.config.sections.values import Named, Section, refused, unique
from taskgrid.config.shipped import published_lineages, published_names
from taskgrid.lattice.designs import Design
from taskgrid.lattice.nodes import node_levels
from taskgrid.plugins import names
from taskgrid.plugins.cards import merger_card, mode_card
from taskgrid.sentences import choices, listed, shown, unknown

POSTHOC = "posthoc"
"""The mode, in paths and tables, of experts of another mode that are evaluated as tangent models."""

MOST_TASKS = 256


class Config(Section):
    """A whole experiment."""

    models: list[ModelSpec] = Field(min_length=1)
    """Base models."""
    tasks: Named[TaskSpec] = Field(min_length=1, max_length=MOST_TASKS)
    """Tasks; a bare name is a built-in or published one. Append, to keep what is computed."""
    data: DataSpec = Field(default_factory=DataSpec)
    """Images of published tasks."""
    split: SplitSpec = Field(default_factory=SplitSpec)
    """The validation split."""
    finetune: FinetuneSpec = Field(default_factory=FinetuneSpec)
    """Experts to train."""
    experts: list[ExpertSpec] = Field([])
    """Ready-made experts."""
    transport: list[TransportSpec] = Field([])
    """Experts of another base."""
    statistics: Named[StatisticSpec] = Field([])
    """Statistics of data with options of their own; a bare name will do. What a method or a mode needs and
    this list leaves out is made with its defaults."""
    grid: GridSpec
    """The grid."""
    lattice: LatticeSpec | None = None
    """A lattice on a budget, beside the grid; null: none."""
    evaluation: EvaluationSpec = Field(default_factory=EvaluationSpec)
    """Evaluation."""
    studies: Named[StudySpec] = Field(["addition"], min_length=1, validate_default=True)
    """Questions asked of the grid; a bare name will do. Coefficients that a study tries beside the grid's
    are among its options."""
    figures: Literal["all"] | list[StrictStr] = "all"
    """Figures to draw."""
    figure_width: Literal["column", "page"] = "page"
    """How wide figures are drawn, for print without scaling: a `column` (3.3 in) of a two-column paper, or
    its `page` (6.9 in). Text is 6 pt or larger in both."""
    published: list[StrictStr] = Field([])
    """Lineages of published numbers to set beside the run: see `docs/reproduce.md`."""
    tracking: TrackingSpec = Field(default_factory=TrackingSpec)
    """MLflow."""
    export: ExportSpec = Field(default_factory=ExportSpec)
    """Grid points as files."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` takes a free GPU when there is one; results do not depend on it."""

    @field_validator("statistics", "studies")
    @classmethod
    def _distinct_labels(cls, value: list[Any]) -> list[Any]:
        distinct(value)
        return value

    @field_validator("published")
    @classmethod
    def _known_lineages(cls, value: list[str]) -> list[str]:
        for name in value:
            if name not in published_lineages():
                raise ValueError(
                    unknown("lineage of published numbers", name, published_lineages())
                )
        return unique(value)

    @field_validator("figures")
    @classmethod
    def _known_figures(cls, value: Any) -> Any:
        return value if value == "all" else unique([known_name(name, "figure") for name in value])

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        unique([task.name for task in self.tasks], "tasks: ")
        if not self.trained:
            raise ValueError(
                "all tasks are control tasks (expert: false); keep one that has an expert"
            )
        self._runs_are_known()
        self._no_tangent_in_bf16()
        self._tasks_are_known()
        self._experts_are_apart()
        self._nodes_are_lambdas()
        with refused():
            all_statistics(self.statistics, self.grid.methods, self.finetune.modes)
        modes: list[ModeSpec | None] = [*self.finetune.modes]
        for mode in modes or [None]:
            for task in self.trained:
                self.recipe_of(task, mode)
        return self

    @property
    def trained(self) -> list[TaskSpec]:
        """The tasks that have experts, in order: task ``i`` of these is bit ``i``."""
        return [task for task in self.tasks if task.expert]

    def recipe_of(self, task: TaskSpec, mode: ModeSpec | None) -> RecipeSpec:
        """Return how a task's expert is trained in a mode; None is any mode that changes nothing.

        From bottom to top: ``finetune.recipe``, the mode's card, ``finetune.modes[].recipe``,
        ``finetune.recipes[task]``, ``tasks[].finetune``.
        """
        changes: list[tuple[str, dict[str, Any]]] = []
        if mode is not None:
            changes += [
                (f"the card of mode {mode.name!r}", dict(mode_card(mode.name).recipe)),
                (f"recipe of mode {mode.path_name!r}", mode.recipe),
            ]
        changes += [
            (f"finetune.recipes.{task.name}", (self.finetune.recipes or {}).get(task.name, {})),
            (f"finetune of task {task.name!r}", task.finetune),
        ]
        return laid_over(self.finetune.recipe, changes, task.name)

    def _runs_are_known(self) -> None:
        models = unique([model.name for model in self.models], "models: ")
        runs = [
            *(mode.path_name for mode in self.finetune.modes),
            *(expert.name for expert in self.experts),
            *(transport.name for transport in self.transport),
        ]
        unique([*runs, POSTHOC], "finetune.modes, experts, transport: ")
        if not runs:
            raise ValueError(
                "there are no experts: give `finetune.modes`, `experts` or `transport`"
            )
        again = self.evaluation.posthoc
        if again is not None and again not in runs:
            raise ValueError(f"evaluation.posthoc names {shown(again)}; {choices(again, runs)}")
        there = [*runs, POSTHOC] if again is not None else runs
        for method in self.grid.methods:
            for mode in method.modes or ():
                if mode not in there:
                    raise ValueError(
                        f"merge method {method.path_name!r} merges modes {shown(mode)}, which there are "
                        f"not; {choices(mode, there)}"
                    )
        belong = [(f"experts {expert.name!r}", expert.model) for expert in self.experts]
        belong += [(f"transport {each.name!r}", each.to) for each in self.transport]
        for what, model in belong:
            if model is not None and model not in models:
                raise ValueError(
                    f"{what} belongs to model {model!r}, which is not in models; "
                    f"{choices(model, models)}"
                )

    def _tasks_are_known(self) -> None:
        trained = [task.name for task in self.trained]
        control = {task.name for task in self.tasks} - set(trained)
        for key, name in self._named_tasks():
            if name in control:
                raise ValueError(
                    f"{key} names task {name!r}, a control task (expert: false) that is in no subset"
                )
            if name not in trained:
                raise ValueError(
                    f"{key} names task {shown(name)}, which is not in tasks: {listed(trained)}"
                )
        every = [task.name for task in self.tasks]
        for index, each in enumerate(self.transport):
            for name in (each.calibration and each.calibration.tasks) or ():
                if name not in every:
                    raise ValueError(
                        f"transport[{index}].calibration.tasks names task {shown(name)}, which there is not; "
                        f"{choices(name, every)}"
                    )

    def _named_tasks(self) -> Iterator[tuple[str, str]]:
        """Yield every task with an expert that is named elsewhere, and the key that names it."""
        designs: list[tuple[str, object]] = [("grid.subsets.include", self.grid.subsets)]
        designs += [("lattice.subsets.include", self.lattice.subsets)] if self.lattice else []
        designs += [
            (f"subsets of merge method {method.path_name!r}: include", method.subsets)
            for method in self.grid.methods
        ]
        for key, design in designs:
            included = design.include if isinstance(design, Design) else ()
            yield from ((key, name) for subset in included for name in subset)
        for method in self.grid.methods:
            owner = f"of merge method {method.path_name!r}"
            key = "grid.points" if method.points is None else f"points {owner}"
            yield from ((key, name) for entry in self.grid.entries_of(method) for name, _ in entry)
            for option, card in merger_card(method.name).options.items():
                if card.shape == "numbers":
                    named = method.options.get(option) or ()
                    yield from ((f"option {option!r} {owner}", name) for name in named)
        yield from (("finetune.recipes", name) for name in self.finetune.recipes or ())

    def _experts_are_apart(self) -> None:
        # What is published of experts may be said once for experiments of fewer tasks.
        known = {*(task.name for task in self.tasks), *names("builtin"), *published_names()}
        for index, expert in enumerate(self.experts):
            for key, named in expert.by_task().items():
                for name in named:
                    if name not in known:
                        raise ValueError(
                            f"experts[{index}].{key} names task {shown(name)}, which there is not; "
                            f"{choices(name, [task.name for task in self.tasks])}"
                        )
            owners: dict[tuple[str | None, ...], str] = {}
            for task in (task.name for task in self.trained):
                place = (expert.place(task), expert.revision_of(task), expert.file_of(task))
                if (other := owners.setdefault(place, task)) != task:
                    raise ValueError(
                        f"experts[{index}] has one checkpoint, {shown(place[0])}, for tasks {other!r} and "
                        f"{task!r}; put {{task}} into source or file, or correct names"
                    )

    def _nodes_are_lambdas(self) -> None:
        curves = self.evaluation.curves
        for method in self.grid.methods if curves.interpolate else ():
            with refused("evaluation.curves: "):
                node_levels(self.grid.lambdas_of(method), curves.nodes)

    def _no_tangent_in_bf16(self) -> None:
        if self.evaluation.precision == "fp32":
            return
        tangent = [m.path_name for m in self.finetune.modes if mode_card(m.name).tangent]
        ready: list[ExpertSpec | TransportSpec] = [*self.experts, *self.transport]
        tangent += [each.name for each in ready if each.evaluation == "tangent"]
        tangent += [POSTHOC] if self.evaluation.posthoc is not None else []
        if tangent:
            raise ValueError(
                f"evaluation.precision is {self.evaluation.precision}, but {tangent[0]!r} is evaluated "
                "as tangent models, whose derivatives would be off by percents; use fp32, or give "
                "tangent models an experiment of their own"
            )
