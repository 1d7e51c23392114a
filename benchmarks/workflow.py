"""What the workflow itself costs: planning every preset, and a run with nothing to do.

    python benchmarks/workflow.py            # `snakemake -n` of every preset, then this folder's no-op
    python benchmarks/workflow.py finished   # no-op of the largest preset of 8, 14 and 20 tasks

Presets are planned in an empty folder, so that all of their jobs are. For ``finished`` every script is
replaced by one that writes its outputs and computes nothing: what Snakemake keeps of a run is real, and
the run with nothing to do that follows has all of its files to look at. Of their content nothing is
read but whether the registry is level.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import tempfile
from pathlib import Path

from pairing import machine
from watching import Watched, watched

ROOT = Path(__file__).parents[1]
FINISHED = ("clip-vit-l-14-8tasks", "clip-vit-l-14-14tasks", "clip-vit-l-14-20tasks")

PRETEND = """
import sys
from pathlib import Path

for argument in map(Path, sys.argv[1:]):
    if argument.parts[:1] == ("results",) and argument != Path("results/store"):
        if not argument.exists():
            argument.parent.mkdir(parents=True, exist_ok=True)
            argument.write_text('{"status": "level"}')
"""


def snakemake(folder: Path, *arguments: str, root: Path = ROOT) -> Watched:
    """Return what a call of Snakemake takes, and what it printed."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(root / "Snakefile")]
    return watched([*command, *arguments], folder)


def jobs(text: str) -> str:
    """Return the number of jobs that a dry run announces."""
    found = re.search(r"^total +(\d+)", text, re.MULTILINE)
    return found[1] if found else "?"


def planned() -> None:
    """Time the plan of every preset, then this folder."""
    with tempfile.TemporaryDirectory() as folder:
        for preset in sorted((ROOT / "presets").glob("*.yaml")):
            done = snakemake(Path(folder), "-n", "--configfile", str(preset))
            print(f"{preset.stem:32} {jobs(done.text):>5} jobs {done}", flush=True)
    if "Nothing to be done" not in snakemake(ROOT, "-n").text:
        print("the results of this folder are not complete: snakemake --cores all, then again")
        return
    print(f"{'run with nothing to do':32} {0:>5} jobs {snakemake(ROOT, '--cores', '2')}")


def finished() -> None:
    """Time runs with nothing to do, after runs that computed nothing."""
    for name in FINISHED:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            for part in ("Snakefile", "config.yaml", "envs", "src", "presets", "resources"):
                (folder / part).symlink_to(ROOT / part)
            # The project is found from the rules' folder, as it really is.
            shutil.copytree(ROOT / "rules", folder / "rules")
            for script in (ROOT / "scripts").glob("*.py"):
                (folder / "scripts").mkdir(exist_ok=True)
                (folder / "scripts" / script.name).write_text(PRETEND)
            configured = ("--configfile", str(ROOT / "presets" / f"{name}.yaml"), "--cores", "2")
            total = jobs(snakemake(folder, *configured, "-n", root=folder).text)
            ran = snakemake(folder, *configured, root=folder)
            again = snakemake(folder, *configured, root=folder)
            if "Nothing to be done" not in again.text:
                raise SystemExit(again.text)
            print(
                f"{name:32} {total:>5} jobs pretended in {ran.wall:4.0f} s, then nothing: {again}"
            )


def main() -> None:
    """Time what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="?", choices=["planned", "finished"], default="planned")
    print(machine())
    {"planned": planned, "finished": finished}[parser.parse_args().what]()


if __name__ == "__main__":
    main()
