"""The configuration's schema; `docs/configuration.md` is made from it."""

from __future__ import annotations

import contextlib
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    Tag,
    field_validator,
    model_validator,
)

from taskgrid import plugins
from taskgrid.config.shipped import published_lineages, published_names
from taskgrid.errors import ConfigError
from taskgrid.lattice.budgets import least_audit
from taskgrid.lattice.designs import Design, Sample
from taskgrid.lattice.nodes import node_levels
from taskgrid.lattice.points import format_lambda
from taskgrid.lattice.subsets import TASK_NAME
from taskgrid.plugins.cards import mode_card

Item = TypeVar("Item")

POSTHOC = "posthoc"
"""The mode, in paths and tables, of experts of another mode that are evaluated as tangent models."""


def _number(value: Any) -> Any:
    if isinstance(value, str):
        hint = ""
        with contextlib.suppress(ValueError):
            hint = (
                f"; write {float(value)!r}"
                if "e" not in value.lower()
                else "; write 1.0e-5, not 1e-5"
            )
        raise ValueError(f"this is text, but must be a number{hint}")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("this must be a number")
    return value


def _batch(value: Any) -> Any:
    # Looked at before the union is, which would say one sentence per alternative.
    if value != "auto" and (type(value) is not int or value < 1):
        raise ValueError("write a whole number of 1 or more, or auto")
    return value


Number = Annotated[float, BeforeValidator(_number)]
Name = Annotated[StrictStr, Field(pattern=f"^{TASK_NAME.pattern}$", max_length=64)]
Fraction = Annotated[Number, Field(gt=0, lt=1)]
Positive = Annotated[StrictInt, Field(ge=1)]
Batch = Annotated[Positive | Literal["auto"], BeforeValidator(_batch)]
Natural = Annotated[StrictInt, Field(ge=0)]


class Section(BaseModel):
    """A part of the configuration: unknown keys are refused, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelSpec(Section):
    """A base model: theta_0 and its text tower."""

    name: Name = Field(description="Name in paths and tables.")
    architecture: StrictStr = Field(
        description="An open_clip architecture (`ViT-B-32-quickgelu`) or a model config shipped in "
        "`resources/models` (`taskgrid-vit-4`)."
    )
    pretrained: StrictStr = Field(
        description="An open_clip tag (`openai`), a shipped tag (`s0`), the path of a safetensors "
        "file, `hf-hub:owner/name@revision`, or `random`: weights that nobody trained, to try a "
        "machine."
    )


class RecipeSpec(Section):
    """How an expert is trained. Give `steps` or `epochs`."""

    steps: Positive | None = Field(None, description="Optimiser steps; excludes `epochs`.")
    epochs: Positive | None = Field(
        None, description="Passes over the training split; excludes `steps`."
    )
    batch_size: Positive = Field(128, description="Images per optimiser step.")
    accumulate: Positive = Field(
        1, description="Micro-batches per optimiser step; divides `batch_size`."
    )
    lr: Annotated[Number, Field(gt=0)] = Field(1e-5, description="Peak learning rate of AdamW.")
    weight_decay: Annotated[Number, Field(ge=0)] = Field(0.1, description="Decoupled weight decay.")
    warmup_steps: Natural = Field(
        500, description="Steps of linear warm-up, before the cosine decay to zero."
    )
    clip_norm: Annotated[Number, Field(gt=0)] = Field(
        1.0, description="Largest L2 norm of the gradient."
    )
    crop_scale: Annotated[Number, Field(gt=0, le=1)] = Field(
        0.9,
        description="Smallest area of the random crop, as a share of the image; 1 turns it off.",
    )
    label_smoothing: Annotated[Number, Field(ge=0, lt=1)] = Field(
        0.0, description="Label smoothing of the cross-entropy."
    )
    precision: Literal["fp32", "bf16"] = Field(
        "fp32",
        description="`bf16` runs the encoder under autocast, on any device; weights and head stay fp32.",
    )
    eval_every: Positive | None = Field(
        None, description="Steps between validations; null validates after each epoch."
    )

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if self.steps is not None and self.epochs is not None:
            raise ValueError("give `steps` or `epochs`, not both (set the other one to null)")
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"accumulate {self.accumulate} does not divide batch_size {self.batch_size}"
            )
        return self


class TaskSpec(Section):
    """A classification task: where its images come from, and how its classes are called."""

    name: Name = Field(description="Name in paths, subsets and tables.")
    source: StrictStr = Field(
        "builtin",
        description="Where the images come from: `builtin`, `published` (a data set of the "
        "literature, see `docs/datasets.md`), `folder`, `npz` or `parquet`. May be left out of the "
        "first two: the task's name says it.",
    )
    path: StrictStr | None = Field(
        None,
        description="Folder or file of the source. `builtin` has none; of a `published` task it is "
        "the folder of its original files, or the Hugging Face cache (null: the usual one).",
    )
    limit: Positive | None = Field(
        None,
        description="At most so many images of each of the source's own splits, drawn with seed 0; "
        "null takes all.",
    )
    classes: list[StrictStr] | StrictStr | None = Field(
        None, description="Class names in label order, or the path of a .json or .txt file of them."
    )
    templates: list[StrictStr] | StrictStr | None = Field(
        None, description="Prompt templates with `{}` for the class name, or a file of them."
    )
    allow_overlap: StrictBool = Field(
        False, description="Accept images that stand in two of the source's own splits."
    )
    options: dict[StrictStr, Any] = Field(
        {}, description="Options of the source, e.g. column names of Parquet files."
    )
    finetune: dict[StrictStr, Any] = Field(
        {}, description="Keys of `finetune.recipe` that differ for this task."
    )

    @model_validator(mode="before")
    @classmethod
    def _source_by_name(cls, value: Any) -> Any:
        if isinstance(value, dict) and "source" not in value:
            published = value.get("name") in published_names()
            return {**value, "source": "published" if published else "builtin"}
        return value

    @field_validator("source")
    @classmethod
    def _known_source(cls, value: str) -> str:
        if value not in plugins.names("source"):
            raise ValueError(f"allowed: {', '.join(plugins.names('source'))}")
        return value

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.source == "builtin" and self.name not in plugins.names("builtin"):
            raise ValueError(
                f"there is no built-in task {self.name!r} and no published one; built in: "
                f"{', '.join(plugins.names('builtin'))}; published: {', '.join(published_names())} "
                "(a task of your own needs `source` and `path`)"
            )
        if self.source == "published" and self.dataset not in published_names():
            raise ValueError(
                f"task {self.name!r}: there is no published data set {self.dataset!r}; "
                f"`options.dataset` is one of {', '.join(published_names())}"
            )
        if self.source not in ("builtin", "published") and self.path is None:
            raise ValueError(f"task {self.name!r} has source {self.source!r} and needs `path`")
        return self

    @property
    def dataset(self) -> str:
        """The data set behind a published task."""
        return str(self.options.get("dataset", self.name))


class DataSpec(Section):
    """Where the images of published tasks come from, for all of them at once."""

    layout: Literal["hub", "original"] = Field(
        "hub", description="Parquet files of the Hugging Face hub, or the owners' own files."
    )
    folder: StrictStr | None = Field(
        None,
        description="`original`: the folder of the data sets, as docs/datasets.md lays it out "
        "(null: `data`). `hub`: the Hugging Face cache (null: the usual one).",
    )
    limit: Positive | None = Field(
        None, description="`limit` of every task that has none of its own, e.g. to try things out."
    )
    prompts: StrictStr | None = Field(
        None,
        description="A lineage whose class names and templates are taken where they differ from the "
        "papers' (`fusion_bench`, `tall_masks`).",
    )


class SplitSpec(Section):
    """How validation is cut from the training images when a source has none of its own."""

    fraction: Fraction = Field(0.1, description="Share of the training images.")
    limit: Positive = Field(5000, description="Largest number of validation images.")
    seed: Natural = Field(0, description="Seed of the permutation.")


class PluginSpec(Section):
    """A plug-in with its options."""

    kind: ClassVar[plugins.Kind]

    name: StrictStr = Field(description="The registered name.")
    label: Name | None = Field(
        None, description="Name in paths; needed when the same one stands twice with other options."
    )
    options: dict[StrictStr, Any] = Field({}, description="Its options.")

    @field_validator("name")
    @classmethod
    def _known_name(cls, value: str) -> str:
        if value not in plugins.names(cls.kind):
            raise ValueError(f"allowed: {', '.join(plugins.names(cls.kind))}")
        return value

    @property
    def path_name(self) -> str:
        """The label, or the name where there is none."""
        return self.label or self.name


class ModeSpec(PluginSpec):
    """A fine-tuning mode (`standard`, ...) with its options."""

    kind = "mode"


class CheckSpec(Section):
    """When a ready-made expert is believed: it must reproduce its own task."""

    tolerance: Annotated[Number, Field(ge=0, lt=1)] = Field(
        0.02,
        description="How far the accuracy on the task's test images, with its 95 % interval, may "
        "lie below the expected one.",
    )
    expected: dict[Name, Annotated[Number, Field(gt=0, le=1)]] = Field(
        {},
        description="Accuracy per task as published, from 0 to 1; a task without one must at least "
        "match the base's zero-shot accuracy.",
    )


class ExpertSpec(Section):
    """Ready-made experts, fine-tuned elsewhere: one for each task, checked before they are merged."""

    name: Name = Field(description="Stands where a mode stands in paths and tables.")
    format: Literal["transformers", "open_clip", "task_vectors"] = Field(
        description="How the checkpoints are laid out: `transformers`, `open_clip` or "
        "`task_vectors` (pickles, read as tensors only)."
    )
    source: StrictStr = Field(
        description="A repository of the Hugging Face hub, or a path; `{task}` stands for the "
        "task's name, e.g. `tanganke/clip-vit-base-patch32_{task}`."
    )
    revision: StrictStr | None = Field(
        None,
        description="Commit of the repository. Null resolves `main` at the first download and keeps "
        "to the commit found.",
    )
    revisions: dict[Name, StrictStr] = Field(
        {}, description="Commits by task, where each task has a repository of its own."
    )
    file: StrictStr | None = Field(
        None, description="File in the repository, with `{task}`; null finds it by the format."
    )
    names: dict[Name, StrictStr] = Field(
        {}, description="What `{task}` is replaced by, where it is not the task's own name."
    )
    model: Name | None = Field(None, description="The base model, where there are several.")
    evaluation: Literal["plain", "tangent"] = Field(
        "plain", description="`tangent` for experts that were trained in the tangent space."
    )
    check: CheckSpec = Field(default_factory=CheckSpec, description="When they are believed.")

    def place(self, task: str) -> str:
        """Return the repository or path of a task's expert."""
        return self.source.replace("{task}", self.names.get(task, task))

    def revision_of(self, task: str) -> str | None:
        """Return the commit at which a task's expert is taken; None is the newest."""
        return self.revisions.get(task, self.revision)

    def file_of(self, task: str) -> str | None:
        """Return the file of a task's expert in its repository, where the configuration says it."""
        return self.file and self.file.replace("{task}", self.names.get(task, task))


class FinetuneSpec(Section):
    """Which experts are trained."""

    modes: list[ModeSpec] = Field(
        ["standard"],
        validate_default=True,
        description="Fine-tuning modes; a bare name will do. May be empty beside `experts`.",
    )
    seeds: list[Natural] = Field([0], min_length=1, description="Seeds.")
    recipe: RecipeSpec = Field(default_factory=RecipeSpec, description="The training recipe.")
    recipes: dict[Name, dict[StrictStr, Any]] | None = Field(
        None, description="Keys of the recipe that differ for a task, by the task's name."
    )
    checkpoint_seconds: Annotated[Number, Field(ge=0)] = Field(
        60, description="Time between the checkpoints from which a killed training resumes."
    )

    @field_validator("modes", mode="before")
    @classmethod
    def _names_are_modes(cls, value: Any) -> Any:
        return _expand(value)

    @field_validator("modes")
    @classmethod
    def _distinct_labels(cls, value: list[ModeSpec]) -> list[ModeSpec]:
        _unique([mode.path_name for mode in value])
        return value

    @field_validator("seeds")
    @classmethod
    def _unique_seeds(cls, value: list[int]) -> list[int]:
        return _unique(value)


class LambdaRange(Section):
    """Evenly spaced scaling coefficients, both ends included."""

    start: Number = Field(description="First value.")
    stop: Number = Field(description="Last value.")
    step: Annotated[Number, Field(gt=0)] = Field(description="Distance between neighbours.")

    def values(self) -> list[Decimal]:
        """Return the values as exact decimals."""
        start, stop, step = (Decimal(str(x)) for x in (self.start, self.stop, self.step))
        count = int((stop - start) / step)
        return [start + i * step for i in range(count + 1)]

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.stop < self.start:
            raise ValueError(f"stop {self.stop} is below start {self.start}")
        return self


def _shape(value: Any) -> str | None:
    if isinstance(value, dict | BaseModel):
        return "<mapping>"
    if isinstance(value, list | tuple):
        return "<list>"
    return "<text>" if isinstance(value, str) else None


Lambdas = Annotated[
    Annotated[LambdaRange, Tag("<mapping>")] | Annotated[list[Number], Tag("<list>")],
    Discriminator(
        _shape,
        custom_error_type="shape",
        custom_error_message="write a list of numbers, or a mapping with start, stop and step",
    ),
]


class SampleSpec(Section):
    """A seeded sample of subsets, stratified by size: give `per_size` or `total`."""

    per_size: Positive | None = Field(
        None, description="Subsets of each size (all, when there are fewer)."
    )
    total: Positive | None = Field(
        None,
        description="Subsets in all, spread evenly over the sizes: as many as there are tasks, or more.",
    )
    seed: Natural = Field(0, description="Seed of the sample.")
    keep: list[Positive] = Field(
        [],
        description="Numbers of tasks: what the sample was when there were so many stays on the grid.",
    )

    @model_validator(mode="after")
    def _one_amount(self) -> Self:
        if (self.per_size is None) == (self.total is None):
            raise ValueError("give `per_size` or `total`, and not both")
        return self


class SubsetSpec(Section):
    """A choice of subsets: the union of what the keys name, at least one of them."""

    sizes: list[Positive] | None = Field(None, description="All subsets of these sizes.")
    up_to: Positive | None = Field(None, description="All subsets of at most so many tasks.")
    leave_out: Natural | None = Field(
        None, description="All subsets that leave out at most so many tasks, and the full set."
    )
    include: list[list[Name]] | None = Field(None, description="These subsets, as lists of tasks.")
    sample: SampleSpec | None = Field(None, description="A seeded sample.")

    @model_validator(mode="after")
    def _something(self) -> Self:
        if all(getattr(self, name) is None for name in type(self).model_fields):
            raise ValueError(f"give at least one of {', '.join(type(self).model_fields)}")
        return self

    def design(self) -> Design:
        """Return the design that these keys describe."""
        drawn = self.sample
        sample = (
            Sample(drawn.per_size, drawn.total, drawn.seed, tuple(drawn.keep)) if drawn else None
        )
        return Design(
            sizes=tuple(self.sizes or ()),
            up_to=self.up_to,
            leave_out=self.leave_out,
            include=tuple(map(tuple, self.include or ())),
            sample=sample,
        )


Subsets = Annotated[
    Annotated[SubsetSpec, Tag("<mapping>")] | Annotated[Literal["all"], Tag("<text>")],
    Discriminator(
        _shape,
        custom_error_type="shape",
        custom_error_message="write all, or a mapping with sizes, up_to, leave_out, include or sample",
    ),
]


def _design(chosen: SubsetSpec | str) -> Design:
    return chosen.design() if isinstance(chosen, SubsetSpec) else Design(everything=True)


def _scales(chosen: LambdaRange | list[float]) -> tuple[str, ...]:
    """Return coefficients as text, in increasing order."""
    values = chosen.values() if isinstance(chosen, LambdaRange) else chosen
    if not values:
        raise ValueError("lambdas is empty; give at least one number")
    texts = [format_lambda(value) for value in values]
    return tuple(sorted(_unique(texts), key=float))


class MethodSpec(PluginSpec):
    """A merge method (`task_arithmetic`, `average`, ...) with its options."""

    kind = "merger"

    lambdas: Lambdas | None = Field(None, description="Scaling coefficients, if not the grid's.")


class GridSpec(Section):
    """The grid: methods x subsets x lambdas."""

    methods: list[MethodSpec] = Field(
        min_length=1, description="Merge methods; a bare name will do."
    )
    subsets: Subsets = Field(
        "all",
        description="`all`, or a union of `sizes`, `up_to`, `leave_out`, `include`, `sample`.",
    )
    lambdas: Lambdas = Field(description="Scaling coefficients: a list, or start/stop/step.")
    block_size: Positive = Field(
        64, description="Subsets per block at most, a power of two; a block is one job."
    )

    @field_validator("methods", mode="before")
    @classmethod
    def _names_are_methods(cls, value: Any) -> Any:
        return _expand(value)

    @field_validator("block_size")
    @classmethod
    def _power_of_two(cls, value: int) -> int:
        if value & (value - 1):
            raise ValueError(
                "use a power of two (blocks then keep their place when a task is added)"
            )
        return value

    @model_validator(mode="after")
    def _distinct_labels(self) -> Self:
        labels = [method.path_name for method in self.methods]
        for label in labels:
            if labels.count(label) > 1:
                raise ValueError(f"method {label!r} stands twice; give each a `label` of its own")
        for method in self.methods:
            self.lambdas_of(method)
        return self

    def design(self) -> Design:
        """Return which subsets are on the grid."""
        return _design(self.subsets)

    def lambdas_of(self, method: MethodSpec) -> tuple[str, ...]:
        """Return a method's scaling coefficients as text, in increasing order."""
        return _scales(method.lambdas if method.lambdas is not None else self.lambdas)


class LatticeSpec(Section):
    """A lattice on a budget: some merges evaluated, the others predicted, the error stated."""

    budget: Positive = Field(
        description="Merges that are evaluated: the base, all tasks and pairs, and at least the audit."
    )
    lambdas: Lambdas = Field(description="Scaling coefficients; each has a budget of its own.")
    subsets: Subsets = Field("all", description="Which merges are asked for; as in `grid.subsets`.")
    audit: Positive = Field(20, description="Merges of the budget that are a random sample.")
    level: Fraction = Field(0.95, description="How often bounds and intervals hold.")
    seed: Natural = Field(0, description="Seed of the sample.")
    split: Literal["val", "test"] = Field("val", description="Which images.")

    @model_validator(mode="after")
    def _merges(self) -> Self:
        if not all(float(scale) for scale in self.scales()):
            raise ValueError("at lambda 0 every merge is the base; give other lambdas")
        if self.audit < (needed := least_audit(self.level)):
            raise ValueError(
                f"an audit of {self.audit} merges says nothing at level {self.level:g}; "
                f"audit at least {needed}, or lower the level"
            )
        return self

    def design(self) -> Design:
        """Return which merges are asked for."""
        return _design(self.subsets)

    def scales(self) -> tuple[str, ...]:
        """Return the coefficients as text, increasing."""
        return _scales(self.lambdas)


class CurvesSpec(Section):
    """Interpolated sweeps over lambda: docs/studies/interpolation.md."""

    interpolate: StrictBool = Field(
        False, description="Evaluate few coefficients and interpolate the others, with a bound."
    )
    nodes: Annotated[StrictInt, Field(ge=5)] = Field(
        7, description="Coefficients that are evaluated first."
    )
    tolerance: Annotated[Number, Field(ge=0, lt=1)] = Field(
        0.005, description="Loosest bound on accuracy that an interpolated row may have."
    )


class ProofSpec(Section):
    """What a reduced precision must show before anything is evaluated in it: docs/precision.md."""

    images: Positive = Field(
        512, description="Validation images per task, at most, that pass in both precisions."
    )
    tolerance: Annotated[Number, Field(ge=0, lt=1)] = Field(
        0.01,
        description="Largest difference of an accuracy from fp32, beside what chance explains.",
    )


class EvaluationSpec(Section):
    """How grid points are evaluated."""

    batch_size: Batch = Field(
        "auto",
        description="Images per forward pass; halved when memory runs out. `auto` is 128 on a CPU; on a "
        "GPU it takes what fits into the free memory.",
    )
    compile: StrictBool = Field(
        False,
        description="Whole batches pass through `torch.compile` (CUDA graphs on a GPU). Does not pay on "
        "a CPU, see docs/performance.md; tangent models never do.",
    )
    precision: Literal["fp32", "bf16"] = Field(
        "fp32",
        description="`bf16` runs the encoder under autocast, on any device, once it is proven against "
        "fp32: see `docs/precision.md`.",
    )
    proof: ProofSpec = Field(default_factory=ProofSpec, description="What is asked of `bf16`.")
    posthoc: StrictStr | None = Field(
        None,
        description="A mode (or the name of ready-made experts) whose experts are also evaluated as "
        "tangent models; in paths and tables such a run has the mode `posthoc`.",
    )
    outside: StrictBool = Field(
        False, description="Also evaluate a merge on the tasks outside its subset (test split)."
    )
    curves_on: list[Literal["val", "test"]] = Field(
        ["val"],
        min_length=1,
        description="Splits on which every lambda is evaluated. Selection is on `val` always; "
        "`test` beside it draws curves that were read from the test split.",
    )

    curves: CurvesSpec = Field(
        default_factory=CurvesSpec, description="Interpolation between coefficients."
    )

    @field_validator("curves_on")
    @classmethod
    def _val_is_needed(cls, value: list[str]) -> list[str]:
        if "val" not in value:
            raise ValueError("keep `val` in the list: lambda is selected on it")
        return _unique(value)


class TrackingSpec(Section):
    """The MLflow registry."""

    uri: StrictStr | None = Field(
        None, description="Tracking URI; null is SQLite under `results/`. MLFLOW_TRACKING_URI wins."
    )
    experiment: StrictStr = Field("taskgrid", description="Name of the MLflow experiment.")
    points: StrictBool = Field(
        False, description="Also one child run per grid point, with lambda as a parameter."
    )


class ExportSpec(Section):
    """Grid points as files."""

    max_mb: Positive = Field(
        1024, description="Memory that the tensors of a merge may take while it is written, in MB."
    )


class Config(Section):
    """A whole experiment."""

    models: list[ModelSpec] = Field(min_length=1, description="Base models.")
    tasks: list[TaskSpec] = Field(
        min_length=1,
        description="Tasks; a bare name is a built-in one. Append, to keep what is computed.",
    )
    data: DataSpec = Field(default_factory=DataSpec, description="Images of published tasks.")
    split: SplitSpec = Field(default_factory=SplitSpec, description="The validation split.")
    finetune: FinetuneSpec = Field(default_factory=FinetuneSpec, description="Experts to train.")
    experts: list[ExpertSpec] = Field([], description="Ready-made experts.")
    grid: GridSpec = Field(description="The grid.")
    lattice: LatticeSpec | None = Field(
        None, description="A lattice on a budget, beside the grid; null: none."
    )
    evaluation: EvaluationSpec = Field(default_factory=EvaluationSpec, description="Evaluation.")
    studies: list[StrictStr] = Field(
        ["addition"], min_length=1, description="Questions asked of the grid."
    )
    figures: Literal["all"] | list[StrictStr] = Field("all", description="Figures to draw.")
    published: list[StrictStr] = Field(
        [],
        description="Lineages of published numbers to set beside the run: see `docs/reproduce.md`.",
    )
    tracking: TrackingSpec = Field(default_factory=TrackingSpec, description="MLflow.")
    export: ExportSpec = Field(default_factory=ExportSpec, description="Grid points as files.")
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto",
        description="`auto` takes a free GPU when there is one; results do not depend on it.",
    )

    @field_validator("tasks", mode="before")
    @classmethod
    def _names_are_builtin(cls, value: Any) -> Any:
        return _expand(value)

    @field_validator("studies")
    @classmethod
    def _known_studies(cls, value: list[str]) -> list[str]:
        return _known(value, "study")

    @field_validator("published")
    @classmethod
    def _known_lineages(cls, value: list[str]) -> list[str]:
        for name in value:
            if name not in published_lineages():
                raise ValueError(
                    f"there are no published numbers called {name!r}; allowed: "
                    f"{', '.join(published_lineages())}"
                )
        return _unique(value)

    @field_validator("figures")
    @classmethod
    def _known_figures(cls, value: Any) -> Any:
        return value if value == "all" else _known(value, "figure")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        models = _unique([model.name for model in self.models])
        names = [task.name for task in self.tasks]
        runs = [mode.path_name for mode in self.finetune.modes] + [e.name for e in self.experts]
        _unique([*runs, POSTHOC])
        if self.evaluation.posthoc is not None and self.evaluation.posthoc not in runs:
            raise ValueError(
                f"evaluation.posthoc names {self.evaluation.posthoc!r}; there are: {', '.join(runs)}"
            )
        self._no_tangent_in_bf16()
        if not self.finetune.modes and not self.experts:
            raise ValueError("there are no experts: give `finetune.modes` or `experts`")
        for name in self.finetune.recipes or {}:
            if name not in names:
                raise ValueError(
                    f"finetune.recipes names task {name!r}, which is not in tasks: {', '.join(names)}"
                )
        self._nodes_are_lambdas()
        for expert in self.experts:
            if expert.model is not None and expert.model not in models:
                raise ValueError(
                    f"experts {expert.name!r} belong to model {expert.model!r}, which is not in "
                    f"models: {', '.join(models)}"
                )
        _unique(names)
        for task in self.tasks:
            self.recipe_of(task)
        self._only_these_in_subsets(names)
        return self

    def _only_these_in_subsets(self, names: list[str]) -> None:
        chosen: dict[str, Subsets] = {"grid": self.grid.subsets}
        if self.lattice is not None:
            chosen["lattice"] = self.lattice.subsets
        for key, subsets in chosen.items():
            for subset in (isinstance(subsets, SubsetSpec) and subsets.include) or ():
                for name in subset:
                    if name not in names:
                        raise ValueError(
                            f"{key}.subsets.include names task {name!r}, which is not in tasks: "
                            f"{', '.join(names)}"
                        )

    def _nodes_are_lambdas(self) -> None:
        curves = self.evaluation.curves
        for method in self.grid.methods if curves.interpolate else ():
            try:
                node_levels(self.grid.lambdas_of(method), curves.nodes)
            except ConfigError as error:
                raise ValueError(f"evaluation.curves: {error}") from None

    def _no_tangent_in_bf16(self) -> None:
        if self.evaluation.precision == "fp32":
            return
        tangent = [m.path_name for m in self.finetune.modes if mode_card(m.name).tangent]
        tangent += [e.name for e in self.experts if e.evaluation == "tangent"]
        tangent += [POSTHOC] if self.evaluation.posthoc is not None else []
        if tangent:
            raise ValueError(
                f"evaluation.precision is {self.evaluation.precision}, but {tangent[0]!r} is evaluated "
                "as tangent models, whose derivatives would be off by percents; use fp32, or give "
                "tangent models an experiment of their own"
            )

    def recipe_of(self, task: TaskSpec) -> RecipeSpec:
        """Return a task's recipe: the common one with the task's own keys on top."""
        own = {**(self.finetune.recipes or {}).get(task.name, {}), **task.finetune}
        if own.get("epochs") is not None:
            own.setdefault("steps", None)
        if own.get("steps") is not None:
            own.setdefault("epochs", None)
        allowed = RecipeSpec.model_fields
        for key in own:
            if key not in allowed:
                raise ValueError(
                    f"unknown key {key!r} in finetune of task {task.name!r}; allowed: {', '.join(allowed)}"
                )
        recipe = RecipeSpec.model_validate({**self.finetune.recipe.model_dump(), **own})
        if recipe.steps is None and recipe.epochs is None:
            raise ValueError(f"the recipe of task {task.name!r} needs `steps` or `epochs`")
        return recipe


def _expand(value: Any) -> Any:
    """Read a bare name in a list as a mapping that has a name and nothing else."""
    if isinstance(value, list):
        return [{"name": item} if isinstance(item, str) else item for item in value]
    return value


def _known(values: list[str], kind: plugins.Kind) -> list[str]:
    for value in values:
        if value not in plugins.names(kind):
            raise ValueError(f"{value!r} is unknown; allowed: {', '.join(plugins.names(kind))}")
    return _unique(values)


def _unique(values: list[Item]) -> list[Item]:
    for value in values:
        if values.count(value) > 1:
            raise ValueError(f"{value!r} stands twice; keep one")
    return values
