"""What every run of chaos begins from, and what it must end with."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from tests.workflow.conftest import TIMED, Checkout

_KEPT = ("data", "splits", "models", "heads")
"""Of a finished run: images, splits, base and heads. All else is computed under fire."""

_COMPARED = (
    "tables/**/*",
    "experts/**/expert.*",
    "experts/**/history.parquet",
    "vectors/**/*.safetensors",
    "eval/**/choices.json",
    "figures/*",
)
"""What equal runs write with equal bytes; timings, logs and the registry's ids differ."""

_CURRENT = """
    select runs.name from runs join tags on tags.run_uuid = runs.run_uuid
    where runs.lifecycle_stage = 'active' and runs.status = 'FINISHED'
    and tags.key = 'superseded' and tags.value = 'false'
"""


@dataclass(frozen=True)
class Undisturbed:
    """The base and a run from it that nobody hit.

    Attributes:
        base: images, splits, a base and heads, and nothing else.
        whole: the folder of a finished run.
        seconds: what the run took.
        said: what Snakemake said of it.
        digests: of every file that is compared.
        runs: the current runs of its registry.
    """

    base: Checkout
    whole: Path
    seconds: float
    said: str
    digests: dict[str, str]
    runs: list[str]

    def differences(self, checkout: Checkout) -> list[str]:
        """Return how a run that ended differs; nothing where it is the same."""
        found = digests(checkout)
        names = sorted(found.keys() | self.digests.keys())
        differing = [name for name in names if found.get(name) != self.digests.get(name)]
        if registered(checkout) != self.runs:
            differing.append("the registry")
        return differing


def prepare(folder: Path, call: Callable[[Checkout], int]) -> Undisturbed:
    """Make the base, and the run that others are compared with.

    Args:
        folder: where they come to lie.
        call: calls Snakemake to its end; returns its exit code.
    """
    first = Checkout(folder / "whole")
    del first.config["tasks"][2]
    first.config["finetune"]["recipe"] |= {"steps": 200, "eval_every": 50}
    first.config["finetune"]["checkpoint_seconds"] = 0.2
    first.config["grid"] |= {"methods": ["task_arithmetic"], "lambdas": [0, 0.5]}
    first.config["figures"] = ["lambda_curve", "training"]
    _end(first, call)
    base = first.copy_to(folder / "base")
    for path in (base / "results").iterdir():
        if path.name not in _KEPT:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    again = base.copy_to(folder / "undisturbed")
    begun = time.monotonic()
    _end(again, call)
    seconds = time.monotonic() - begun
    said = (again / "said.txt").read_text()
    found = Undisturbed(base, again.folder, seconds, said, digests(again), registered(again))
    # Else nothing that follows would say anything.
    different = found.differences(first)
    if different or not found.digests:
        raise SystemExit(f"two runs that nobody hit differ in {', '.join(different)}")
    return found


def digests(checkout: Checkout) -> dict[str, str]:
    """Return the digest of every file that is compared, by its name under ``results``."""
    results = checkout / "results"
    return {
        path.relative_to(results).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for pattern in _COMPARED
        for path in results.glob(pattern)
        if path.is_file() and path.name != TIMED and not path.name.startswith(".")
    }


def registered(checkout: Checkout) -> list[str]:
    """Return the names of the registry's current runs, sorted: one that is there twice stands twice."""
    path = checkout / "results/mlflow.db"
    if not path.exists():
        return []
    with closing(sqlite3.connect(path)) as store:
        return sorted(name for (name,) in store.execute(_CURRENT))


def leftovers(checkout: Checkout) -> list[Path]:
    """Return the files on their way that nobody is writing any more."""
    return list((checkout / "results").rglob(".*.tmp"))


def _end(checkout: Checkout, call: Callable[[Checkout], int]) -> None:
    if call(checkout) != 0:
        raise SystemExit(f"a run that nobody hit failed: see {checkout / 'said.txt'}")
