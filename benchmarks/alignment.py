"""A planted renaming of a tower's channels, found again by its weights: seconds, and whether exactly.

python benchmarks/alignment.py [--architecture ViT-B-32] [--threads 2]

The target is the source under the names of a random member of its group: the residual stream, heads as
wholes, channels inside each head, hidden units. Weights are random, with random LayerNorms, as those of a
trained tower are.
"""

from __future__ import annotations

import argparse
import time

import torch
from memory import clip_of
from pairing import machine

from taskgrid.alignment.canonical import canonical
from taskgrid.alignment.maps import Axes
from taskgrid.alignment.matching import Maps, match_weights
from taskgrid.alignment.spaces import RES, Spaces, attention_spaces, mlp_space, spaces_of


def planted(spaces: Spaces, generator: torch.Generator) -> Maps:
    def order(size: int) -> torch.Tensor:
        return torch.randperm(size, generator=generator)

    maps = {RES: order(spaces.sizes[RES])}
    for block in range(spaces.blocks):
        queries, keys, values = attention_spaces(block)
        width, heads = spaces.sizes[queries] // spaces.heads, order(spaces.heads)
        for names in ((queries, keys), (values,)):
            inside = [int(head) * width + order(width) for head in heads]
            maps |= dict.fromkeys(names, torch.cat(inside))
        maps[mlp_space(block)] = order(spaces.sizes[mlp_space(block)])
    return maps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--architecture", default="ViT-B-32")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    clip, generator = clip_of(args.architecture), torch.Generator().manual_seed(0)
    source = clip.visual_state()
    for key, tensor in source.items():
        if "ln_" in key:
            tensor.add_(0.2 * torch.randn(tensor.shape, generator=generator))
    spaces = spaces_of(clip.card(), {key: tuple(one.shape) for key, one in source.items()})
    wanted = planted(spaces, generator)
    target = Axes(spaces.axes_by(wanted))(source)
    started, worked = time.perf_counter(), time.process_time()
    found = match_weights(spaces, canonical(target), canonical(source))
    seconds, worked = time.perf_counter() - started, time.process_time() - worked
    wrong = sum(int((found.maps[space] != one).sum()) for space, one in wanted.items())
    print(machine())
    print(
        f"{args.architecture}: {wrong} of {sum(spaces.sizes.values())} channels not found, "
        f"{len(found.history) - 1} steps that gained, {seconds:.1f} s on {args.threads} threads "
        f"({worked:.1f} s of a core)"
    )
    if wrong:
        raise SystemExit("a planted renaming must be found exactly")


if __name__ == "__main__":
    main()
