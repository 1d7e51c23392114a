"""What a task asks of a published data set, beside what is known of the data set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import PositiveInt

from taskgrid.data.published.description import Description, Hub, Layout
from taskgrid.data.published.layouts.parts import LayoutSettings
from taskgrid.data.published.reading import read_description
from taskgrid.data.sources.options import SourceOptions, check_options
from taskgrid.data.sources.seam import TaskData
from taskgrid.errors import DataError
from taskgrid.store.images import Split


class PublishedOptions(SourceOptions):
    """Options of the source ``published``, beside those of the layout's reader.

    Attributes:
        dataset: name of the description; the task's name by default.
        layout: where the images come from.
        counts: expected number of images of each split, where another one than the description's is
            right; false: any number is.
        names: the hub's name of each class -> key of the description, beside the description's own.
        prompts: prompts of a lineage that differ from the description's (one of its `variants`).
        download: manifest of the download, with the commit that is read.
        train_images: see `taskgrid.data.sources.published`; the description's by default.
    """

    dataset: str | None = None
    layout: Layout = "hub"
    counts: dict[Split, PositiveInt] | Literal[False] | None = None
    names: dict[str, str] | None = None
    prompts: str | None = None
    download: str | None = None
    train_images: PositiveInt | None = None


@dataclass(frozen=True)
class Published:
    """A published task: what is asked for and what is known of it.

    Attributes:
        description: what is known of the data set.
        options: what is asked for.
        extra: options that are the reader's.
    """

    description: Description
    options: PublishedOptions
    extra: Mapping[str, Any]

    @classmethod
    def of(cls, task: TaskData) -> Published:
        """Read a task's options and the description of its data set.

        Raises:
            DataError: if there is no such data set, or an option is unknown or does not fit.
        """
        own = {k: v for k, v in task.options.items() if k in PublishedOptions.model_fields}
        extra = {k: v for k, v in task.options.items() if k not in own}
        options = check_options(own, PublishedOptions, f"the source {task.source!r}")
        if options.layout == "hub":
            check_options(task.options, PublishedOptions, "the layout `hub` of a published task")
        return cls(read_description(options.dataset or task.name), options, extra)

    @property
    def hub(self) -> Hub:
        """The repository on the hub.

        Raises:
            DataError: if none is known.
        """
        if self.description.hub is None:
            raise DataError(
                f"no repository on the hub is known for the data set {self.description.name!r}; set "
                "`options.layout: original` and put its files in `path`"
            )
        return self.description.hub

    @property
    def expected(self) -> dict[Split, int | None]:
        """Number of images that each split must have; None where any number is right.

        Raises:
            DataError: if the options name a split that the data set does not have.
        """
        expected = self.description.expected(self.options.layout)
        if self.options.counts is False:
            return dict.fromkeys(expected)
        given = self.options.counts or {}
        for split in given:
            if split not in expected:
                raise DataError(
                    f"options.counts names the split {split}, but those of the data set "
                    f"{self.description.name!r} are {', '.join(expected)}"
                )
        return {**expected, **given}

    @property
    def reader(self) -> str:
        """Name of the reader of the original files."""
        return self.description.original.reader

    def settings(self, model: type[LayoutSettings]) -> LayoutSettings:
        """Return the settings of the reader.

        Raises:
            DataError: if an option is unknown or does not fit.
        """
        described = dict(self.description.original.options)
        if self.description.split is not None:
            described["split"] = self.description.split
            described["partial"] = self.options.counts is not None
        return check_options(
            {**described, **self.extra},
            model,
            f"the layout `original` of the data set {self.description.name!r}",
            beside=PublishedOptions.model_fields,
        )
