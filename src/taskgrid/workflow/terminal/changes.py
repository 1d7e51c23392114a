"""Why jobs run, as a person would say it: what was added, removed or changed since the last run.

Snakemake gives a reason for each job, among them the settings before and now as JSON. What only follows from
another job is left out.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taskgrid.sentences import listed, shown
from taskgrid.workflow.terminal.jobs import Job
from taskgrid.workflow.terminal.points import BlockChange, Sweeps

_PARAMS = re.compile(r"Params have changed since last execution: .*? before: (.*) now: (.*)", re.S)
_MISSING = re.compile(r"Missing output files: ([^;]*)")
_UPDATED = re.compile(r"Updated input files: ([^;]*)")
_MODULE = re.compile(r"'(taskgrid[\w.]*)': '([0-9a-f]+)'")

_PLAIN = (
    ("Forced execution", "it was asked for by --force"),
    ("Incomplete output files", "an earlier run was interrupted"),
    ("Code has changed", "the command of a rule changed"),
    ("Software environment", "a conda environment changed"),
)
_SINGULAR = {
    "lambdas": "lambda",
    "seeds": "seed",
    "modes": "mode",
    "methods": "method",
    "studies": "study",
    "tasks": "task",
    "curves_on": "curves on",
}
_NAMED = ("model", "mode", "seed", "task", "method", "study", "figure")
"""Wildcards whose values a configuration adds, outermost first."""
_FIRST = "nothing is there yet"


@dataclass(frozen=True)
class Present:
    """What results there are, by the names that a configuration gives.

    Attributes:
        names: kind of name -> those of which something is there.
    """

    names: Mapping[str, frozenset[str]]

    @classmethod
    def look(cls, folder: Path = Path()) -> Present:
        """Look through a results folder.

        Args:
            folder: the working folder.
        """
        results = folder / "results"

        def names(*patterns: str) -> frozenset[str]:
            paths = (path for pattern in patterns for path in results.glob(pattern))
            return frozenset(path.name.split(".")[0] for path in paths)

        return cls(
            {
                "model": names("models/*"),
                "mode": names("experts/*/*", "eval/*/*"),
                "seed": names("experts/*/*/*", "eval/*/*/*"),
                "task": names("splits/*/*"),
                "method": names("merge/*/*/*/*"),
                "study": names("tables/*"),
                "figure": names("figures/*"),
            }
        )


def why(
    jobs: Iterable[Job], changes: Mapping[tuple[str, ...], BlockChange], present: Present
) -> tuple[str, ...]:
    """Say why jobs run.

    Args:
        jobs: the jobs that are to run.
        changes: the blocks among them that are to be evaluated.
        present: what is there.

    Returns:
        Clauses that may follow "because", each once, what the configuration says first.
    """
    if not present.names["model"]:
        return (_FIRST,)
    jobs = list(jobs)
    modules: dict[str, None] = {}
    said: list[str] = []
    for change in changes.values():
        said += sweeps_changed(change)
    for job in jobs:
        said += _of_job(job, present)
        modules |= dict.fromkeys(_modules(job.reason))
    if modules:
        names = [module.removeprefix("taskgrid.") for module in modules]
        said.append(f"code changed: {listed(names)}")
    if not said and jobs:
        said = ["other inputs are asked for"]
    return tuple(dict.fromkeys(said))


def sweeps_changed(change: BlockChange) -> Iterator[str]:
    """Yield what is asked of a block now that was not asked before, and the other way round."""
    now, before = change.now, change.before
    if before is None:
        return
    yield from _items("lambdas", before.lambdas, now.lambdas)
    yield from _items("studies", before.studies, now.studies)
    for subset in sorted({*before.named, *now.named}):
        if before.named.get(subset, ()) != now.named.get(subset, ()):
            yield f"the points of {subset} changed"
    if before.rest != now.rest:
        yield from _values(before.rest, now.rest, (str(now.rest["method"]),))
    if set(now.subsets) - set(before.subsets):
        yield from _grown(before, now)


def _grown(before: Sweeps, now: Sweeps) -> Iterator[str]:
    more = len(set(now.subsets) - set(before.subsets))
    yield f"{more} more subsets are asked for" if more > 1 else "a subset was added"


def _of_job(job: Job, present: Present) -> Iterator[str]:
    for sign, text in _PLAIN:
        if sign in job.reason:
            yield text
    if (found := _MISSING.search(job.reason)) and "Incomplete" not in job.reason:
        yield from _missing(job, found[1], present)
    if found := _UPDATED.search(job.reason):
        files = [file for file in found[1].split(", ") if file]
        if files and not job.derived:
            yield f"{listed(files)} changed"
    # Of a plan, settings are told by what they mean for its points.
    if (found := _PARAMS.search(job.reason)) and job.rule != "merge":
        yield from settings_changed(found[1], found[2])


def _missing(job: Job, files: str, present: Present) -> Iterator[str]:
    for name in _NAMED:
        value = job.labels.get(name)
        if value is not None and value not in present.names[name]:
            yield f"{name} {value} is new"
            return
    if not job.derived:
        yield f"{files.split(', ')[0]} is missing"


def settings_changed(before: str, now: str) -> Iterator[str]:
    """Yield how settings differ, from Snakemake's texts of those that were and those that are."""
    old, new = _settings(before), _settings(now)
    if old is not None and new is not None:
        yield from _values(old, new)


def _settings(text: str) -> dict[str, Any] | None:
    """Return the one JSON value among the parameters of a job: its settings."""
    start = text.find("'{\"")
    if start < 0:
        return None
    end = text.rfind("}'")
    try:
        found = json.loads(ast.literal_eval(text[start : end + 2]))
    except (ValueError, SyntaxError):
        return None
    return found if isinstance(found, dict) else None


def _values(old: Any, new: Any, place: Sequence[str] = ()) -> Iterator[str]:
    if old == new:
        return
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            yield from _values(old.get(key), new.get(key), (*place, key))
    elif isinstance(old, list | tuple) and isinstance(new, list | tuple) and place:
        yield from _items(place[-1], [*map(_name, old)], [*map(_name, new)])
    else:
        yield f"{'.'.join(place)} is {shown(new, quotes=False)} and was {shown(old, quotes=False)}"


def _name(value: Any) -> str:
    if isinstance(value, dict):
        return str(value.get("label") or value.get("name") or value)
    return str(value)


def _items(key: str, before: Sequence[str], now: Sequence[str]) -> Iterator[str]:
    added = [item for item in now if item not in before]
    removed = [item for item in before if item not in now]
    for items, done in ((added, "added"), (removed, "removed")):
        if items:
            word = _SINGULAR.get(key, key) if len(items) == 1 else key
            yield f"{word} {listed(items)} {'was' if len(items) == 1 else 'were'} {done}"
    if not added and not removed and list(before) != list(now):
        yield f"the order of {key} changed"


def _modules(reason: str) -> list[str]:
    """Return the modules whose code is another one."""
    found = _PARAMS.search(reason)
    if found is None:
        return []
    before, now = dict(_MODULE.findall(found[1])), dict(_MODULE.findall(found[2]))
    return sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
