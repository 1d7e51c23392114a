"""GPU leases, with a simulated nvidia-smi and without any GPU."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from taskgrid.errors import DeviceError
from taskgrid.machine import devices


def test_cuda_visible_devices_decides() -> None:
    assert devices.visible_gpus({"CUDA_VISIBLE_DEVICES": "2, 5"}) == ["2", "5"]
    assert devices.visible_gpus({"CUDA_VISIBLE_DEVICES": ""}) == []


def test_without_nvidia_smi_there_is_no_gpu(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert devices.visible_gpus() == []


def test_nvidia_smi_is_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\nprintf '0\\n1\\n3\\n'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert devices.visible_gpus() == ["0", "1", "3"]


def test_the_cpu_is_the_fallback_of_auto_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with devices.lease_device("auto") as device:
        assert device.type == "cpu"
    with pytest.raises(DeviceError, match="no GPU"), devices.lease_device("cuda"):
        pass
    with pytest.raises(DeviceError, match="auto, cpu or cuda"), devices.lease_device("gpu"):
        pass


def _hold(folder: Path, chosen: multiprocessing.Queue[str]) -> None:
    gpu, _stream = devices._acquire(["0", "1"], folder)
    chosen.put(gpu)
    time.sleep(60)


def test_two_jobs_get_two_devices_and_a_killed_job_frees_its_own(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    chosen: multiprocessing.Queue[str] = context.Queue()
    jobs = [context.Process(target=_hold, args=(tmp_path, chosen)) for _ in range(3)]
    for job in jobs[:2]:
        job.start()
    taken = {chosen.get(timeout=20), chosen.get(timeout=20)}
    assert taken == {"0", "1"}
    jobs[2].start()
    time.sleep(0.3)
    assert chosen.empty()
    first = jobs[0].pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    assert chosen.get(timeout=20) in taken
    for job in jobs:
        job.kill()
        job.join()
