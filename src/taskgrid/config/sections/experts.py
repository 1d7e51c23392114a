"""Section `experts`: ready-made ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from taskgrid.config.sections.values import Name, Number, Place, Section, Text


class CheckSpec(Section):
    """When a ready-made expert is believed: it must reproduce its own task."""

    tolerance: Annotated[Number, Field(ge=0, lt=1)] = 0.02
    """How far the accuracy on the task's test images, with its 95 % interval, may lie below the expected
    one."""
    expected: dict[Name, Annotated[Number, Field(gt=0, le=1)]] = Field({})
    """Accuracy per task as published, from 0 to 1; a task without one must at least match the base's
    zero-shot accuracy."""


class ExpertSpec(Section):
    """Ready-made experts, fine-tuned elsewhere: one for each task, checked before they are merged."""

    name: Name
    """Stands where a mode stands in paths and tables."""
    format: Literal["transformers", "open_clip", "task_vectors"]
    """How the checkpoints are laid out: `transformers`, `open_clip` or `task_vectors` (pickles, read as
    tensors only)."""
    source: Place
    """A repository of the Hugging Face hub, or a path; `{task}` stands for the task's name, e.g.
    `tanganke/clip-vit-base-patch32_{task}`."""
    revision: Text | None = None
    """Commit of the repository. Null resolves `main` at the first download and keeps to the commit
    found."""
    revisions: dict[Name, Text] = Field({})
    """Commits by task, where each task has a repository of its own."""
    file: Place | None = None
    """File in the repository, with `{task}`; null finds it by the format."""
    names: dict[Name, Text] = Field({})
    """What `{task}` is replaced by, where it is not the task's own name."""
    model: Name | None = None
    """The base model, where there are several."""
    evaluation: Literal["plain", "tangent"] = "plain"
    """`tangent` for experts that were trained in the tangent space."""
    check: CheckSpec = Field(default_factory=CheckSpec)
    """When they are believed."""

    def by_task(self) -> dict[str, Mapping[str, object]]:
        """Return what is said task by task, by key."""
        return {
            "check.expected": self.check.expected,
            "revisions": self.revisions,
            "names": self.names,
        }

    def place(self, task: str) -> str:
        """Return the repository or path of a task's expert."""
        return self.source.replace("{task}", self.names.get(task, task))

    def revision_of(self, task: str) -> str | None:
        """Return the commit at which a task's expert is taken; None is the newest."""
        return self.revisions.get(task, self.revision)

    def file_of(self, task: str) -> str | None:
        """Return the file of a task's expert in its repository, where the configuration says it."""
        return self.file and self.file.replace("{task}", self.names.get(task, task))
