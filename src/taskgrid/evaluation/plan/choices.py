"""Choices: what studies chose, stored beside the rows it was chosen from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from taskgrid.errors import ArtifactError
from taskgrid.evaluation.plan.asking import Asked
from taskgrid.lattice.subsets import subset_name
from taskgrid.plugins.cards import study_card
from taskgrid.provenance.digests import canonical_json
from taskgrid.store.atomic import read_json, write_json
from taskgrid.studies.seam import Choice


@dataclass(frozen=True)
class Chosen:
    """A choice, with all that it was made of.

    Attributes:
        model: the base model's name.
        mode: fine-tuning mode.
        seed: fine-tuning seed.
        method: the merge method.
        options: its options as canonical JSON.
        subset: name of the merged tasks.
        study: the study's label.
        rule: how it chooses, in words.
        about: what the question is about, where the study has several of the subset.
        tasks: the tasks that were measured.
        point: the chosen coefficients as text.
        at_edge: whether the best may lie outside of what was swept.
        met: whether the choice meets what the study asks.
    """

    model: str
    mode: str
    seed: int
    method: str
    options: str
    subset: str
    study: str
    rule: str
    about: str
    tasks: tuple[str, ...]
    point: str
    at_edge: bool
    met: bool

    @classmethod
    def of(
        cls,
        asked: Asked,
        choice: Choice,
        *,
        model: str,
        mode: str,
        seed: int,
        method: str,
        options: Mapping[str, Any],
    ) -> Chosen:
        """Return a choice with what it answers."""
        question = asked.question
        return cls(
            model=model,
            mode=mode,
            seed=seed,
            method=method,
            options=canonical_json(dict(options)),
            subset=subset_name(question.subset),
            study=asked.ref.label,
            rule=study_card(asked.ref.name).rule,
            about=question.about,
            tasks=tuple(question.tasks),
            point=choice.point,
            at_edge=choice.at_edge,
            met=choice.met,
        )


def write_choices(path: str | Path, choices: Sequence[Chosen]) -> None:
    """Write choices as JSON; raises as ``write_json``."""
    write_json(path, {"choices": [asdict(choice) for choice in choices]})


def read_choices(path: str | Path) -> tuple[Chosen, ...]:
    """Read choices.

    Raises:
        ArtifactError: if the file is missing or damaged.
    """
    value = read_json(path)
    try:
        return tuple(Chosen(**{**item, "tasks": tuple(item["tasks"])}) for item in value["choices"])
    except (KeyError, TypeError) as error:
        raise ArtifactError(
            f"{path} does not hold choices ({error}); delete it and run again"
        ) from None


def chosen_point(path: str | Path, subset: str) -> str:
    """Return the point that task addition chose for a subset.

    Raises:
        ArtifactError: if the file is missing or damaged, or tells of no such choice.
    """
    for choice in read_choices(path):
        if (choice.study, choice.subset) == ("addition", subset):
            return choice.point
    raise ArtifactError(f"{path} holds no point for {subset}; run the block again")
