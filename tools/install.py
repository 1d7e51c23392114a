"""Install what `requirements.lock` pins into the Python that runs this: `python -m tools.install`.

The lock file is the one truth for every build of torch. `full` is what it says. `slim` leaves out what only
GPUs use and torch imports without. `cpu` takes the pinned versions of torch and torchvision from PyTorch's
own index of CPU builds, without what belongs to GPUs; the lock file has no hashes for these two.

Needs nothing but the standard library and pip, for nothing else is there yet.
"""

from __future__ import annotations

import argparse
import os
import queue
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

_GPU = re.compile(r"(nvidia|cuda)-|triton$")
# Loaded when they are called for, if at all; `readelf -d` of torch's libraries names all others.
_UNNEEDED = re.compile(r"(triton|cuda-.*|nvidia-(cusolver|nvjitlink|cuda-cccl|nvtx))$")
_FROM_INDEX = ("torch", "torchvision")

# What was measured on Linux, x86-64: to download, on disk.
_GIGABYTES = {
    "full": "3.4 GB to download, 7.6 GB on disk",
    "slim": "2.9 GB to download, 6.1 GB on disk",
}
_OFFER = (
    "no NVIDIA device is seen here. If none is to be used later either, `make clean run TORCH=cpu` takes "
    "about a third of that (docs/install.md)"
)


def pins(lock: str) -> list[tuple[str, str]]:
    """Return the entries of a lock file with the names of their packages, hashes and markers included.

    A package has several entries where its version depends on Python's.
    """
    entries = re.split(r"^(?=[A-Za-z0-9])", lock, flags=re.MULTILINE)[1:]
    return [(entry.split("==")[0], entry) for entry in entries]


def hashed(lock: str, build: str) -> str:
    """Return the part of a lock file that a build takes as it is."""
    return "".join(entry for name, entry in pins(lock) if not _left_out(name, build))


def from_index(lock: str, build: str) -> list[str]:
    """Return the requirements that a build takes from PyTorch's index: the pinned versions."""
    if build != "cpu":
        return []
    return [f"{entry.split()[0]}+cpu" for name, entry in pins(lock) if name in _FROM_INDEX]


def _left_out(name: str, build: str) -> bool:
    if build == "cpu":
        return name in _FROM_INDEX or _GPU.match(name) is not None
    return build == "slim" and _UNNEEDED.match(name) is not None


class Display:
    """One line that is written over in a terminal; elsewhere a line now and then."""

    def __init__(self, every: float = 15) -> None:
        self._rewrites, self._every, self._last = sys.stderr.isatty(), every, time.monotonic()

    def show(self, text: str) -> None:
        """Show how far it is."""
        if self._rewrites:
            width = shutil.get_terminal_size().columns - 1
            print(f"\r\x1b[K{text[:width]}", end="", file=sys.stderr, flush=True)
        elif time.monotonic() - self._last >= self._every:
            self._last = time.monotonic()
            print(text, file=sys.stderr, flush=True)

    def end(self) -> None:
        """Leave the line for what comes next."""
        if self._rewrites:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


class Progress:
    """How far pip is, by what it prints and by what lies in the folder of packages."""

    def __init__(self, total: int, site: Path) -> None:
        self._total, self._seen, self._now = total, 0, "asking the index"
        self._site, self._before = site, _installed(site)
        self._installing = False

    def read(self, line: str) -> None:
        """Take note of a line of pip's."""
        if line.startswith("Ignoring "):  # for another platform
            self._total -= 1
        elif found := re.match(
            r"(?:Collecting|Processing|Requirement already satisfied:) (\S+)", line
        ):
            self._seen, self._now = self._seen + 1, found[1].split("/")[-1]
        elif found := re.match(r" +(?:Downloading|Using cached) .*\((.*)\)", line):
            self._now = f"{self._now.split(' (')[0]} ({found[1]})"
        elif line.startswith("Installing collected"):
            self._installing = True

    def __str__(self) -> str:
        if self._installing:
            return f"unpacking {_installed(self._site) - self._before} of {self._total}"
        return f"fetching {self._seen} of {self._total}: {self._now}"


def _installed(site: Path) -> int:
    return sum(1 for _ in site.glob("*.dist-info"))


def _lines(pipe: Iterable[str], every: float = 0.5) -> Iterator[str | None]:
    """Yield lines as they come, and ``None`` when none came for a while."""
    found: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        for line in pipe:
            found.put(line)
        found.put("")

    threading.Thread(target=read, daemon=True).start()
    while True:
        try:
            line = found.get(timeout=every)
        except queue.Empty:
            yield None
            continue
        if not line:
            return
        yield line


def pip_install(arguments: Sequence[str], progress: Progress, log: Path) -> None:
    """Call pip, show how far it is, and keep all it says in a file.

    Raises:
        SystemExit: if pip fails: with its last complaint.
    """
    command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
    command += ["--progress-bar", "off", *arguments]
    display, complaints = Display(), []
    with (
        log.open("a", encoding="utf-8") as file,
        subprocess.Popen(
            command,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process,
    ):
        assert process.stdout is not None
        for line in _lines(process.stdout):
            if line is not None:
                file.write(line)
                progress.read(line)
                complaints += [line.strip()] * line.startswith("ERROR:")
            display.show(str(progress))
    display.end()
    if process.returncode:
        said = complaints[-1] if complaints else f"pip ended with {process.returncode}"
        raise SystemExit(f"{said}\nall that pip said is in {log}")


def install(lock: str, build: str, index: str, log: Path) -> int:
    """Install a build; return the number of packages.

    Args:
        lock: the text of the lock file.
        build: ``full``, ``slim`` or ``cpu``.
        index: the address of an index of CPU builds.
        log: file for what pip says.
    """
    site = Path(sysconfig.get_path("purelib"))
    before = _installed(site)
    if others := from_index(lock, build):
        arguments = ["--no-deps", "--index-url", index, *others]
        pip_install(arguments, Progress(len(others), site), log)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "requirements.txt"
        file.write_text(hashed(lock, build), encoding="utf-8")
        # Of a part of the lock file, what is left out must not be asked for by what is not.
        partly = [] if build == "full" else ["--no-deps"]
        arguments = [*partly, "--require-hashes", "--requirement", str(file)]
        pip_install(arguments, Progress(len(pins(file.read_text())), site), log)
    return _installed(site) - before


def has_nvidia() -> bool:
    """Say whether an NVIDIA device is seen here."""
    return Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None


def main() -> None:
    """Install, and keep which build it was."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", choices=("", "full", "slim", "cpu"), default="")
    parser.add_argument("--index", required=True)
    parser.add_argument("--lock", type=Path, default=Path("requirements.lock"))
    parser.add_argument("--kept", type=Path, default=Path(".venv/.build"))
    parser.add_argument("--log", type=Path, default=Path(".venv/install.log"))
    options = parser.parse_args()
    # A new lock file is installed as the one before it was.
    kept = options.kept.read_text().strip() if options.kept.exists() else "full"
    build, linux = options.build or kept, sys.platform == "linux"
    size = f": {_GIGABYTES[build]}" if linux and build in _GIGABYTES else ""
    print(f"installing {options.lock} ({build}) into {sys.prefix}{size}", file=sys.stderr)
    if linux and build == "full" and not has_nvidia():
        print(_OFFER, file=sys.stderr)
    start = time.monotonic()
    try:
        count = install(options.lock.read_text(encoding="utf-8"), build, options.index, options.log)
    except KeyboardInterrupt:
        raise SystemExit("stopped; the next call of make begins the installation again") from None
    minutes, seconds = divmod(int(time.monotonic() - start), 60)
    print(f"installed {count} packages in {minutes}:{seconds:02d}", file=sys.stderr)
    options.kept.write_text(f"{build}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
