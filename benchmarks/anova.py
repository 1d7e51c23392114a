"""Does a lattice on a budget know how wrong it is?

    python benchmarks/anova.py RESULTS [--tasks ...] [--lambdas 0.30 0.80] [--images N]
    python benchmarks/anova.py --planted 6 10

RESULTS is the results folder of a finished run, e.g. of the eight built-in tasks. Every merge of the
lattice is evaluated at a lambda; then budgets are spent as if most of them were unknown, with many
audits, and what is reported is held against the truth. Budgets for the whole lattice are left out.
``--planted`` needs no run: eight made-up tasks of 200 images, whose merges are sums of effects up to
order two, but for 6 merges in which 10 more images of each task fail. Each audit has a lattice of its
own then.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from finished import Finished
from numpy.typing import NDArray
from pairing import machine

from taskgrid.evaluation.budget.anova import core_numbers
from taskgrid.evaluation.budget.book import ImageSet
from taskgrid.evaluation.budget.budget import predict_lattice
from taskgrid.evaluation.budget.findings import Report
from taskgrid.evaluation.plan.setting import Split
from taskgrid.lattice.budgets import BudgetSpec
from taskgrid.lattice.points import format_lambda
from taskgrid.lattice.subsets import all_numbers, subset_number, subset_of_number


class Evaluated(Protocol):
    """Tasks, and what merges of them say: ``finished.Finished``, or made up."""

    tasks: tuple[str, ...]

    def labels(self, task: str, split: Split) -> NDArray[np.int64]:
        """Return true classes."""
        ...

    def logits(
        self, subset: Sequence[str], scale: str | float, task: str, split: Split
    ) -> NDArray[np.float32]:
        """Return what a merge says about a task's images, (n, C)."""
        ...


class Planted:
    """Effects up to order two, and rare merges that are far off.

    Args:
        bad: merges of three and more tasks that are off.
        images: images of each task that these get wrong beyond those that the effects say.
        seed: seed of everything.
    """

    tasks = tuple("abcdefgh")

    def __init__(self, bad: int, images: int, seed: int) -> None:
        random = np.random.default_rng(seed)
        larger = [number for number in range(256) if number.bit_count() > 2]
        self._labels = {task: random.integers(0, 4, 200) for task in self.tasks}
        self._effects = {}
        for task in self.tasks:
            self._effects[task] = {
                part: (1.0, 1.0, 0.3)[part.bit_count()] * random.normal(size=(200, 4))
                for part in range(256)
                if part.bit_count() < 3
            }
            self._effects[task][0][np.arange(200), self._labels[task]] += 4.0
        self._bad = set(random.permutation(larger)[:bad].tolist())
        self._images = images

    def labels(self, task: str, split: Split) -> NDArray[np.int64]:
        """Return true classes."""
        return self._labels[task]

    def logits(
        self, subset: Sequence[str], scale: str | float, task: str, split: Split
    ) -> NDArray[np.float32]:
        """Return what a merge says about a task's images, (n, C)."""
        merged, labels = subset_number(subset, self.tasks), self._labels[task]
        parts = self._effects[task].items()
        found = np.sum([effect for part, effect in parts if part & merged == part], axis=0)
        if merged in self._bad:
            right = np.flatnonzero(found.argmax(axis=1) == labels)[: self._images]
            found[right, labels[right]] = -99.0
        return found.astype(np.float32)


def lattice(
    run: Evaluated, scale: str, split: Split
) -> dict[tuple[str, tuple[str, ...]], NDArray[np.float32]]:
    """Evaluate every merge on its own tasks, and the core on all."""
    core = set(core_numbers(len(run.tasks)))
    found = {}
    for number in (0, *all_numbers(len(run.tasks))):
        subset = subset_of_number(number, run.tasks)
        for task in run.tasks:
            if task in subset or number in core:
                found[task, subset] = run.logits(subset, scale, task, split)
    return found


def hold(run: Evaluated, scale: str, args: argparse.Namespace) -> None:
    """Predict with several budgets and audits, and compare."""
    started = time.perf_counter()
    known = lattice(run, scale, args.split)
    print(
        f"lambda {scale}: {len({subset for _, subset in known})} merges evaluated on {args.split} in "
        f"{time.perf_counter() - started:.0f} s"
    )
    for budget in args.budgets:
        if budget >= 1 << len(run.tasks):
            print(
                f"budget {budget}: evaluates all {1 << len(run.tasks)} merges, nothing is predicted"
            )
            continue
        specs = [BudgetSpec(budget, args.audit, args.level, seed) for seed in range(args.audits)]
        summarise(budget, [audited(run, known, spec, args.split) for spec in specs])


def planted(args: argparse.Namespace) -> None:
    """The same on made-up lattices, a new one for each audit."""
    bad, images = args.planted
    print(f"{bad} merges off by {images} of 200 images")
    for budget in args.budgets:
        found = []
        for seed in range(args.audits):
            run = Planted(bad, images, seed)
            spec = BudgetSpec(budget, args.audit, args.level, seed)
            found.append(audited(run, lattice(run, "0.30", "test"), spec, "test"))
        summarise(budget, found)


def audited(
    run: Evaluated,
    known: dict[tuple[str, tuple[str, ...]], NDArray[np.float32]],
    spec: BudgetSpec,
    split: Split,
) -> tuple[Report, dict[str, float]]:
    """Spend a budget; return what is reported, and how it compares with the truth."""
    labels = {task: run.labels(task, split) for task in run.tasks}
    sets = [
        ImageSet(task, labels[task], lambda subset, task=task: known[task, subset])
        for task in run.tasks
    ]
    started = time.perf_counter()
    found = predict_lattice(run.tasks, sets, all_numbers(len(run.tasks)), spec)
    seconds = time.perf_counter() - started
    off: dict[int, list[tuple[float, float]]] = {}
    for row in found.rows:
        truth = np.mean(known[row.task, row.subset].argmax(axis=1) == labels[row.task])
        error = abs(row.accuracy - float(truth))
        if row.exact and error:
            raise SystemExit(f"an exact row is wrong: {row.subset} on {row.task}")
        if not row.exact:
            number = subset_number(row.subset, run.tasks)
            off.setdefault(number, []).append((error, row.bound))
    report = found.report
    means = [float(np.mean([error for error, _ in rows])) for rows in off.values()]
    mean = float(np.mean(means))
    broken = sum(any(e > bound + 1e-9 for e, bound in rows) for rows in off.values())
    return report, {
        "true mean error": mean,
        "true largest error": max(means),
        "reported": report.error.mean,
        "reported at most": report.error.high,
        "at most holds": mean <= report.error.high + 1e-9,
        "interval holds": report.error.low - 1e-9 <= mean <= report.error.high + 1e-9,
        "largest, as supposed": report.largest,
        "largest is as supposed": max(means) <= report.largest + 1e-9,
        "limit": report.error_limit,
        "limit holds": mean <= report.error_limit + 1e-9,
        "ceiling": report.error_ceiling,
        "ceiling holds": mean <= report.error_ceiling + 1e-9,
        "mean bound": float(np.mean([bound for rows in off.values() for _, bound in rows])),
        "merges within bounds": 1 - broken / len(off),
        "rows within bounds": float(
            np.mean([e <= bound + 1e-9 for rows in off.values() for e, bound in rows])
        ),
        "beyond": broken,
        "reported beyond at most": report.beyond,
        "beyond holds": broken <= report.beyond,
        "seconds": seconds,
    }


def summarise(budget: int, audits: Sequence[tuple[Report, dict[str, float]]]) -> None:
    """Print means over the audits."""
    report, first = audits[0]
    print(
        f"budget {budget} ({report.core} core, {report.further} further, {report.audited} audited, "
        f"{report.rest} predicted), {len(audits)} audits:"
    )
    for name in first:
        mean = np.mean([values[name] for _, values in audits])
        print(f"  {name}: mean {mean:.4f}, first audit {first[name]:.4f}")


def main() -> None:
    """Read the arguments and report."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("results", type=Path, nargs="?", help="the results folder of a run")
    parser.add_argument("--planted", nargs=2, type=int, metavar=("MERGES", "IMAGES"))
    parser.add_argument("--tasks", nargs="+", help="by default all that have a vector")
    parser.add_argument("--method", default="task_arithmetic")
    parser.add_argument("--lambdas", nargs="+", type=float, default=[0.3, 0.8])
    parser.add_argument("--budgets", nargs="+", type=int, default=[60, 80, 120])
    parser.add_argument("--audit", type=int, default=20)
    parser.add_argument("--audits", type=int, default=100)
    parser.add_argument("--level", type=float, default=0.95)
    parser.add_argument("--images", type=int)
    parser.add_argument("--split", choices=("val", "test"), default="test")
    args = parser.parse_args()
    print(machine())
    if args.planted:
        planted(args)
        return
    if args.results is None:
        parser.error("give the results folder of a finished run, or --planted")
    tasks = args.tasks or sorted(
        {path.stem for path in args.results.glob("vectors/*/standard/0/*.safetensors")}
    )
    run = Finished(args.results, tasks, images=args.images, method=args.method)
    for scale in args.lambdas:
        hold(run, format_lambda(scale), args)


if __name__ == "__main__":
    main()
