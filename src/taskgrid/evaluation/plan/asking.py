"""Asking: what the studies of a plan want measured, of which subsets, on which tasks."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from taskgrid.errors import ConfigError
from taskgrid.sentences import together
from taskgrid.studies import get_study
from taskgrid.studies.seam import Field, Question, Study


@dataclass(frozen=True)
class StudyRef:
    """A study that asks for rows.

    Attributes:
        name: its name.
        label: its name in tables.
        options: its options, defaults filled in.
    """

    name: str
    label: str
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Asked:
    """A question, and whose it is.

    Attributes:
        ref: the study as configured.
        study: the study.
        question: what it asks.
    """

    ref: StudyRef
    study: Study
    question: Question


def check_studies(
    refs: Iterable[StudyRef], known: Field, merged: Sequence[Container[tuple[str, ...]]]
) -> None:
    """Refuse studies whose options the experiment does not fit, before anything is measured.

    Args:
        refs: the studies.
        known: all tasks of the experiment.
        merged: what is merged together: the subsets of each method that has others. A study needs one
            whose subsets it can ask.

    Raises:
        ConfigError: if there is one; the text says what to do.
    """
    for ref in refs:
        refused = [error for subsets in merged if (error := _refused(ref, known, subsets))]
        if len(refused) == len(merged):
            raise refused[0] from None


def _refused(
    ref: StudyRef, known: Field, subsets: Container[tuple[str, ...]]
) -> ConfigError | None:
    try:
        get_study(ref.name, ref.options).check(known, subsets)
    except ConfigError as error:
        named = f"study {ref.name!r}" in str(error)
        lead = "" if named else f"study {ref.label!r}: "
        return ConfigError(together([f"{lead}{error}"]))
    return None


def ask(
    refs: Iterable[StudyRef],
    subsets: Sequence[tuple[str, ...]],
    known: Field,
    measurable: Callable[[Sequence[str], Sequence[str]], Sequence[str]],
) -> tuple[Asked, ...]:
    """Return every question that studies have of some subsets.

    Args:
        refs: the studies.
        subsets: the merged tasks of each.
        known: what studies may know beforehand.
        measurable: takes a subset and tasks, and returns those on which its merge can be measured; a
            question that needs others is not asked.
    """
    studies = [(ref, get_study(ref.name, ref.options)) for ref in refs]
    return tuple(
        Asked(ref, study, question)
        for ref, study in studies
        for subset in subsets
        for question in study.questions(subset, known)
        if len(measurable(question.subset, question.tasks)) == len(question.tasks)
    )
