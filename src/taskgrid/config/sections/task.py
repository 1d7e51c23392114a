"""Section `tasks`."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, StrictBool, StrictStr, field_validator, model_validator

from taskgrid import plugins
from taskgrid.config.sections.plugin import known_name
from taskgrid.config.sections.recipe import RecipeChanges
from taskgrid.config.sections.values import Name, Place, Positive, Section, Text
from taskgrid.config.shipped import published_names
from taskgrid.sentences import choices, shown


class TaskSpec(Section):
    """A classification task: where its images come from, and how its classes are called."""

    name: Name
    """Name in paths, subsets and tables."""
    source: StrictStr = "builtin"
    """Where the images come from: `builtin`, `published` (a data set of the literature, see
    `docs/datasets.md`), `folder`, `npz` or `parquet`. May be left out of the first two: the task's name
    says it."""
    path: Place | None = None
    """Folder or file of the source. `builtin` has none; of a `published` task it is the folder of its
    original files, or the Hugging Face cache (null: the usual one)."""
    limit: Positive | None = None
    """At most so many images of each of the source's own splits, drawn with seed 0; null takes all."""
    classes: list[Text] | Place | None = None
    """Class names in label order, or the path of a .json or .txt file of them."""
    templates: list[Text] | Place | None = None
    """Prompt templates with `{}` for the class name, or a file of them."""
    allow_overlap: StrictBool = False
    """Accept images that stand in two of the source's own splits, and leave every split as it is: a model
    may then be tested on what it was trained on, as in the papers, who take official splits as they are.
    `published` tasks are always read so, unless `duplicates` says otherwise."""
    duplicates: Literal["refuse", "drop_from_train"] = "refuse"
    """What becomes of training images whose pixels the source's own validation or test images repeat: an
    error, or they are dropped, and the split's manifest lists them."""
    allow_missing_classes: StrictBool = False
    """Accept classes without an image among the source's own validation or test images; without a
    training image none is accepted."""
    options: dict[StrictStr, Any] = Field({})
    """Options of the source, e.g. column names of Parquet files."""
    expert: StrictBool = True
    """false: a control task. It has images and a head, but no expert, and is in no subset; the numbers
    of subsets count the tasks with experts alone, so a control task may come and go anywhere in the
    list."""
    finetune: RecipeChanges = Field({})
    """Keys of `finetune.recipe` that differ for this task."""

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
        return known_name(value, "source")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.source == "builtin" and self.name not in plugins.names("builtin"):
            known = (*plugins.names("builtin"), *published_names())
            raise ValueError(
                f"there is no built-in task {self.name!r} and no published one (a task of your own needs "
                f"`source` and `path`); {choices(self.name, known)}"
            )
        if self.source == "published" and self.dataset not in published_names():
            raise ValueError(
                f"task {self.name!r}: options.dataset is {shown(self.dataset)}, which is no published data "
                f"set; {choices(self.dataset, published_names())}"
            )
        if self.source not in ("builtin", "published") and self.path is None:
            raise ValueError(f"task {self.name!r} has source {self.source!r} and needs `path`")
        if self.allow_overlap and self.duplicates != "refuse":
            raise ValueError(
                f"task {self.name!r} has `allow_overlap: true`, which keeps duplicates, and `duplicates: "
                f"{self.duplicates}`, which does not; leave one of them out"
            )
        if self.finetune and not self.expert:
            raise ValueError(f"task {self.name!r} has no expert to train; remove `finetune`")
        return self

    @property
    def dataset(self) -> str:
        """The data set behind a published task."""
        return str(self.options.get("dataset", self.name))
