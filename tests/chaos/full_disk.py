"""A disk that is full, gets a little room, is full again, until there is enough."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.chaos.prepared import Undisturbed, leftovers
from tests.chaos.run import Run

_STEPS = 4
_MOST = 16
_PAGE = 4096
_TRACE = re.compile(r"^ *(Traceback|File .*\.py\")", re.MULTILINE)
_SENTENCE = "the disk is full: free some space and run the same command again"


def full_disk(run: Run, expected: Undisturbed) -> list[str]:
    """Run with results on a disk that has room for none of them, then for a quarter, and so on.

    Trainings that save themselves take more room than they leave: it goes on beyond the last quarter.

    Returns:
        What is not as it should be.

    Raises:
        PermissionError: if nothing may be mounted here.
    """
    results = run.checkout / "results"
    begin, end = _size(results), _size(expected.whole / "results")
    wrong: list[str] = []
    with _small_disk(results, begin) as resize:
        for step in range(_MOST):
            resize(begin + step * (end - begin) // _STEPS)
            before = len(run.said.read_text()) if step else 0
            with run.begin() as call:
                code = call.wait()
            text = run.said.read_text()[before:]
            run.settle()
            wrong += [f"step {step} left {path.name}" for path in leftovers(run.checkout)]
            if code == 0:
                return [*wrong, *run.judge(expected)]
            run.hits.append("disk")
            if _SENTENCE not in text:
                wrong.append(f"step {step} does not say that the disk is full")
            if _TRACE.search(text):
                wrong.append(f"step {step} ends in a traceback")
    return [*wrong, "it never ended"]


@contextmanager
def _small_disk(folder: Path, size: int) -> Iterator[Callable[[int], None]]:
    """Let a folder lie on a disk of so many bytes; give what resizes it."""
    aside = folder.rename(folder.with_name(f"{folder.name}-aside"))
    folder.mkdir()
    _mount(f"size={size}", "-t", "tmpfs", "none", str(folder))
    try:
        shutil.copytree(aside, folder, dirs_exist_ok=True)
        yield lambda size: _mount(f"remount,size={size}", str(folder))
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=False)


def _mount(options: str, *arguments: str) -> None:
    done = subprocess.run(
        ["mount", "-o", options, *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise PermissionError(f"a small disk cannot be mounted ({done.stderr.strip()})")


def _size(folder: Path) -> int:
    """Return the bytes that a folder's files take on a disk of pages."""
    sizes = (path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return sum(-(-size // _PAGE) * _PAGE for size in sizes)
