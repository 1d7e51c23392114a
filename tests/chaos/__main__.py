"""Runs that are killed at random moments, and on a full and on a slow disk; see ``make chaos``.

Each run begins from the same base and is hit by up to five SIGKILLs. Whatever was hit, it is started again
with the plain command, at once and without `--unlock`, until that ends well. Then its tables, experts,
vectors, choices, figures and registry must be those of a run that nobody hit, a dry run must find nothing
to do, and no file may be left on its way.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.chaos.full_disk import full_disk
from tests.chaos.prepared import Undisturbed, prepare
from tests.chaos.run import Run, begun
from tests.chaos.slow_disk import slow_disk

ROW = "{:>4}  {:>5}  {:34}  {:>6}  {:>7}  {}"


def main() -> int:
    """Run, print a line for each run, and return how many did not end as they should."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="what is hit when (default: 0)")
    parser.add_argument(
        "--only", type=int, metavar="RUN", help="this run alone, as it was among all"
    )
    args = parser.parse_args()
    if not Path("/proc/self/environ").exists():
        sys.exit("chaos finds processes by Linux's /proc, which is not here")
    folder = Path(tempfile.mkdtemp(prefix="taskgrid-chaos-"))
    expected = prepare(folder, lambda checkout: _to_the_end(Run(checkout, f"{folder}/base")))
    print(f"seed {args.seed}; undisturbed: {expected.seconds:.0f} s; {folder}")
    print(ROW.format("run", "kills", "hit", "starts", "seconds", "identical"), flush=True)
    failed, kills = 0, 0
    for number in range(args.runs) if args.only is None else [args.only]:
        start = time.monotonic()
        run = Run(expected.base.copy_to(folder / str(number)), f"{folder}/{number}")
        run.survive(random.Random(f"{args.seed} {number}"), begun(expected.said))
        wrong = run.judge(expected)
        _tell(number, run, time.monotonic() - start, wrong)
        failed, kills = failed + bool(wrong), kills + len(run.hits)
    if args.only is None:
        failed += sum(_on_a_disk(disk, folder, expected) for disk in (full_disk, slow_disk))
    print(f"{kills} kills; {failed} runs did not end as they should")
    return failed


def _on_a_disk(
    disk: Callable[[Run, Undisturbed], list[str]], folder: Path, expected: Undisturbed
) -> bool:
    name = disk.__name__.removesuffix("_disk")
    run = Run(expected.base.copy_to(folder / name), f"{folder}/{name}")
    start = time.monotonic()
    try:
        wrong = disk(run, expected)
    except PermissionError as error:
        print(f"{name} disk: skipped, {error}")
        return False
    _tell(name, run, time.monotonic() - start, wrong)
    return bool(wrong)


def _tell(number: int | str, run: Run, seconds: float, wrong: list[str]) -> None:
    counts = Counter(run.hits)
    hit = ", ".join(f"{count} {kind}" if count > 1 else kind for kind, count in counts.items())
    verdict = "; ".join(wrong) or "yes"
    print(ROW.format(number, len(run.hits), hit, run.starts, f"{seconds:.0f}", verdict), flush=True)
    if not wrong:
        shutil.rmtree(run.checkout.folder)


def _to_the_end(run: Run) -> int:
    with run.begin() as call:
        return call.wait()


if __name__ == "__main__":
    sys.exit(main())
