"""This checkout against another: engine, tangent grid and merging from files, in turns.

    python benchmarks/against.py ../old [--turns 5] [--images 128]

Each side runs its own scripts with its own library, in processes of its own. A ratio is this one's
seconds by the other one's: below 1 this checkout is faster.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from merging import make_inputs
from pairing import machine

HERE = Path(__file__).resolve().parents[1]


def seconds(checkout: Path, command: str) -> float:
    """Return the seconds that a script of a checkout took; of what it compares, our side's."""
    called = [sys.executable, *f"{checkout}/benchmarks/{command}".split()]
    own = {**os.environ, "PYTHONPATH": str(checkout / "src")}
    done = subprocess.run(called, capture_output=True, text=True, env=own, check=False)
    found = re.search(r'([\d.]+) s against|"seconds": ([\d.]+)', done.stdout)
    if done.returncode or found is None:
        sys.exit(f"{checkout}: {command} failed:\n{done.stderr[-2000:]}")
    return float(found[1] or found[2])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("other", type=Path, help="another checkout")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--images", type=int, default=128, help="of each task, for the engine")
    args = parser.parse_args()
    print(f"{machine()}; load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as folder:
        make_inputs(Path(folder) / "inputs", "ViT-B-32")
        for command in (
            f"engine.py limit --images {args.images} --turns 3",
            "tangent.py --images 8 --points 3 --turns 3",
            f"merging.py work taskgrid --inputs {folder}/inputs --outputs {folder}/out --scales 0.3",
        ):
            sides = (args.other.resolve(), HERE)
            turns = [[seconds(side, command) for side in sides] for _ in range(args.turns)]
            ratios = [own / other for other, own in turns]
            spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
            print(f"{command.split()[0]}: {statistics.median(ratios):.3f} ({spread})", flush=True)


if __name__ == "__main__":
    main()
