"""How much memory a process may still take: what the machine has, within what its job is allowed.

Pages of files that are cached count as free: the kernel gives them up before it refuses memory.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class _Names:
    """What a version of control groups calls its files, and a group's cached pages of files."""

    limit: str
    used: str
    cached: tuple[str, str]


_V1 = _Names(
    "memory.limit_in_bytes", "memory.usage_in_bytes", ("total_active_file", "total_inactive_file")
)
_V2 = _Names("memory.max", "memory.current", ("active_file", "inactive_file"))


def available_bytes(
    proc: Path = Path("/proc"), control_groups: Path = Path("/sys/fs/cgroup")
) -> int:
    """Return the bytes that this process may still take without swapping or being killed.

    Args:
        proc: where the kernel tells of processes.
        control_groups: where it tells of limits, which schedulers and containers set.
    """
    rooms = [*_machine(proc / "meminfo"), *_groups(proc / "self" / "cgroup", control_groups)]
    if rooms:
        return max(0, min(rooms))
    # Other systems than Linux; not all of them tell what is free.
    free = "SC_AVPHYS_PAGES" if "SC_AVPHYS_PAGES" in os.sysconf_names else "SC_PHYS_PAGES"
    return os.sysconf(free) * os.sysconf("SC_PAGE_SIZE")


def _machine(meminfo: Path) -> Iterator[int]:
    for line in _lines(meminfo):
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            yield int(value.split()[0]) << 10


def _groups(membership: Path, mounted: Path) -> Iterator[int]:
    """Yield what is left below the limits of the process's groups and of those around them."""
    for line in _lines(membership):
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            names, top = _V1, mounted / "memory"
        elif not controllers:
            # Beside version 1, version 2 is mounted one folder down and has no memory controller.
            names, top = _V2, mounted
        else:
            continue
        # In a container the path may be the host's; then only the top exists, and has the limit.
        group = top / path.lstrip("/")
        for folder in (group, *group.parents):
            yield from _room(folder, names)
            if folder == top:
                break


def _room(folder: Path, names: _Names) -> Iterator[int]:
    limit, used = (_number(folder / name) for name in (names.limit, names.used))
    if limit is not None and used is not None:
        entries = (line.split() for line in _lines(folder / "memory.stat"))
        cached = sum(int(value) for name, value in entries if name in names.cached)
        yield limit - used + cached


def _number(file: Path) -> int | None:
    """Return a number, or None for ``max`` and what does not exist."""
    text = "".join(_lines(file))
    return int(text) if text.isdecimal() else None


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except OSError:
        return []
