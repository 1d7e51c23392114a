"""What the workflow itself costs: `snakemake -n` on every preset, and a run with nothing to do.

    python benchmarks/workflow.py

Presets are planned in an empty folder, so that all of their jobs are. The run with nothing to do is
that of this folder's results, if they are complete.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pairing import machine

ROOT = Path(__file__).parents[1]


def snakemake(folder: Path, *arguments: str) -> tuple[float, str]:
    """Return the seconds that a call of Snakemake takes, and what it printed."""
    command = [
        sys.executable,
        "-m",
        "snakemake",
        "--snakefile",
        str(ROOT / "Snakefile"),
        *arguments,
    ]
    started = time.perf_counter()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    text = done.stdout + done.stderr
    if done.returncode:
        raise SystemExit(text)
    return time.perf_counter() - started, text


def main() -> None:
    """Time every preset, then this folder."""
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(ROOT / "config.yaml", folder)
        for preset in sorted((ROOT / "presets").glob("*.yaml")):
            took, text = snakemake(Path(folder), "-n", "--configfile", str(preset))
            jobs = re.search(r"^total +(\d+)", text, re.MULTILINE)
            print(f"{preset.stem:32} {jobs[1] if jobs else '?':>5} jobs  {took:5.1f} s")
    if "Nothing to be done" not in snakemake(ROOT, "-n")[1]:
        print("the results of this folder are not complete: snakemake --cores all, then again")
        return
    print(f"{'run with nothing to do':32} {0:>5} jobs  {snakemake(ROOT, '--cores', '2')[0]:5.1f} s")


if __name__ == "__main__":
    main()
