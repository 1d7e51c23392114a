"""This checkout against another: engine, tangent grid and merging from files, in turns.

    python benchmarks/against.py ../old [--turns 15] [--images 128]

Each side runs its own scripts with its own library, in processes of its own. Those of the engine and of
the tangent grid stay, so that a turn lasts seconds: a machine's pace may change from minute to minute. A
ratio is this one's seconds by the other one's: below 1 this checkout is faster.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from merging import make_inputs
from pairing import machine

HERE = Path(__file__).resolve().parents[1]
SERVING = Path(__file__).with_name("serving.py")


def serve(stack: ExitStack, checkout: Path, command: str) -> Callable[[], float]:
    """Start a script of a checkout; return what has it do its own work once, and says the seconds."""
    called = [sys.executable, str(SERVING), str(checkout), *command.split()]
    pipe = subprocess.PIPE
    process = subprocess.Popen(called, stdin=pipe, stdout=pipe, text=True, env=library(checkout))
    stack.enter_context(process)

    def seconds() -> float:
        assert process.stdin is not None
        assert process.stdout is not None
        print(file=process.stdin, flush=True)
        for line in process.stdout:
            if line.startswith("seconds: "):
                return float(line.split()[1])
        sys.exit(f"{checkout}: {command} failed")

    return seconds


def merging_seconds(checkout: Path, command: str) -> float:
    """Return the seconds of merging from files, in a process that ends."""
    called = [sys.executable, *f"{checkout}/benchmarks/{command}".split()]
    done = subprocess.run(
        called, stdout=subprocess.PIPE, text=True, env=library(checkout), check=False
    )
    if done.returncode:
        sys.exit(f"{checkout}: {command} failed")
    return float(json.loads(done.stdout.splitlines()[-1])["seconds"])


def library(checkout: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(checkout / "src")}


def compare(name: str, other: Callable[[], float], own: Callable[[], float], turns: int) -> None:
    """Take turns, the first of them to warm up, and say the ratio."""
    other()
    own()
    ratios = []
    for turn in range(turns):
        # Whoever is first in one turn is last in the next.
        took = {side: side() for side in ((other, own) if turn % 2 else (own, other))}
        ratios.append(took[own] / took[other])
    spread = f"{min(ratios):.3f} to {max(ratios):.3f}, {turns} turns"
    print(f"{name}: {statistics.median(ratios):.3f} ({spread})", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("other", type=Path, help="another checkout")
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--images", type=int, default=128, help="of each task, for the engine")
    args = parser.parse_args()
    checkouts = (args.other.resolve(), HERE)
    print(f"{machine()}; load {os.getloadavg()[0]:.1f}")
    for command in (f"engine.py limit --images {args.images}", "tangent.py --images 8 --points 3"):
        with ExitStack() as stack:
            other, own = (serve(stack, checkout, command) for checkout in checkouts)
            compare(command.split()[0], other, own, args.turns)
    with tempfile.TemporaryDirectory() as folder:
        make_inputs(Path(folder) / "inputs", "ViT-B-32")
        command = (
            f"merging.py work taskgrid --inputs {folder}/inputs --outputs {folder}/out --scales 0.3"
        )
        other, own = (partial(merging_seconds, checkout, command) for checkout in checkouts)
        compare("merging.py", other, own, max(1, args.turns // 3))


if __name__ == "__main__":
    main()
