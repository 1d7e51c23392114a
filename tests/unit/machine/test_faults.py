"""Memory that runs out and devices that fail: a sentence that says so; of all else a traceback."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from taskgrid.machine.faults import explain_fault
from taskgrid.workflow.command import run

GONE = "CUDA error: unspecified launch failure\nCUDA kernel errors might be asynchronously reported"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            torch.OutOfMemoryError(
                "CUDA out of memory. Tried to allocate 2.00 GiB.\nProcess 7 has"
            ),
            "the device's memory ran out (CUDA out of memory. Tried to allocate 2.00 GiB): set eval",
        ),
        (RuntimeError("CUDA error: out of memory"), "the device's memory ran out (CUDA error: out"),
        (
            torch.AcceleratorError(GONE),
            "the device failed or is gone (CUDA error: unspecified launch",
        ),
        (RuntimeError(GONE), "the device failed or is gone (CUDA error: unspecified launch"),
        (RuntimeError("NVML_SUCCESS == r INTERNAL ASSERT FAILED"), "the device failed or is gone"),
        (MemoryError(), "the machine's memory ran out (nothing more is said): give the job more"),
        (
            RuntimeError(
                "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"
            ),
            "the machine's memory ran out ([enforce fail",
        ),
    ],
)
def test_a_job_whose_memory_or_device_fails_says_so_in_a_sentence(
    error: Exception, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def main() -> None:
        raise error

    with pytest.raises(SystemExit, match="1"):
        run(main)
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"error: {words}")
    assert said.endswith("what is finished is kept, and the same command goes on from there; "
                         "`--retries 2` tries again by itself")  # fmt: skip


def test_arrays_that_fit_nowhere_are_told_too() -> None:
    with pytest.raises(MemoryError) as caught:
        np.empty(1 << 58)
    assert "Unable to allocate 2.00 EiB" in str(explain_fault(caught.value))
    with pytest.raises(RuntimeError) as refused:
        torch.empty(1 << 55)
    assert "the machine's memory ran out" in str(explain_fault(refused.value))


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        torch.AcceleratorError("CUDA error: device-side assert triggered"),
        ValueError("out of memory"),
    ],
)
def test_a_mistake_in_the_code_keeps_its_traceback(
    error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    def main() -> None:
        raise error

    assert explain_fault(error) is None
    with pytest.raises(SystemExit):
        run(main)
    assert "Traceback" in capsys.readouterr().err
