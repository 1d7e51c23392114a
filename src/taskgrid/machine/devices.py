"""Which device a job computes on: one GPU per job, leased for the life of the process.

Snakemake limits how many GPU jobs run at once, never which GPU a job takes. A job therefore claims
a name in the kernel (an abstract Unix socket) that stands for one device. The claim is seen by
every user of the machine, needs no file, and ends with the process, also after SIGKILL.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from taskgrid.errors import DeviceError

if TYPE_CHECKING:
    import torch

_POLL_SECONDS = 0.1
# What schedulers and people write for no GPU; as in CUDA, entries behind it do not count.
_NO_GPU = {"", "-1", "none", "void", "nodevfiles"}
_LISTED = re.compile(r"^(?:GPU (?P<index>\d+)|\s+MIG ).*\(UUID: (?P<uuid>[^)]+)\)", re.MULTILINE)


@dataclass(frozen=True)
class Card:
    """A GPU of this machine: its UUID, and those of its MIG slices if it is cut into some."""

    uuid: str
    slices: tuple[str, ...] = ()

    @property
    def devices(self) -> tuple[str, ...]:
        """What a job can have of the card."""
        return self.slices or (self.uuid,)


def visible_gpus(environment: Mapping[str, str] | None = None) -> list[str]:
    """Return the identifiers of the GPUs this process may use, without initialising CUDA.

    ``CUDA_VISIBLE_DEVICES`` decides when it is set (empty, ``-1``, ``none`` and SLURM's
    ``NoDevFiles`` mean none); else ``nvidia-smi`` is asked for the UUIDs of cards and MIG slices.
    """
    environment = os.environ if environment is None else environment
    if "CUDA_VISIBLE_DEVICES" not in environment:
        return [device for card in installed_cards().values() for device in card.devices]
    gpus: list[str] = []
    for entry in environment["CUDA_VISIBLE_DEVICES"].split(","):
        if entry.strip().lower() in _NO_GPU:
            break
        gpus.append(entry.strip())
    return gpus


def installed_cards() -> dict[str, Card]:
    """Return the cards that ``nvidia-smi`` lists, by index; none where it is missing or fails."""
    try:
        listing = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    cards: dict[str, Card] = {}
    index = ""
    for line in _LISTED.finditer(listing):
        if line["index"] is not None:
            index = line["index"]
            cards[index] = Card(line["uuid"])
        else:
            cards[index] = Card(cards[index].uuid, (*cards[index].slices, line["uuid"]))
    return cards


def device_of(gpu: str, cards: Mapping[str, Card]) -> str:
    """Return the one name of a device that goes by an index, a UUID or the start of a UUID.

    Of a card that is cut into slices, CUDA takes the first. A name that no card knows is its own.
    """
    if gpu in cards:
        return cards[gpu].devices[0]
    for card in cards.values():
        if card.uuid.startswith(gpu):
            return card.devices[0]
        for device in card.slices:
            if device.startswith(gpu):
                return device
    return gpu


@contextmanager
def lease_device(request: str = "auto") -> Iterator[torch.device]:
    """Hold one device for the duration of the block; wait while others hold all of them.

    Args:
        request: ``auto`` (a GPU when there is one, else the CPU), ``cpu`` or ``cuda``.

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
    with lease_gpu(gpus) as chosen:
        os.environ["CUDA_VISIBLE_DEVICES"] = chosen
        import torch

        if not torch.cuda.is_available():
            raise DeviceError(
                f"GPU {chosen} is visible, but torch {torch.__version__} cannot use it: "
                "install a CUDA build of torch that fits the driver, or set device: cpu"
            )
        yield torch.device("cuda", 0)


@contextmanager
def lease_gpu(gpus: Sequence[str]) -> Iterator[str]:
    """Hold one of some GPUs, which no other process on this machine holds meanwhile.

    Inside a SLURM allocation only the processes of that allocation are asked: whether two
    allocations share a card is the scheduler's decision, and a single GPU is the job's own.
    """
    allocation = os.environ.get("SLURM_JOB_ID", "")
    if allocation and len(gpus) == 1:
        yield gpus[0]
        return
    cards = installed_cards()
    claims = {gpu: f"taskgrid-gpu/{allocation}/{device_of(gpu, cards)}" for gpu in gpus}
    announced = False
    while True:
        for gpu, name in claims.items():
            with socket.socket(socket.AF_UNIX) as claim:
                try:
                    claim.bind(f"\0{name}")
                except OSError as error:
                    if error.errno != errno.EADDRINUSE:
                        raise
                    continue
                yield gpu
                return
        if not announced:
            print(
                f"waiting for one of {len(gpus)} GPUs ({', '.join(gpus)})",
                file=sys.stderr,
                flush=True,
            )
            announced = True
        time.sleep(_POLL_SECONDS)


def device_name(device: torch.device) -> str:
    """Return what a GPU is called, and of other devices the kind."""
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
