"""An MLflow server on this machine, for trying: tables in PostgreSQL, artefacts handed on by the server.

    python profiles/mlflow-server/start.py [--folder mlflow-server] [--port 5000]

PostgreSQL is the system's, run apart from any other under a folder of its own; it listens on no port.
Where there is none, or with --sqlite, tables are in a SQLite file. Ctrl-C stops it all. A server for
many is set up by hand: docs/registry.md.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

NO_DRIVER = "PostgreSQL is here, but psycopg is not: pip install 'psycopg[binary]', or add --sqlite"
HOST = "127.0.0.1"
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # Workers for jobs that taskgrid never asks for; they take two GB.
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
}


def main() -> None:
    """Start the server and wait for it to end."""
    args = parsed()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    folder = args.folder.resolve()
    with contextlib.ExitStack() as held, contextlib.suppress(KeyboardInterrupt):
        database = held.enter_context(tables(folder, sqlite=args.sqlite))
        address = f"http://{HOST}:{args.port}"
        print(f"registry: {address}, tables in {database.partition('?')[0]}, artefacts in {folder}")
        print(f"in config.yaml:\n\n    tracking:\n      uri: {address}\n", flush=True)
        command = server(database, folder / "artifacts", args.port, args.workers)
        process = subprocess.Popen(command, env={**QUIET, **os.environ})
        try:
            process.wait()
        finally:
            process.terminate()
            process.wait()


def parsed(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the arguments."""
    about = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=about)
    parser.add_argument("--folder", type=Path, default=Path("mlflow-server"), help="keeps it all")
    parser.add_argument("--port", type=int, default=5000)
    parser.add_argument("--workers", type=int, default=2, help="processes of the server")
    parser.add_argument("--sqlite", action="store_true", help="tables in a file")
    return parser.parse_args(given)


def server(database: str, artifacts: Path, port: int, workers: int) -> list[str]:
    """Return the command of a server that hands artefacts on, so that jobs need no way to their place."""
    command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port)]
    command += ["--workers", str(workers), "--backend-store-uri", database]
    return [*command, "--serve-artifacts", "--artifacts-destination", artifacts.as_uri()]


@contextlib.contextmanager
def tables(folder: Path, *, sqlite: bool) -> Iterator[str]:
    """Give the address of a database in a folder; PostgreSQL runs as long as the block does."""
    folder.mkdir(parents=True, exist_ok=True)
    programs = None if sqlite else postgresql()
    if programs is None:
        yield f"sqlite:///{folder / 'mlflow.db'}"
        return
    if importlib.util.find_spec("psycopg") is None:
        sys.exit(NO_DRIVER)
    with running(programs, folder / "postgresql") as socket:
        yield f"postgresql+psycopg://taskgrid@/taskgrid?host={socket}"


def postgresql() -> Path | None:
    """Return the folder of the newest PostgreSQL's programs, which Debian keeps off the path."""
    debian = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3])
    )
    found = debian[-1] if debian else shutil.which("initdb")
    return Path(found).resolve().parent if found else None


@contextlib.contextmanager
def running(programs: Path, data: Path) -> Iterator[Path]:
    """Run PostgreSQL on a folder; give that of its socket, which only this user opens."""
    owner: dict[str, Any] = {}
    if os.geteuid() == 0:  # as whom PostgreSQL refuses to run
        account = pwd.getpwnam("postgres")
        owner = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    with tempfile.TemporaryDirectory(prefix="taskgrid-") as place:
        socket = Path(place)  # short, for the path of a socket may be no longer than 107 bytes
        data.mkdir(mode=0o700, exist_ok=True)
        if owner:
            for folder in (socket, data):
                os.chown(folder, owner["user"], owner["group"])

        def call(name: str, *more: str, **how: Any) -> int:
            output = how.setdefault("stdout", subprocess.DEVNULL)
            command = [str(programs / name), *more]
            return subprocess.run(
                command, cwd="/", stderr=output, check=False, **owner, **how
            ).returncode

        if not (data / "PG_VERSION").exists() and call(
            "initdb",
            "-D",
            str(data),
            "-U",
            "taskgrid",
            "--auth=trust",
            "-E",
            "UTF8",
            "--no-sync",
            stdout=None,
        ):
            sys.exit(
                f"PostgreSQL could not be set up in {data}; add --sqlite, or give another --folder"
            )
        database = subprocess.Popen(
            [str(programs / "postgres"), "-D", str(data), "-k", place, "-c", "listen_addresses="],
            cwd="/",
            # Ctrl-C is for the server first.
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=(socket / "log").open("w"),
            **owner,
        )
        try:
            while call("pg_isready", "-h", place, "-U", "taskgrid"):
                if database.poll() is not None:
                    sys.exit(f"PostgreSQL does not start: {(socket / 'log').read_text().strip()}")
                time.sleep(0.1)
            call("createdb", "-h", place, "-U", "taskgrid", "taskgrid")
            yield socket
        finally:
            database.send_signal(signal.SIGINT)
            database.wait()


if __name__ == "__main__":
    main()
