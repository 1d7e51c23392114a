"""Checkpoints to be merged from disk: whether they belong together, by their headers alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from taskgrid.errors import LineageError
from taskgrid.lattice.subsets import canonical_subset
from taskgrid.models.lineage import IDENTITY, check_lineage
from taskgrid.outofcore.shards import WeightFiles


@dataclass(frozen=True)
class Inputs:
    """What is merged, compared by headers alone.

    Attributes:
        base: theta_0.
        experts: task -> theta_t or tau_t, in canonical order.
    """

    base: WeightFiles
    experts: Mapping[str, WeightFiles]

    @classmethod
    def open(cls, base: Path, experts: Mapping[str, Path]) -> Inputs:
        """Read all headers and compare them.

        Raises:
            LineageError: if an expert does not fit the base; names the key and both values.
            ArtifactError: if a file is missing, damaged or of another format.
        """
        ordered = {task: WeightFiles.open(experts[task]) for task in canonical_subset(experts)}
        found = cls(WeightFiles.open(base), ordered)
        for task, expert in found.experts.items():
            _check_alike(found.base, expert, task)
            name = "task vector" if is_vector(expert) else "expert"
            check_base(f"the {name} of task {task!r}", expert, found.base)
        return found


def is_vector(checkpoint: WeightFiles) -> bool:
    """Whether a checkpoint holds tau_t and not theta_t."""
    return checkpoint.lineage.get("kind") == "taskvector"


def _check_alike(base: WeightFiles, expert: WeightFiles, task: str) -> None:
    vector = is_vector(expert)
    name = f"the task vector {task!r}" if vector else f"expert {task!r}"
    wanted = {key: spec for key, spec in base.specs.items() if spec.floating or not vector}
    for key in sorted(wanted.keys() | expert.specs.keys()):
        if key not in expert.specs:
            raise LineageError(f"{name} lacks {key!r}, which the base has")
        if key not in wanted:
            raise LineageError(f"{name} has {key!r}, which the base lacks")
        mine, theirs = wanted[key], expert.specs[key]
        if mine.shape != theirs.shape:
            raise LineageError(
                f"{key!r} has shape {mine.shape} in the base, but {theirs.shape} in {name}"
            )
        dtype = "F32" if vector else mine.dtype
        if theirs.dtype != dtype:
            raise LineageError(f"{key!r} is {theirs.dtype} in {name}, but should be {dtype}")


def check_base(what: str, found: WeightFiles, base: WeightFiles) -> None:
    """Refuse what was made with another base, as far as both say it.

    Args:
        what: what was found, as a person would call it.
        found: its file.
        base: theta_0.

    Raises:
        LineageError: if an entry of the lineage differs; names both values.
    """
    known = dict(base.lineage)
    if "digest" in known:
        known["base"] = known["digest"]
    check_lineage(
        what,
        found.lineage,
        known,
        # Of files that another program wrote, names, shapes and dtypes are all there is to compare.
        [entry for entry in IDENTITY if entry in known and entry in found.lineage],
        "merge only what shares one base",
    )
