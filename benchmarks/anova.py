"""Does a lattice on a budget know how wrong it is?

    python benchmarks/anova.py RESULTS [--tasks ...] [--lambdas 0.30 0.80] [--images N]

RESULTS is the results folder of a finished run, e.g. of the eight built-in tasks. Every merge of the
lattice is evaluated at a lambda; then budgets are spent as if most of them were unknown, with many
audits, and what is reported is held against the truth.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from finished import Finished
from numpy.typing import NDArray
from pairing import machine

from taskgrid.evaluation.anova import core_numbers
from taskgrid.evaluation.budget import BudgetSpec, ImageSet, predict_lattice
from taskgrid.lattice import all_numbers, format_lambda, subset_number, subset_of_number


def lattice(
    run: Finished, scale: str, split: str
) -> dict[tuple[str, tuple[str, ...]], NDArray[np.float32]]:
    """Evaluate every merge on its own tasks, and the core on all."""
    core = set(core_numbers(len(run.tasks)))
    found = {}
    for number in (0, *all_numbers(len(run.tasks))):
        subset = subset_of_number(number, run.tasks)
        for task in run.tasks:
            if task in subset or number in core:
                found[task, subset] = run.logits(subset, scale, task, split)  # type: ignore[arg-type]
    return found


def hold(run: Finished, scale: str, args: argparse.Namespace) -> None:
    """Predict with several budgets and audits, and compare."""
    started = time.perf_counter()
    known = lattice(run, scale, args.split)
    print(
        f"lambda {scale}: {len({subset for _, subset in known})} merges evaluated on {args.split} in "
        f"{time.perf_counter() - started:.0f} s"
    )
    labels = {task: run.labels(task, args.split) for task in run.tasks}
    truth = {
        at: float(np.mean(logits.argmax(axis=1) == labels[at[0]])) for at, logits in known.items()
    }
    sets = [
        ImageSet(task, labels[task], lambda subset, task=task: known[task, subset])
        for task in run.tasks
    ]
    for budget in args.budgets:
        columns: dict[str, list[float]] = {}
        seconds = []
        for seed in range(args.audits):
            started = time.perf_counter()
            spec = BudgetSpec(budget, args.audit, args.level, seed)
            found = predict_lattice(run.tasks, sets, all_numbers(len(run.tasks)), spec)
            seconds.append(time.perf_counter() - started)
            off: dict[int, list[tuple[float, float]]] = {}
            for row in found.rows:
                error = abs(row.accuracy - truth[row.task, row.subset])
                if row.exact and error:
                    raise SystemExit(f"an exact row is wrong: {row.subset} on {row.task}")
                if not row.exact:
                    number = subset_number(row.subset, run.tasks)
                    off.setdefault(number, []).append((error, row.bound))
            report = found.report
            mean = float(np.mean([np.mean([error for error, _ in rows]) for rows in off.values()]))
            broken = sum(any(e > bound + 1e-9 for e, bound in rows) for rows in off.values())
            for name, value in {
                "true mean error": mean,
                "reported": report.error.mean,
                "reported at most": report.error.high,
                "at most holds": mean <= report.error.high,
                "interval holds": report.error.low <= mean <= report.error.high,
                "mean bound": np.mean([bound for rows in off.values() for _, bound in rows]),
                "merges within bounds": 1 - broken / len(off),
                "rows within bounds": np.mean(
                    [e <= bound + 1e-9 for rows in off.values() for e, bound in rows]
                ),
                "beyond": broken,
                "reported beyond at most": report.beyond,
                "beyond holds": broken <= report.beyond,
            }.items():
                columns.setdefault(name, []).append(float(value))
        print(
            f"budget {budget} ({report.core} core, {report.further} further, {report.audited} audited, "
            f"{report.rest} predicted), {args.audits} audits, {np.median(seconds):.2f} s each:"
        )
        for name, values in columns.items():
            print(f"  {name}: mean {np.mean(values):.4f}, first audit {values[0]:.4f}")


def main() -> None:
    """Read the arguments and report."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("results", type=Path)
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
    tasks = args.tasks or sorted(
        {path.stem for path in args.results.glob("vectors/*/standard/0/*.safetensors")}
    )
    run = Finished(args.results, tasks, images=args.images, method=args.method)
    print(machine())
    for scale in args.lambdas:
        hold(run, format_lambda(scale), args)


if __name__ == "__main__":
    main()
