"""Which device a job computes on: one GPU per job, leased for the life of the process.

Snakemake limits how many GPU jobs run at once, never which GPU a job takes. A job therefore holds
an advisory lock on one device; the kernel releases it when the process ends, also after SIGKILL.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from taskgrid.errors import DeviceError

if TYPE_CHECKING:
    import torch

_POLL_SECONDS = 1.0


def visible_gpus(environment: Mapping[str, str] | None = None) -> list[str]:
    """Return the identifiers of the GPUs this process may use, without initialising CUDA.

    ``CUDA_VISIBLE_DEVICES`` decides when it is set (empty means none); else ``nvidia-smi`` is asked.
    """
    environment = os.environ if environment is None else environment
    if "CUDA_VISIBLE_DEVICES" in environment:
        return [
            name.strip() for name in environment["CUDA_VISIBLE_DEVICES"].split(",") if name.strip()
        ]
    try:
        listing = subprocess.run(
            ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return listing.stdout.split()


@contextmanager
def lease_device(request: str = "auto", lock_folder: Path | None = None) -> Iterator[torch.device]:
    """Hold one device for the duration of the block.

    Args:
        request: ``auto`` (a GPU when there is one, else the CPU), ``cpu`` or ``cuda``.
        lock_folder: where the lock files are; must be local to the machine.

    Raises:
        DeviceError: if ``cuda`` is asked for and there is none, or ``request`` is unknown.
    """
    if request not in ("auto", "cpu", "cuda"):
        raise DeviceError(f"device {request!r} is unknown; choose auto, cpu or cuda")
    gpus = [] if request == "cpu" else visible_gpus()
    if request == "cuda" and not gpus:
        raise DeviceError(
            "device: cuda is asked for, but this machine shows no GPU "
            "(check nvidia-smi and CUDA_VISIBLE_DEVICES, or set device: auto)"
        )
    if not gpus:
        import torch

        yield torch.device("cpu")
        return
    lock: IO[str] | None = None
    try:
        # Inside a SLURM job the scheduler has already given the job its own device.
        if "SLURM_JOB_ID" in os.environ:
            chosen = gpus[0]
        else:
            folder = lock_folder or Path(tempfile.gettempdir()) / f"taskgrid-gpu-{os.getuid()}"
            chosen, lock = _acquire(gpus, folder)
        os.environ["CUDA_VISIBLE_DEVICES"] = chosen
        import torch

        if not torch.cuda.is_available():
            raise DeviceError(
                f"GPU {chosen} is visible, but torch {torch.__version__} cannot use it: "
                "install a CUDA build of torch that fits the driver, or set device: cpu"
            )
        yield torch.device("cuda", 0)
    finally:
        if lock is not None:
            lock.close()


def device_name(device: torch.device) -> str:
    """Return what a GPU is called, and of other devices the kind."""
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _acquire(gpus: Sequence[str], folder: Path) -> tuple[str, IO[str]]:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    announced = False
    while True:
        for gpu in gpus:
            stream = (folder / f"{gpu.replace('/', '_')}.lock").open("w")
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                stream.close()
                continue
            return gpu, stream
        if not announced:
            print(
                f"waiting for one of {len(gpus)} GPUs ({', '.join(gpus)})",
                file=sys.stderr,
                flush=True,
            )
            announced = True
        time.sleep(_POLL_SECONDS)


def use_threads(count: int | None) -> None:
    """Limit torch to ``count`` CPU threads; the sums of a matrix product depend on their number."""
    if count is not None:
        import torch

        torch.set_num_threads(count)
