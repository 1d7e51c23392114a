"""What 100,000 grid points cost before and after the GPUs: the plan, and the tables.

    python benchmarks/scale.py [plan] [tables] [example] [--subsets 17] [--block-size 32] [--turns 3]

``plan`` is `snakemake -n` in an empty folder, of 20 tasks, 5 methods (one needs a statistic, one learns),
3 seeds and 21 coefficients on ViT-L/14; nothing of it is there, so that all jobs are planned.

``example`` plans the 20 tasks, 30 methods and 3 seeds of docs/scale.md in the same way; only when asked for.

``tables`` runs the scripts of the rules `grid` and `study` as these rules call them, on synthetic
results of the same experiment: rows, choices, timings and the store of outcomes have the real formats,
columns and numbers of files, and the project's own functions write them. Synthetic are the counts of
hits and what hangs on them (random), the keys (random), the durations, and the validation images (64 per
task, of which these scripts read nothing). Test images are as many as the data sets have.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from pathlib import Path

from pairing import machine
from synthetic import synthesise
from watching import watched

from taskgrid.config import Experiment, read_config
from taskgrid.workflow import paths, project, runs
from taskgrid.workflow import stages as settings

ROOT = Path(__file__).parents[1]
CONFIG = """\
extends: [{preset}]
finetune: {{seeds: [0, 1, 2]}}
grid:
  methods: [task_arithmetic, ties, tsv_m, regmean, adamerging]
  subsets: {{sample: {{per_size: {subsets}}}}}
  block_size: {block_size}
studies: [addition, comparison]
"""


def points(experiment: Experiment) -> int:
    """Return the number of grid points: run, method, subset and coefficients."""
    return sum(
        len(experiment.lambdas(method)) * len(experiment.numbers_of(method))
        for run in experiment.runs
        for method in experiment.methods_of(run.mode)
    )


def plan(config: Path) -> None:
    """Plan the experiment in an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "snakemake", "-s", str(ROOT / "Snakefile"), "-n"]
        done = watched([*command, "--configfile", str(config)], Path(folder))
    found = re.search(r"^total +(\d+)", done.text, re.MULTILINE)
    print(f"plan: {found[1] if found else '?'} jobs, {done}", flush=True)


def tables(experiment: Experiment) -> None:
    """Make the tables of synthetic results."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        rows, size = synthesise(experiment, folder)
        print(f"synthetic: {rows} rows, {size / 1e9:.1f} GB of outcomes", flush=True)
        made = {name: f"results/tables/{name}" for name in ("grid.parquet", "selected.parquet")}
        words = {
            "settings": [settings.tables.grid(experiment)],
            "listing": [
                settings.tables.cost_listing(experiment, settings.tables.cost_files(experiment))
            ],
            "store": ["results/store"],
            "reference": runs.run_files(paths.REFERENCE_ROWS, experiment.runs),
            "rows": runs.block_files(experiment, paths.BLOCK_ROWS, experiment.runs),
            "choices": runs.block_files(experiment, paths.BLOCK_CHOICES, experiment.runs),
            "grid": [made["grid.parquet"]],
            "selected": [made["selected.parquet"]],
            **{name: [f"results/tables/{name}.csv"] for name in ("summary", "pairs", "costs")},
            "published": ["results/tables/published.csv"],
        }
        _script("grid", words, folder)
        for label in experiment.studies:
            for table in settings.studies.tables(experiment, label):
                words = {
                    "settings": [settings.studies.settings(experiment, label)],
                    "store": ["results/store"],
                    "grid": [made["grid.parquet"]],
                    "selected": [made["selected.parquet"]],
                    "costs": ["results/tables/costs.csv"],
                    "name": [Path(table).stem],
                    "table": [table],
                }
                _script("study", words, folder)


def _script(name: str, words: dict[str, list[str]], folder: Path) -> None:
    """Run a rule's script, its words on standard input as in a rule."""
    given = [word for option, values in words.items() for word in (f"--{option}", *values)]
    command = [sys.executable, str(project.SCRIPTS / f"{name}.py"), "-"]
    done = watched(command, folder, "".join(f"{word}\0" for word in given))
    print(f"{name}: {done}; {done.text.strip().splitlines()[0]}", flush=True)


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="*", help="plan, tables, example (the first two)")
    parser.add_argument("--subsets", type=int, default=17, help="of each size; 17 are 324 in all")
    parser.add_argument("--block-size", type=int, default=32, help="subsets of a job at most")
    parser.add_argument("--turns", type=int, default=1, help="how often the plan is made")
    args = parser.parse_args()
    preset = ROOT / "presets" / "clip-vit-l-14-20tasks.yaml"
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "scale.yaml"
        config.write_text(
            CONFIG.format(preset=preset, subsets=args.subsets, block_size=args.block_size)
        )
        experiment = Experiment(read_config(ROOT / "config.yaml", config))
        print(machine())
        print(
            f"{points(experiment):,} points: {len(experiment.runs)} runs, {len(experiment.methods)} methods, "
            f"{len(experiment.numbers)} subsets in {len(experiment.blocks(experiment.methods[0]))} blocks"
        )
        if "plan" in args.what or not args.what:
            for _ in range(args.turns):
                plan(config)
        if "tables" in args.what or not args.what:
            tables(experiment)
        if "example" in args.what:
            sys.path.append(str(ROOT))
            from tools.scale import overlay

            config.write_text(json.dumps(overlay(10, False)))
            plan(config)


if __name__ == "__main__":
    main()
