"""Many projects write to one registry at once, and its server is killed and started meanwhile.

python benchmarks/registry.py [--sqlite] [--processes 8] [--runs 50] [--kills 3]

Each process is a results folder of its own with its own records, all in one MLflow experiment: it does
what `snakemake registry` does, again until all is level. The server is profiles/mlflow-server; it and
its database are killed (SIGKILL) each time that a further share is written. At the end every run is
read back and compared with its record: what is missing, differs, is there twice or was left unfinished.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from taskgrid.tracking.records import Artifact, Metric, RunRecord
from taskgrid.tracking.registry import sync_records
from taskgrid.tracking.target import Target, resolve_target

START = Path(__file__).parents[1] / "profiles" / "mlflow-server" / "start.py"
CURVE = 21


def main() -> None:
    args = parsed()
    with tempfile.TemporaryDirectory(prefix="registry-") as place:
        folder = Path(place)
        folder.chmod(0o755)  # PostgreSQL runs as somebody else where this runs as root
        server = Server(folder / "server", free_port(), args.sqlite)
        with server.up():
            began = time.monotonic()
            processes = multiprocessing.get_context("spawn").Pool(args.processes)
            asked = [(folder / f"p{n}", server.address, args.runs) for n in range(args.processes)]
            written = processes.starmap_async(write, asked)
            for kill in range(1, args.kills + 1):
                while done(folder) < args.processes * args.runs * kill / (args.kills + 1):
                    time.sleep(0.05)
                server.kill()
                time.sleep(args.down)
                server.start()
            calls = written.get()
            seconds = time.monotonic() - began
            found = Counter[str]()
            for each in asked:
                found += read(*each)
        runs = args.processes * args.runs
        print(
            f"{platform.machine()}, {os.cpu_count()} cores, {'SQLite' if args.sqlite else 'PostgreSQL'}"
        )
        print(
            f"{args.processes} processes x {args.runs} runs in {seconds:.0f} s, {server.kills} kills"
        )
        print(f"calls until level: {min(calls)} to {max(calls)}")
        print(
            f"of {runs}: {found['right']} right, {found['lost']} lost, {found['other']} that differ, ",
            end="",
        )
        print(f"{found['double']} double, {found['unfinished']} unfinished")
        sys.exit(found["right"] != runs or found.total() != runs)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sqlite", action="store_true")
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--down", type=float, default=3, help="seconds until it is started again")
    return parser.parse_args()


@dataclass
class Server:
    """The server of the profile, killed and started at will."""

    folder: Path
    port: int
    sqlite: bool
    kills: int = 0
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @contextmanager
    def up(self) -> Iterator[None]:
        self.start()
        try:
            yield
        finally:
            self._end(signal.SIGKILL)

    def start(self) -> None:
        options = ["--folder", str(self.folder), "--port", str(self.port)]
        self._process = subprocess.Popen(
            [sys.executable, str(START), *options, *(["--sqlite"] if self.sqlite else [])],
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while self._process.poll() is None:
            try:
                urllib.request.urlopen(f"{self.address}/health", timeout=5).close()
                return
            except OSError:
                time.sleep(0.2)
        sys.exit(f"the server does not start: python {START} {' '.join(options)}")

    def kill(self) -> None:
        self._end(signal.SIGKILL)
        self.kills += 1

    def _end(self, how: signal.Signals) -> None:
        assert self._process is not None
        # PostgreSQL first, which is in a session of its own.
        pid = self.folder / "postgresql" / "postmaster.pid"
        if pid.exists():
            os.kill(int(pid.read_text().split()[0]), how)
        os.killpg(self._process.pid, how)
        self._process.wait()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def records(folder: Path, runs: int) -> list[RunRecord]:
    folder.mkdir(exist_ok=True)
    note = folder / "note.txt"
    note.write_text(folder.name)
    return [
        RunRecord(
            f"subset/{n}",
            "subset",
            f"run {n}",
            params={"n": str(n), "project": folder.name},
            metrics=tuple(
                Metric("val/accuracy", n / (n + step + 1), step) for step in range(CURVE)
            ),
            artifacts=(Artifact.of(note),),
            seconds=1.0,
        )
        for n in range(runs)
    ]


def target_of(folder: Path, address: str) -> Target:
    return resolve_target(address, results=folder / "results", environ={})


def write(folder: Path, address: str, runs: int) -> int:
    """Bring the registry level; return how many calls it took."""
    given, best, calls = records(folder, runs), 0, 0
    while True:
        seen, calls = 0, calls + 1

        def advance(count: int) -> None:
            nonlocal seen, best
            seen += count
            if seen > best:
                best = seen
                (folder / "progress").write_text(str(best))

        target = target_of(folder, address)
        if sync_records(given, target, whole_grid=True, advance=advance).status == "level":
            return calls
        time.sleep(1)


def done(folder: Path) -> int:
    """Return how many runs were written so far, by all."""
    return sum(int(path.read_text() or 0) for path in folder.glob("p*/progress"))


def read(folder: Path, address: str, runs: int) -> Counter[str]:
    """Compare what is in the registry with the records."""
    from mlflow.tracking import MlflowClient

    client, found = MlflowClient(address), Counter[str]()
    (experiment,) = client.search_experiments(filter_string="name = 'taskgrid'")
    project = target_of(folder, address).project
    held: dict[str, list[str]] = {}
    for run in client.search_runs(
        [experiment.experiment_id], f"tags.project = '{project}'", max_results=5000
    ):
        held.setdefault(run.data.tags["point_id"], []).append(run.info.run_id)
        found["unfinished"] += (
            run.info.status != "FINISHED" or run.data.tags["superseded"] != "false"
        )
    for record in records(folder, runs):
        ids = held.get(record.point_id, [])
        found["double"] += max(len(ids) - 1, 0)
        if not ids:
            found["lost"] += 1
            continue
        history = client.get_metric_history(ids[0], "val/accuracy")
        same = sorted((m.step, m.value) for m in history) == [
            (m.step, m.value) for m in record.metrics
        ]
        params = client.get_run(ids[0]).data.params == dict(record.params)
        files = [file.path for file in client.list_artifacts(ids[0])] == ["note.txt", "row.csv"]
        found["right" if same and params and files else "other"] += 1
    return +found


if __name__ == "__main__":
    main()
