"""Results on a file system on which every call takes a while, as on a busy file server.

python -m tests.chaos.slow_disk FOLDER PLACE   # shows FOLDER at PLACE until it is unmounted
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

from tests.chaos.prepared import Undisturbed
from tests.chaos.run import Run

SECONDS = 0.005
"""What a call takes: a look at a name, or up to 128 kB that are read or written."""

# Instead of nanoseconds: UTIME_NOW and UTIME_OMIT of utimensat(2).
_NOW, _KEPT = (1 << 30) - 1, (1 << 30) - 2


def slow_disk(run: Run, expected: Undisturbed) -> list[str]:
    """Run with results on a slow file system.

    Returns:
        What is not as it should be.

    Raises:
        PermissionError: if there can be no such file system here.
    """
    results = run.checkout / "results"
    with _shown(results.rename(results.with_name("results-aside")), results):
        with run.begin() as call:
            code = call.wait()
        return ["it failed"] if code else run.judge(expected)


@contextmanager
def _shown(folder: Path, place: Path) -> Iterator[None]:
    if importlib.util.find_spec("mfusepy") is None:
        raise PermissionError("needs pip install mfusepy, and Debian's libfuse3-3")
    place.mkdir()
    command = [sys.executable, "-m", __name__, str(folder), str(place)]
    with subprocess.Popen(command) as server:
        try:
            while not place.is_mount():
                if server.poll() is not None:
                    raise PermissionError("a slow disk cannot be mounted (what failed is above)")
                time.sleep(0.05)
            yield
        finally:
            subprocess.run(["umount", "--lazy", str(place)], stderr=subprocess.DEVNULL, check=False)


def main(folder: str, place: str) -> None:
    """Show a folder at another place, slowly, until it is unmounted there."""
    import mfusepy

    def at(path: str) -> Path:
        return Path(folder + path)

    def slowly(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def call(*arguments: Any) -> Any:
            time.sleep(SECONDS)
            return function(*arguments)

        return call

    def slow(cls: type) -> type:
        for name, function in list(vars(cls).items()):
            if callable(function):
                setattr(cls, name, slowly(function))
        return cls

    @slow
    class HandedOn(mfusepy.Operations):  # type: ignore[misc, name-defined]
        use_ns = True

        def getattr(self, path: str, fh: int | None = None) -> dict[str, int]:
            state = at(path).lstat()
            plain = ("st_mode", "st_nlink", "st_uid", "st_gid", "st_size", "st_ino", "st_blocks")
            times = ("st_atime", "st_mtime", "st_ctime")
            found = {name: getattr(state, name) for name in plain}
            return found | {name: getattr(state, f"{name}_ns") for name in times}

        def readdir(self, path: str, fh: int) -> list[str]:
            return [".", "..", *(one.name for one in at(path).iterdir())]

        def readlink(self, path: str) -> str:
            return str(at(path).readlink())

        def open(self, path: str, flags: int) -> int:
            return os.open(at(path), flags)

        def create(self, path: str, mode: int, fi: object = None) -> int:
            return os.open(at(path), os.O_RDWR | os.O_CREAT | os.O_TRUNC, mode)

        def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
            return os.pread(fh, size, offset)

        def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
            return os.pwrite(fh, data, offset)

        def fsync(self, path: str, datasync: int, fh: int) -> None:
            os.fsync(fh)

        def release(self, path: str, fh: int) -> None:
            os.close(fh)

        def truncate(self, path: str, length: int, fh: int | None = None) -> None:
            os.truncate(at(path) if fh is None else fh, length)

        def utimens(self, path: str, times: tuple[int, int]) -> None:
            state = at(path).lstat()
            access, change = (
                {_NOW: time.time_ns(), _KEPT: old}.get(given, given)
                for given, old in zip(times, (state.st_atime_ns, state.st_mtime_ns), strict=True)
            )
            os.utime(at(path), ns=(access, change), follow_symlinks=False)

        def chmod(self, path: str, mode: int) -> None:
            at(path).chmod(mode)

        def chown(self, path: str, user: int, group: int) -> None:
            os.chown(at(path), user, group, follow_symlinks=False)

        def rename(self, old: str, new: str) -> None:
            at(old).rename(at(new))

        def link(self, target: str, source: str) -> None:
            at(target).hardlink_to(at(source))

        def symlink(self, target: str, source: str) -> None:
            at(target).symlink_to(source)

        def unlink(self, path: str) -> None:
            at(path).unlink()

        def mkdir(self, path: str, mode: int) -> None:
            at(path).mkdir(mode)

        def rmdir(self, path: str) -> None:
            at(path).rmdir()

    mfusepy.FUSE(HandedOn(), place, foreground=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
