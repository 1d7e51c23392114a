"""What a benchmark times first, whenever it is told to: how ``against.py`` has two checkouts in turns.

    python benchmarks/serving.py CHECKOUT SCRIPT [OPTION ...]

Runs a script of a checkout up to where it times something for the first time. From then on each line of
standard input has that done once, and each answer is its seconds.
"""

from __future__ import annotations

import importlib
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def main() -> None:
    checkout, *called = sys.argv[1:]
    benchmarks = Path(checkout) / "benchmarks"
    # In place of this folder, whose modules have the same names.
    sys.path[0] = str(benchmarks)
    pairing: Any = importlib.import_module("pairing")
    seconds = pairing.seconds

    def in_turns(work: Callable[[], object]) -> None:
        for _ in sys.stdin:
            print(f"seconds: {seconds(work)}", flush=True)
        sys.exit()

    pairing.seconds = in_turns
    sys.argv = called
    runpy.run_path(str(benchmarks / called[0]), run_name="__main__")


if __name__ == "__main__":
    main()
