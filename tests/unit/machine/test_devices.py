"""GPU leases, with a simulated nvidia-smi and without any GPU."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

import pytest

from taskgrid.errors import DeviceError
from taskgrid.machine import devices
from taskgrid.machine.devices import Card, device_of, installed_cards, visible_gpus

# As nvidia-smi prints it: a whole card, a card in two slices, a whole one after a gap.
LISTING = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-4a9c1f0e-7a15-1b7e-9d2c-1c1f1f4d3a52)
  MIG 3g.20gb     Device  0: (UUID: MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f)
  MIG 3g.20gb     Device  1: (UUID: MIG-cba663e8-9bed-5b25-b243-5985ef7c9beb)
GPU 3: NVIDIA A100-SXM4-40GB (UUID: GPU-b0c44f0e-5a9f-4a9c-83b9-19c1c9a4a0d0)
"""
WHOLE = "GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77"
CUT = "GPU-4a9c1f0e-7a15-1b7e-9d2c-1c1f1f4d3a52"
SLICES = ("MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f", "MIG-cba663e8-9bed-5b25-b243-5985ef7c9beb")
LAST = "GPU-b0c44f0e-5a9f-4a9c-83b9-19c1c9a4a0d0"
# Old drivers name a slice by its card and two numbers.
OLD_SLICE = f"MIG-{CUT}/1/0"

Smi = Callable[[str], None]


@pytest.fixture
def smi(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Smi:
    """Put an nvidia-smi on the path that prints a listing, and set no variable that decides."""

    def install(listing: str) -> None:
        tool = tmp_path / "nvidia-smi"
        tool.write_text(f"#!/bin/sh\n[ \"$1\" = -L ] && cat <<'X'\n{listing}X\n")
        tool.chmod(0o755)

    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for name in ("CUDA_VISIBLE_DEVICES", "SLURM_JOB_ID"):
        monkeypatch.delenv(name, raising=False)
    return install


@pytest.fixture
def four(smi: Smi) -> list[str]:
    """Four stub devices that no other run of these tests knows."""
    uuids = [f"GPU-{uuid.uuid4()}" for _ in range(4)]
    smi("".join(f"GPU {index}: Stub (UUID: {name})\n" for index, name in enumerate(uuids)))
    return uuids


@pytest.fixture
def marks(tmp_path: Path) -> Path:
    """Where jobs mark the devices they use."""
    folder = tmp_path / "marks"
    folder.mkdir()
    return folder


def test_cuda_visible_devices_decides() -> None:
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "2, 5"}) == ["2", "5"]
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": f"{WHOLE},{SLICES[0]}"}) == [WHOLE, SLICES[0]]
    # CUDA stops at the first entry that is none.
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "3,-1,1"}) == ["3"]


@pytest.mark.parametrize("value", ["", " ", "-1", "none", "NoDevFiles", "void", ","])
def test_no_gpu_has_many_names(value: str) -> None:
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": value}) == []


def test_without_nvidia_smi_there_is_no_gpu(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert visible_gpus({}) == []


def test_nvidia_smi_is_asked_for_cards_and_slices(smi: Smi) -> None:
    smi(LISTING)
    assert installed_cards() == {"0": Card(WHOLE), "1": Card(CUT, SLICES), "3": Card(LAST)}
    assert visible_gpus({}) == [WHOLE, *SLICES, LAST]
    smi("No devices found.\n")
    assert visible_gpus({}) == []


@pytest.mark.parametrize(
    ("names", "device"),
    [
        (("0", WHOLE, WHOLE[:10]), WHOLE),
        (("3", LAST), LAST),
        # CUDA shows the first slice of a card that is cut.
        (("1", CUT, SLICES[0], SLICES[0][:9]), SLICES[0]),
        ((SLICES[1],), SLICES[1]),
        (("7",), "7"),
        (("GPU-0000",), "GPU-0000"),
    ],
)
def test_a_device_has_one_name(smi: Smi, names: tuple[str, ...], device: str) -> None:
    smi(LISTING)
    assert {device_of(name, installed_cards()) for name in names} == {device}


def test_slices_as_old_drivers_name_them(smi: Smi) -> None:
    smi(f"GPU 0: A100 (UUID: {CUT})\n  MIG 1g.5gb Device 0: (UUID: {OLD_SLICE})\n")
    assert visible_gpus({}) == [OLD_SLICE]
    assert device_of(OLD_SLICE, installed_cards()) == device_of("0", installed_cards()) == OLD_SLICE


def test_the_cpu_is_the_fallback_of_auto_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "NoDevFiles")
    with devices.lease_device("auto") as device:
        assert device.type == "cpu"
    with pytest.raises(DeviceError, match="no GPU"), devices.lease_device("cuda"):
        pass
    with pytest.raises(DeviceError, match="auto, cpu or cuda"), devices.lease_device("gpu"):
        pass


# A job that leases a device, fails if another has marked it as in use, and holds it until told.
JOB = """
import os, pathlib, sys, time
from taskgrid.machine.devices import device_of, installed_cards, lease_gpu, visible_gpus
folder = pathlib.Path(sys.argv[1])
with lease_gpu(visible_gpus()) as gpu:
    mark = folder / device_of(gpu, installed_cards())
    os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
    print(mark.name, flush=True)
    while not (folder / "go").exists():
        time.sleep(0.02)
    mark.unlink()
"""
BOX: dict[str, str] = {}
ALLOCATION = {"SLURM_JOB_ID": "4711", "CUDA_VISIBLE_DEVICES": "0,1,2,3"}
WAITING = "waiting for one of"


@contextmanager
def job(folder: Path, **environment: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", JOB, str(folder)],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def line(stream: IO[str] | None) -> str:
    assert stream is not None
    return stream.readline().strip()


@pytest.mark.parametrize("environment", [BOX, ALLOCATION], ids=["box", "allocation"])
def test_twelve_jobs_share_four_devices(
    four: list[str], marks: Path, environment: dict[str, str]
) -> None:
    with ExitStack() as stack:
        jobs = [stack.enter_context(job(marks, **environment)) for _ in range(12)]
        waited = time.monotonic() + 30
        while len(list(marks.iterdir())) < len(four) and time.monotonic() < waited:
            time.sleep(0.02)
        assert {mark.name for mark in marks.iterdir()} == set(four)
        (marks / "go").touch()
        ended = [process.communicate(timeout=60) for process in jobs]
    assert [process.returncode for process in jobs] == [0] * 12, ended


@pytest.mark.parametrize("environment", [BOX, ALLOCATION], ids=["box", "allocation"])
def test_a_killed_job_frees_its_device_within_a_second(
    four: list[str], marks: Path, environment: dict[str, str]
) -> None:
    with ExitStack() as stack:
        holders = [stack.enter_context(job(marks, **environment)) for _ in four]
        held = [line(process.stdout) for process in holders]
        assert sorted(held) == sorted(four)
        next_one = stack.enter_context(job(marks, **environment))
        assert WAITING in line(next_one.stderr)
        (marks / held[2]).unlink()
        killed = time.monotonic()
        holders[2].send_signal(signal.SIGKILL)
        assert line(next_one.stdout) == held[2]
        assert time.monotonic() - killed < 1


@pytest.mark.parametrize("name", ["1", "{uuid}", "{start}"])
def test_a_card_is_one_card_by_every_name(four: list[str], marks: Path, name: str) -> None:
    name = name.format(uuid=four[1], start=four[1][:14])
    with job(marks, CUDA_VISIBLE_DEVICES=four[1], TMPDIR="/tmp") as holder:
        assert line(holder.stdout) == four[1]
        with job(marks, CUDA_VISIBLE_DEVICES=name, TMPDIR=str(marks)) as other:
            assert WAITING in line(other.stderr)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be another user")
def test_two_users_do_not_share_a_device(four: list[str]) -> None:
    # Forked before the lease, for a fork of its holder holds it as well.
    context = multiprocessing.get_context("fork")
    held, leased = context.Event(), context.Event()

    def another_user() -> None:
        os.setuid(65534)
        held.wait(10)
        with devices.lease_gpu([four[0]]):
            leased.set()

    process = context.Process(target=another_user, daemon=True)
    process.start()
    with devices.lease_gpu(["0"]):
        held.set()
        assert not leased.wait(0.5)
        assert process.is_alive()
    assert leased.wait(10)
    process.join()


def test_a_single_gpu_is_what_its_allocation_was_given(
    four: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where SLURM shares a card between jobs, each gets it; on a box the second would wait."""
    with devices.lease_gpu(four[:1]), ExitStack() as stack:
        for number in ("1", "2"):
            monkeypatch.setenv("SLURM_JOB_ID", number)
            assert stack.enter_context(devices.lease_gpu(four[:1])) == four[0]
