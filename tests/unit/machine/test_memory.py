"""Memory that a process may take: the machine's, within the limits of its control groups."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from taskgrid.machine.memory import available_bytes

GIB = 1 << 30
UNLIMITED_V1 = 9223372036854771712


def machine(folder: Path, available: int, groups: str) -> None:
    (folder / "proc" / "self").mkdir(parents=True)
    # Little is free, because files are cached; most of that can be had.
    (folder / "proc" / "meminfo").write_text(
        f"MemTotal: {64 * GIB >> 10} kB\nMemFree: 1024 kB\nMemAvailable: {available >> 10} kB\n"
    )
    (folder / "proc" / "self" / "cgroup").write_text(groups)


def group(folder: Path, limit: int | str, used: int, stat: str = "", version: int = 2) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    names = ("max", "current") if version == 2 else ("limit_in_bytes", "usage_in_bytes")
    for name, value in zip(names, (limit, used), strict=True):
        (folder / f"memory.{name}").write_text(f"{value}\n")
    (folder / "memory.stat").write_text(stat)


def available(folder: Path) -> int:
    return available_bytes(folder / "proc", folder / "cgroup")


def test_what_the_machine_has_counts_cached_files_as_free(tmp_path: Path) -> None:
    machine(tmp_path, 48 * GIB, "0::/\n")
    assert available(tmp_path) == 48 * GIB


@pytest.mark.parametrize(("job", "step"), [(8 * GIB, "max"), ("max", 8 * GIB), (9 * GIB, 8 * GIB)])
def test_the_smallest_room_of_the_groups_above_counts(
    tmp_path: Path, job: int | str, step: int | str
) -> None:
    machine(tmp_path, 48 * GIB, "0::/slurm/job_7/step_0\n")
    root = tmp_path / "cgroup"
    # Version 2 has no such files at the root.
    group(root / "slurm", "max", 60 * GIB)
    group(root / "slurm/job_7", job, 3 * GIB)
    group(root / "slurm/job_7/step_0", step, 3 * GIB)
    assert available(tmp_path) == 5 * GIB


def test_cached_files_of_a_group_can_be_had(tmp_path: Path) -> None:
    machine(tmp_path, 48 * GIB, "0::/job\n")
    stat = f"anon {GIB}\nfile {6 * GIB}\nactive_file {2 * GIB}\ninactive_file {3 * GIB}\n"
    group(tmp_path / "cgroup/job", 8 * GIB, 7 * GIB, stat)
    assert available(tmp_path) == 6 * GIB


def test_a_group_that_is_full_leaves_nothing(tmp_path: Path) -> None:
    machine(tmp_path, 48 * GIB, "0::/job\n")
    group(tmp_path / "cgroup/job", 8 * GIB, 9 * GIB)
    assert available(tmp_path) == 0


def test_version_1_has_other_names(tmp_path: Path) -> None:
    lines = "12:cpu,cpuacct:/other\n4:memory:/slurm/job_7\n1:name=systemd:/job\n0::/job\n"
    machine(tmp_path, 48 * GIB, lines)
    root = tmp_path / "cgroup/memory"
    group(root, UNLIMITED_V1, 20 * GIB, version=1)
    stat = f"active_file {GIB}\ntotal_active_file {2 * GIB}\ntotal_inactive_file 0\n"
    group(root / "slurm/job_7", 8 * GIB, 5 * GIB, stat, version=1)
    assert available(tmp_path) == 5 * GIB


def test_in_a_container_the_path_may_be_the_hosts(tmp_path: Path) -> None:
    machine(tmp_path, 48 * GIB, "4:memory:/docker/0123\n")
    group(tmp_path / "cgroup/memory", 8 * GIB, GIB, version=1)
    assert available(tmp_path) == 7 * GIB


def test_where_the_kernel_tells_nothing_the_free_pages_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = {"SC_AVPHYS_PAGES": 3, "SC_PHYS_PAGES": 7, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr(os, "sysconf", pages.__getitem__)
    monkeypatch.setattr(os, "sysconf_names", {"SC_AVPHYS_PAGES": 86})
    assert available(tmp_path) == 3 * 4096
    monkeypatch.setattr(os, "sysconf_names", {})
    assert available(tmp_path) == 7 * 4096


def test_this_machine_has_memory() -> None:
    assert available_bytes() > 0
