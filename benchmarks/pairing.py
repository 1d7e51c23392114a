"""Timing two things side by side: alternately, in one process, medians of several."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class Paired:
    """Seconds of two things, run in turns.

    Attributes:
        first: seconds of the first, per turn.
        second: seconds of the second, per turn.
    """

    first: tuple[float, ...]
    second: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """Median over turns of second / first: how many times faster the first is."""
        pairs = zip(self.first, self.second, strict=True)
        return statistics.median(slow / quick for quick, slow in pairs)

    def __str__(self) -> str:
        """Say both medians, the ratio and its range."""
        ratios = [b / a for a, b in zip(self.first, self.second, strict=True)]
        return (
            f"{statistics.median(self.first):.3f} s against {statistics.median(self.second):.3f} s, "
            f"ratio {self.ratio:.2f} ({min(ratios):.2f} to {max(ratios):.2f}, {len(ratios)} turns)"
        )


def paired(first: Callable[[], object], second: Callable[[], object], turns: int = 5) -> Paired:
    """Run two things in turns, each once beforehand to warm up."""
    first()
    second()
    times = [(seconds(first), seconds(second)) for _ in range(turns)]
    return Paired(tuple(a for a, _ in times), tuple(b for _, b in times))


def seconds(work: Callable[[], object]) -> float:
    """Return how long something takes, the device's queue included."""
    _wait()
    started = time.perf_counter()
    work()
    _wait()
    return time.perf_counter() - started


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def machine() -> str:
    """Name the hardware and the versions that a number was measured with."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return (
        f"{_processor()}, {os.cpu_count()} cores, {device}; "
        f"Python {platform.python_version()}, torch {torch.__version__}"
    )


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
