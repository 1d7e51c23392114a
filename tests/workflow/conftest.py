"""A checkout of its own for each test, with a tiny experiment that runs in seconds."""

from __future__ import annotations

import copy
import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

ROOT = Path(__file__).parents[2]
ABSENT = Path(__file__).with_name("absent")
DAY = 86_400 * 10**9
TIMED = "costs.csv"
"""The table that says how long merges took, which is another time each time."""
GRID = "results/tables/grid.parquet"
"""Where rows end, and choices beside them; the target `tables` would compare task vectors, too."""
PARTS = ("Snakefile", "config.yaml", "rules", "scripts", "src", "resources", "profiles", "envs")

TINY: dict[str, Any] = {
    "tasks": [
        {"name": name, "source": "npz", "path": f"data/{name}/{name}.npz"}
        for name in ("a", "b", "c")
    ],
    "finetune": {"recipe": {"steps": 4, "batch_size": 16, "warmup_steps": 1}},
    "grid": {
        "methods": ["task_arithmetic", "average"],
        "lambdas": [0, 0.5, 1],
        "block_size": 4,
    },
    "studies": ["addition"],
    "device": "cpu",
}


@dataclass(frozen=True)
class Outcome:
    """What a Snakemake call printed, and what that means."""

    code: int
    text: str

    @property
    def rules(self) -> Counter[str]:
        """Jobs per rule, by the table that Snakemake prints before it starts; no targets."""
        table = re.search(r"Job stats:\njob +count\n[- ]+\n(.*?)\ntotal", self.text, re.DOTALL)
        rows = [] if table is None else [line.split() for line in table[1].splitlines()]
        return Counter({name: int(count) for name, count in rows if name not in TARGETS})

    @property
    def evaluated(self) -> int:
        """Grid rows that this call computed."""
        return sum(map(int, re.findall(r"evaluated (\d+) rows", self.text)))


TARGETS = {"all", "tables", "figures", "experts", "conflicts", "registry"}


class Checkout:
    """A copy of the project in which files may be edited."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        for part in PARTS:
            source = ROOT / part
            if source.is_dir():
                shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(source, folder / part)
        for index, name in enumerate("abcd"):
            write_task(folder / "data" / name / f"{name}.npz", index)
        self.config = copy.deepcopy(TINY)

    def __truediv__(self, name: str) -> Path:
        return self.folder / name

    def snakemake(self, *arguments: str, timeout: float = 600) -> Outcome:
        """Call Snakemake as a person would, in this checkout."""
        with self.begin(*arguments) as call:
            try:
                text, _ = call.communicate(timeout=timeout)
            finally:
                call.kill()
        return Outcome(call.returncode, text)

    def begin(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        """Begin a call of Snakemake, and do not wait for its end; options are those of ``Popen``."""
        (self / "tiny.yaml").write_text(yaml.safe_dump(self.config))
        command = [sys.executable, "-m", "snakemake", *arguments, "--configfile", "tiny.yaml"]
        if "--cores" not in arguments and "-n" not in arguments:
            command += ["--cores", "2"]
        environment = {
            key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"
        }
        path = [environment.get("PYTHONPATH"), str(ABSENT)]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, path))
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env={**environment, "PYTHONDONTWRITEBYTECODE": "1"},
            stderr=subprocess.STDOUT,
            text=True,
            **{"stdout": subprocess.PIPE, **options},
        )

    def run(self, *arguments: str) -> Outcome:
        """Call Snakemake and insist that it ends well."""
        outcome = self.snakemake(*arguments)
        assert outcome.code == 0, outcome.text
        return outcome

    def plan(self, *targets: str) -> Counter[str]:
        """Return the jobs per rule that a dry run lists."""
        outcome = self.run(*targets, "-n")
        return outcome.rules

    def edit(self, name: str, old: str, new: str) -> None:
        """Replace text in a file of the checkout."""
        path = self / name
        text = path.read_text()
        assert old in text, f"{name} has no {old!r}"
        path.write_text(text.replace(old, new, 1))

    def at_every_start(self, code: str) -> str:
        """Have a text run at the start of every Python; return the ``PYTHONPATH`` that makes it so."""
        stub = self / "stub"
        stub.mkdir()
        (stub / "sitecustomize.py").write_text((ABSENT / "sitecustomize.py").read_text() + code)
        return os.pathsep.join([str(self / "src"), str(stub)])

    def table(self, name: str) -> Any:
        """Read a result table as a frame."""
        import pandas

        path = self / "results" / "tables" / name
        return pandas.read_parquet(path) if name.endswith("parquet") else pandas.read_csv(path)

    def json(self, name: str) -> Any:
        """Read a JSON file of the checkout."""
        return json.loads((self / name).read_text())

    @classmethod
    def of(cls, folder: Path, config: dict[str, Any]) -> Checkout:
        """Return a checkout that is there already."""
        found = object.__new__(cls)
        found.folder, found.config = folder, copy.deepcopy(config)
        return found

    def copy_to(self, folder: Path) -> Checkout:
        """Copy the checkout with its results, e.g. to edit the copy and keep the original."""
        shutil.copytree(self.folder, folder, symlinks=True)
        return self.of(folder, self.config)


def moved_in_time(path: Path, days: int) -> None:
    """Move the times of a file, or of all in a folder, as a clock that was wrong would have."""
    for each in [path, *path.rglob("*")]:
        state = each.lstat()
        times = (state.st_atime_ns + days * DAY, state.st_mtime_ns + days * DAY)
        os.utime(each, ns=times, follow_symlinks=False)


def write_task(path: Path, seed: int, classes: int = 3, train: int = 200, test: int = 24) -> None:
    """Write a separable little task: a bright square whose place and colour tell the class."""
    generator = np.random.default_rng(seed)

    def images(count: int) -> tuple[np.ndarray, np.ndarray]:
        labels = np.arange(count) % classes
        pixels = generator.integers(0, 80, (count, 24, 24, 3))
        for image, label in zip(pixels, labels, strict=True):
            image[4 + 5 * label : 10 + 5 * label, 3 + seed * 4 : 9 + seed * 4, label] += 150
        return pixels.astype(np.uint8), labels

    path.parent.mkdir(parents=True)
    (x, y), (u, v) = images(train), images(test)
    np.savez(path, train_images=x, train_labels=y, test_images=u, test_labels=v)
    names = [f"{colour} square" for colour in ("red", "green", "blue", "grey")[:classes]]
    path.with_name("classes.json").write_text(json.dumps(names))


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout in which the tiny experiment ran to the end, one for all processes of the tests.

    Others copy it meanwhile: nothing may be changed or run in it. Its folder has a name that a shell
    reads as much else, unless every command quotes it.
    """
    common = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        common = common.parent
    folder, done = common / "it's a $HOME & `id` ünï checkout", common / "finished.txt"
    with (common / "finished.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            done.write_text(Checkout(folder).run().text)
    return Checkout.of(folder, TINY)


@pytest.fixture
def checkout(finished: Checkout, tmp_path: Path) -> Checkout:
    """A finished checkout that the test may change."""
    return finished.copy_to(tmp_path / "checkout")
