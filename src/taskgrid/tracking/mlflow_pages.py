"""MLflow's pages over a results folder, opened where the runs are.

    python -m taskgrid.tracking.mlflow_pages [--config config.yaml] [--results results] [--port 5000]

MLflow's front page is for language models; runs are one link further, which is printed, with those of the
saved views, and opened in the browser where there is a desktop. Where the registry is a server, it has pages
of its own: their links are printed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
import webbrowser
from collections.abc import Mapping, Sequence
from pathlib import Path

from taskgrid.config.load import read_config
from taskgrid.errors import TaskgridError, TrackingError
from taskgrid.sentences import without_secrets
from taskgrid.tracking.access import check_free, check_reachable
from taskgrid.tracking.records import RecordKind
from taskgrid.tracking.registry import be_quiet
from taskgrid.tracking.target import HOST, PORT, Target, resolve_target
from taskgrid.tracking.views import pages

_PATIENCE = 300.0
"""Seconds that MLflow has to start; on a busy machine it takes many."""


def main(given: Sequence[str] | None = None) -> None:
    """Serve the pages until they are stopped."""
    args = _parsed(given)
    be_quiet()
    # Workers for jobs that taskgrid never asks for; they take two GB.
    os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        tracking = read_config(args.config).tracking
        target = resolve_target(tracking.uri, tracking.experiment, results=args.results)
        if target.is_remote:
            check_reachable(target)
            _show(links(target, target.uri, target.shown.rstrip("/")))
            return
        check_free(HOST, args.port)
        with contextlib.suppress(KeyboardInterrupt):
            _serve(target, args.port)
    except TaskgridError as error:
        sys.exit(f"error: {error}")


def server(target: Target, port: int) -> list[str]:
    """Return the command that serves the pages of a registry on this machine.

    Where its tables are is for the environment to say: an address may hold a password.
    """
    command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port)]
    command += ["--workers", "1", "--uvicorn-opts", "--log-level warning"]
    if target.artifacts is not None:
        command += ["--artifacts-destination", target.artifacts.as_uri()]
    return command


def links(target: Target, uri: str, address: str) -> dict[str, str]:
    """Return the pages of a registry's runs and saved views, by what they are.

    Args:
        target: the registry.
        uri: by which it is asked for its experiments.
        address: of the server that shows it, without a slash behind.
    """
    from mlflow.tracking import MlflowClient

    from taskgrid.tracking.mlflow_experiments import EXPERIMENTS

    client = MlflowClient(uri, uri)
    found: dict[RecordKind, str] = {}
    for kind, name in EXPERIMENTS.items():
        experiment = client.get_experiment_by_name(name.format(target.experiment))
        if experiment is not None:
            found[kind] = str(experiment.experiment_id)
    runs = f"/#/experiments/{found['subset']}/runs" if "subset" in found else "/#/experiments"
    return {
        "Runs": f"{address}{runs}?workflowType=machine_learning",
        **{name: f"{address}{page}" for name, page in pages(found)},
    }


def _serve(target: Target, port: int) -> None:
    database = Path(target.uri.removeprefix("sqlite:///"))
    if target.artifacts is not None and not database.is_file():
        raise TrackingError(
            f"there is no {database} yet; make run, or snakemake registry, writes it"
        )
    log = target.results / "logs" / "pages.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as said:
        environ = {**os.environ, "MLFLOW_BACKEND_STORE_URI": target.uri}
        process = subprocess.Popen(server(target, port), env=environ, stdout=said, stderr=said)
    try:
        address = f"http://{HOST}:{port}"
        _wait(target, address, process, log)
        _show(links(target, address, address))
        print("Ctrl-C ends it", flush=True)
        process.wait()
    finally:
        process.terminate()
        process.wait()


def _wait(target: Target, address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    served = resolve_target(address, results=target.results, environ={})
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            check_reachable(served)
            return
        except TrackingError:
            if process.poll() is not None:
                raise TrackingError(f"MLflow ended at once; {log} has what it said") from None
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def _show(shown: Mapping[str, str]) -> None:
    width = max(map(len, shown))
    for name, link in shown.items():
        print(without_secrets(f"{name:{width}}  {link}"), flush=True)
    if sys.stdout.isatty() and (os.environ.get("DISPLAY") or sys.platform == "darwin"):
        webbrowser.open(shown["Runs"])


def _parsed(given: Sequence[str] | None) -> argparse.Namespace:
    about = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=about)
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--config", type=Path, default=Path("config.yaml"), help="with `tracking`")
    parser.add_argument("--port", type=int, default=PORT)
    return parser.parse_args(given)


if __name__ == "__main__":
    main()
