"""Do the bounds of interpolated lambda curves hold, and what do the curves save?

    python benchmarks/interpolation.py RESULTS [--checks 1000] [--images N] [--nodes 7]

RESULTS is the results folder of a finished run, e.g. of the embedded default. Random (subset,
lambda) are interpolated and evaluated exactly, on every task of the subset, validation and test.
A row breaks its bound when its accuracy is off by more, or when an image whose label was called
certain has another one. The second table counts exact evaluations per curve, with bounds kept
within the tolerance.
"""

from __future__ import annotations

import argparse
import random
from collections import Counter, defaultdict
from pathlib import Path
from typing import Literal

import numpy as np
from finished import Finished
from pairing import machine

from taskgrid.evaluation.curves.curves import exact_row, interpolate, trace_curve
from taskgrid.evaluation.engine.odds import odds_against
from taskgrid.lattice.nodes import CurveSpec, node_levels
from taskgrid.lattice.points import format_lambda
from taskgrid.lattice.subsets import subset_of_number

Split = Literal["val", "test"]


def check(run: Finished, args: argparse.Namespace) -> None:
    """Hold bounds against exact evaluations."""
    draw = random.Random(args.seed)
    asked: defaultdict[tuple[str, ...], list[str]] = defaultdict(list)
    while sum(map(len, asked.values())) < args.checks:
        subset = subset_of_number(draw.randrange(1, 1 << len(run.tasks)), run.tasks)
        asked[subset].append(format_lambda(round(draw.uniform(0, args.stop), 6)))
    # Two sets of nodes: the first, and the next one that a loose bound leads to.
    levels = node_levels(["0.00", *[format_lambda(args.stop)] * args.nodes], args.nodes)[:2]
    seen: dict[int, Counter[str]] = {len(level): Counter() for level in levels}
    bounds: dict[int, list[float]] = {len(level): [] for level in levels}
    errors: dict[int, list[float]] = {len(level): [] for level in levels}
    for subset, lambdas in sorted(asked.items()):
        for task in subset:
            for split in args.splits:
                labels = run.labels(task, split)
                odds = {
                    scale: odds_against(run.logits(subset, scale, task, split), labels)
                    for scale in {*levels[-1], *lambdas}
                }
                for nodes in levels:
                    values = np.stack([odds[node] for node in nodes])
                    for row in interpolate(nodes, values, labels, lambdas):
                        exact = exact_row(row.scale, odds[row.scale], labels)
                        off = abs(row.correct - exact.correct) / len(labels)
                        count = seen[len(nodes)]
                        count["rows"] += 1
                        count["bound broken"] += off > row.bound + 1e-9
                        count["a certain label is wrong"] += bool(
                            np.any(row.hits[row.certain] != exact.hits[row.certain])
                        )
                        count["nll bound broken"] += abs(row.nll - exact.nll) > row.nll_bound
                        count["ece bound broken"] += abs(row.ece - exact.ece) > row.ece_bound
                        count["rows off"] += off > 0
                        count["within tolerance"] += row.bound <= args.tolerance
                        count["bound 0"] += row.bound == 0
                        bounds[len(nodes)].append(row.bound)
                        errors[len(nodes)].append(off)
        print(f"  {'+'.join(subset)}: {len(lambdas)} lambdas", flush=True)
    for count_nodes, count in seen.items():
        print(f"{count_nodes} nodes, {args.checks} (subset, lambda):")
        for name, value in count.items():
            print(f"  {name}: {value}")
        print(
            f"  bound: mean {np.mean(bounds[count_nodes]):.5f}, "
            f"90 % {np.quantile(bounds[count_nodes], 0.9):.5f}; "
            f"error: mean {np.mean(errors[count_nodes]):.6f}, "
            f"largest {np.max(errors[count_nodes]):.5f}"
        )


def savings(run: Finished, args: argparse.Namespace) -> None:
    """Count exact evaluations per curve."""
    draw = random.Random(args.seed)
    numbers = draw.sample(range(1, 1 << len(run.tasks)), min(args.curves, 2 ** len(run.tasks) - 1))
    spec = CurveSpec(nodes=args.nodes, tolerance=args.tolerance)
    for points in (11, 21, 101):
        sweep = [format_lambda(round(args.stop * i / (points - 1), 6)) for i in range(points)]
        evaluated, curves = 0, 0
        for number in numbers:
            subset = subset_of_number(number, run.tasks)
            for task in subset:
                curve = trace_curve(
                    lambda scale, subset=subset, task=task: run.logits(subset, scale, task, "val"),
                    run.labels(task, "val"),
                    sweep,
                    spec,
                )
                # The base is the same for all subsets and is evaluated once.
                evaluated += len(curve.evaluated) - ("0.00" in curve.evaluated)
                curves += 1
        naive = curves * (points - 1)
        print(
            f"{points} lambdas: {evaluated / curves:.1f} evaluations per curve instead of "
            f"{points - 1} ({naive / evaluated:.2f} times fewer)"
        )


def main() -> None:
    """Read the arguments and report."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("--tasks", nargs="+", help="by default all that have a vector")
    parser.add_argument("--method", default="task_arithmetic")
    parser.add_argument("--checks", type=int, default=1000)
    parser.add_argument("--curves", type=int, default=8)
    parser.add_argument("--images", type=int)
    parser.add_argument("--nodes", type=int, default=7)
    parser.add_argument("--tolerance", type=float, default=0.005)
    parser.add_argument("--stop", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--splits", nargs="+", default=["val", "test"])
    args = parser.parse_args()
    tasks = args.tasks or sorted(
        {path.stem for path in args.results.glob("vectors/*/standard/0/*.safetensors")}
    )
    run = Finished(args.results, tasks, images=args.images, method=args.method)
    print(machine())
    check(run, args)
    savings(run, args)


if __name__ == "__main__":
    main()
