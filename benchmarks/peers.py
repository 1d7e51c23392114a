"""Merges against mergekit's and FusionBench's own packages, method by method, weight by weight.

    python benchmarks/peers.py [RESULTS] [--markdown]

On a random tower of open_clip, on one with awkward experts, and on the trained experts of RESULTS, a finished
run of the embedded default. Prints for every case the largest difference, also relative to the largest
change of a weight, and fails where one is neither below 1e-5 nor explained. The peers run in an environment
of their own (``make peers``).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from environment import HERE, default_folder, environment, offline
from peers_cases import CASES, Case
from peers_towers import Towers, awkward_towers, random_towers, trained_towers
from safetensors.torch import load_file, save_file

from taskgrid.merging import merge, merge_per_task
from taskgrid.merging.recipe import MergeRecipe
from taskgrid.store.weights import State

BOUND = 1e-5
"""Largest difference of weights that are equal: the peers compute in float32."""

SEED = 7


@dataclass(frozen=True)
class Found:
    """How a case came out on one tower.

    Attributes:
        case: what was compared.
        towers: on which.
        difference: the largest one of a weight; of ``sums``, relative.
        relative: over the largest change of a weight.
        error: what the peer said instead of an answer.
    """

    case: Case
    towers: str
    difference: float = float("nan")
    relative: float = float("nan")
    error: str = ""

    @property
    def equal(self) -> bool:
        """Whether both are the same."""
        return self.difference <= BOUND

    @property
    def why(self) -> str:
        """Why they need not be."""
        return self.case.why.get(self.towers, "")

    @property
    def passed(self) -> bool:
        """Whether that is as it should be."""
        return self.equal or bool(self.why)


def compare(
    python: Path, folder: Path, name: str, towers: Towers, cases: Sequence[Case]
) -> Iterator[Found]:
    """Merge with both sides, the peers in one process of their own."""
    write(folder, towers, cases)
    done = subprocess.run(
        [python, HERE / "peers_worker.py", folder], env=offline(), capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"the peers' side failed:\n{done.stderr[-2000:]}")
    for number, case in enumerate(cases):
        theirs = folder / "theirs" / str(number)
        if theirs.with_suffix(".txt").exists():
            yield Found(case, name, error=theirs.with_suffix(".txt").read_text())
            continue
        tasks = _tasks(case, towers)
        experts = {task: towers.experts[task] for task in tasks}
        said: dict[str, Any] = {"statistics": towers.statistics, "seed": SEED, **case.options}
        if MergeRecipe.of(case.method, case.options).per_task:
            ours = merge_per_task(case.method, towers.base, experts, case.scale, **said)
            pairs = [
                (ours[task], load_file(theirs / f"{task}.safetensors")) for task in sorted(experts)
            ]
        else:
            merged = merge(case.method, towers.base, experts, case.scale, **said)
            pairs = [(merged, load_file(theirs.with_suffix(".safetensors")))]
        open_to = undecided(towers.base, list(experts.values()), case.cuts) if case.cuts else {}
        differences = [difference(towers.base, *pair, case, open_to) for pair in pairs]
        yield Found(case, name, *(max(each) for each in zip(*differences, strict=True)))


def write(folder: Path, towers: Towers, cases: Sequence[Case]) -> None:
    """Write what the peers read."""
    save_file(towers.base, folder / "base.safetensors")
    for kind, states in {"experts": towers.experts, **towers.statistics}.items():
        (folder / kind).mkdir()
        for task, state in states.items():
            save_file(state, folder / kind / f"{task}.safetensors")
    jobs = [
        {
            "name": str(number),
            "peer": case.peer,
            "call": case.call,
            "given": dict(case.given),
            "tasks": _tasks(case, towers),
            "seed": SEED,
            "double": case.double,
        }
        for number, case in enumerate(cases)
    ]
    (folder / "jobs.json").write_text(json.dumps(jobs))


def undecided(base: State, experts: Sequence[State], cuts: Sequence[float]) -> State:
    """Return where an expert's entry has the magnitude of entries on both sides of a cut."""
    found = {}
    for key, start in base.items():
        found[key] = torch.zeros(start.shape, dtype=torch.bool)
        for expert in experts:
            sizes = (expert[key] - start).abs()
            ordered, place = sizes.flatten().sort(descending=True).values, 0
            for share in cuts:
                place += int(share * len(ordered))
                if 0 < place < len(ordered) and ordered[place - 1] == ordered[place]:
                    found[key] |= sizes == ordered[place]
    return found


def difference(
    base: State, ours: State, theirs: State, case: Case, open_to: State
) -> tuple[float, float]:
    """Return the largest difference, and that over the largest change."""
    assert ours.keys() == theirs.keys(), ours.keys() ^ theirs.keys()
    largest, change = 0.0, 1e-30
    for key, start in base.items():
        left, right = ours[key].double() - start, theirs[key].double() - start
        if case.compare == "sums":
            sums = left.abs().sum(), right.abs().sum()
            largest = max(largest, float((sums[0] - sums[1]).abs() / sums[0].clamp_min(1e-30)))
            change = 1.0
            continue
        apart = (left - right).abs()
        if case.compare == "kept":
            apart = apart[(left != 0) & (right != 0)]
        if key in open_to:
            apart = apart[~open_to[key]]
        if not bool(apart.isfinite().all()):
            largest = float("inf")
        elif apart.numel():
            largest = max(largest, float(apart.max()))
        change = max(change, float(left.abs().max()))
    return largest, largest / change


def _tasks(case: Case, towers: Towers) -> list[str]:
    return sorted(towers.experts)[: case.tasks]


def line(found: Found) -> str:
    """Return a line of the table."""
    options = ", ".join(f"{k}: {v}" for k, v in found.case.options.items())
    verdict = "equal" if found.equal else found.why or "DIFFERENT"
    said = f"{found.difference:.1e} ({found.relative:.1e})" if not found.error else "-"
    if found.error and not found.why:
        verdict = found.error[:200]
    ours = f"{found.case.method}({options})"
    theirs = f"{found.case.peer}:{found.case.call.rpartition('.')[2]}"
    return f"{found.towers:8} {ours:62} {theirs:60} {said:20} {verdict}"


def main(args: argparse.Namespace) -> int:
    torch.set_num_threads(1)
    python = environment(args.environment)
    all_towers = {"random": random_towers(), "awkward": awkward_towers()}
    trained = trained_towers(args.results)
    if trained is None:
        print(f"{args.results} holds no trained experts; run `make run` for them")
    else:
        all_towers["trained"] = trained
    cases = [case for case in CASES if args.only in (None, case.method)]
    failed = 0
    for name, towers in all_towers.items():
        with tempfile.TemporaryDirectory() as folder:
            for found in compare(python, Path(folder), name, towers, cases):
                print(line(found), flush=True)
                failed += not found.passed
    print(f"{failed} differences are not explained")
    return int(failed > 0)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, nargs="?", default=HERE.parent / "results")
    parser.add_argument("--only", help="a method of taskgrid")
    parser.add_argument("--environment", type=Path, default=default_folder())
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main(parse()))
