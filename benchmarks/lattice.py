"""What the preparation of a subset costs on a walk over the lattice, against merging it by itself.

    python benchmarks/lattice.py [--tasks 8] [--width 256] [--layers 4] [--every 1] [METHOD ...]

A tower of random weights, experts near it (of low rank for methods that merge factors), made-up
statistics. Each method walks all subsets with what its algebra shares, and merges every n-th of
them (``--every``) by itself. Time is that of the processor, one thread, which says what is computed
on a machine that is busy otherwise, too.
"""

from __future__ import annotations

import argparse
import itertools
import time

import torch

from taskgrid.merging.recipe import MergeRecipe
from taskgrid.merging.seam import Sources
from taskgrid.merging.walks import walk
from taskgrid.store.weights import State

METHODS = ("task_arithmetic", "magmax", "ties", "fisher", "tsv_m", "knots", "core_space")


def tower(width: int, layers: int) -> State:
    """Return random weights of the shapes of a tower."""
    shapes: dict[str, tuple[int, ...]] = {
        "conv1.weight": (width, 3, 8, 8),
        "proj": (width, width // 2),
    }
    for layer in range(layers):
        block = f"transformer.resblocks.{layer}"
        shapes |= {
            f"{block}.attn.in_proj_weight": (3 * width, width),
            f"{block}.attn.out_proj.weight": (width, width),
            f"{block}.mlp.c_fc.weight": (4 * width, width),
            f"{block}.mlp.c_proj.weight": (width, 4 * width),
            f"{block}.ln_1.bias": (width,),
        }
    return {name: torch.randn(shape) for name, shape in shapes.items()}


def vector(base: State, *, low_rank: bool) -> State:
    """Return a task vector: of rank 4 in attention, or everywhere and of any rank."""
    if not low_rank:
        return {name: 0.02 * torch.randn_like(tensor) for name, tensor in base.items()}
    found = {name: torch.zeros_like(tensor) for name, tensor in base.items()}
    for name, tensor in base.items():
        if ".attn." in name:
            rows, columns = tensor.shape
            found[name] = 0.02 * torch.randn(rows, 4) @ torch.randn(4, columns)
    return found


def measure(method: str, args: argparse.Namespace) -> None:
    """Print milliseconds of the processor per subset: on the walk, with its first steps, and anew."""
    torch.manual_seed(0)
    recipe = MergeRecipe.of(method, {})
    base, tasks = tower(args.width, args.layers), [f"t{place}" for place in range(args.tasks)]
    vectors = {task: vector(base, low_rank=recipe.card.factors) for task in tasks}
    statistic = {name: torch.rand_like(tensor) for name, tensor in base.items()}
    statistic["images"] = torch.tensor(256)
    sources = Sources(vectors.__getitem__, lambda name, task: statistic)
    subsets = sorted(s for k in range(1, args.tasks + 1) for s in itertools.combinations(tasks, k))
    take, started = walk(recipe, base, sources, args.keep << 20), time.process_time()
    for subset in subsets:
        take(subset)
    walked = (time.process_time() - started) / len(subsets)
    some, started = subsets[:: args.every], time.process_time()
    for subset in some:
        recipe.prepare(base, sources, subset)
    anew = (time.process_time() - started) / len(some)
    size = sum(tensor.numel() for tensor in base.values())
    print(
        f"{method}: {size / 1e6:.1f} M weights, {len(subsets)} subsets: {walked * 1e3:.1f} ms on the walk, "
        f"{anew * 1e3:.1f} ms anew, {anew / walked:.1f} x",
        flush=True,
    )


def main() -> None:
    """Measure methods one after the other."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("methods", nargs="*", default=METHODS, metavar="METHOD")
    parser.add_argument("--tasks", type=int, default=8)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--every", type=int, default=1, help="merge every n-th subset by itself")
    parser.add_argument("--keep", type=int, default=4096, help="MiB for what is kept")
    args = parser.parse_args()
    torch.set_num_threads(1)
    for method in args.methods:
        measure(method, args)


if __name__ == "__main__":
    main()
