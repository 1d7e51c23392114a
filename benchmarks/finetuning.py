"""Fine-tuning against a plain loop of the papers' recipe.

    python benchmarks/finetuning.py
    python benchmarks/finetuning.py --architecture ViT-B-32-quickgelu --batch 16 --steps 1 --turns 2
    python benchmarks/finetuning.py --architecture ViT-L-14-quickgelu --device cuda \
        --batch 128 --accumulate 2 --precision bf16 --steps 30 --workers 8

The plain loop is what the papers' scripts do: a ``DataLoader`` opens image files, torchvision crops
them (``RandomResizedCrop`` on Pillow images), and AdamW steps on the clipped gradient. Both sides
begin with files of oblong JPEG images, train the same tower from the same weights on the same
device with the same threads, and count updates alone: ours has decoded the images before, once (the
time is printed), the plain loop decodes them in each epoch, its first batch not counted.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from memory import BUILT_IN, clip_of
from pairing import machine
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import (
    Compose,
    InterpolationMode,
    Normalize,
    RandomResizedCrop,
    ToTensor,
)

from taskgrid.config import TaskSpec
from taskgrid.data.dataset import build_dataset
from taskgrid.finetuning.feed import Originals, Samples
from taskgrid.finetuning.loop import finetune
from taskgrid.finetuning.recipe import Recipe
from taskgrid.models.card import ModelCard
from taskgrid.models.encoder import ImageEncoder
from taskgrid.models.heads import Head
from taskgrid.store.images import ImageStore, PixelRows
from taskgrid.store.originals import OriginalStore
from taskgrid.store.weights import State

CLASSES = 10


@dataclass(frozen=True)
class Setting:
    """What both sides share."""

    card: ModelCard
    state: State
    head: Head
    folder: Path
    batch: int
    steps: int
    accumulate: int
    precision: str
    device: torch.device
    workers: int


def tower(architecture: str) -> tuple[ModelCard, State]:
    """Return the built-in tower, or one with random weights."""
    clip = clip_of(architecture)
    return clip.card(), clip.visual_state()


def write_images(folder: Path, count: int, side: int) -> None:
    """Write smooth JPEG images of three to four sides, a good half larger than the crops."""
    random = np.random.default_rng(0)
    shape = (round(1.67 * side), round(2.23 * side))
    for number in range(count):
        coarse = random.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize(shape[::-1], Image.Resampling.BICUBIC)
        path = folder / "train" / str(number % CLASSES) / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, quality=90)


def decoded(setting: Setting) -> Samples:
    """Do the dataset rule's work."""
    files = [setting.folder / name for name in ("images.arrow", "dataset.json", "train.arrow")]
    task = TaskSpec(name="images", source="folder", path=str(setting.folder))
    started = time.perf_counter()
    build_dataset(task, setting.card.image_size, "bicubic", *files[:2], out_originals=files[2])
    images, store = ImageStore.open(files[0]), OriginalStore.open(files[2])
    print(
        f"decoding once: {len(images) / (time.perf_counter() - started):.0f} images/s, one thread"
    )
    rows = images.rows(images.ids)
    return Samples(
        PixelRows(images.pixels, rows), images.labels, Originals(store, store.places(images, rows))
    )


def ours(setting: Setting, samples: Samples) -> float:
    """Return images per second of our loop, its first update not counted."""
    recipe = Recipe(
        steps=setting.steps + 1,
        batch_size=setting.batch,
        accumulate=setting.accumulate,
        warmup_steps=0,
        precision="bf16" if setting.precision == "bf16" else "fp32",
        eval_every=1,
    )
    done = finetune(
        setting.card,
        setting.state,
        setting.head,
        samples,
        None,
        recipe,
        task="images",
        device=setting.device,
    )
    return statistics.harmonic_mean([speed for _, speed in done.pace[1:]])


def plain(setting: Setting) -> float:
    """Return images per second of the plain loop, its first update not counted."""
    card, device = setting.card, setting.device
    transform = Compose(
        [
            RandomResizedCrop(
                card.image_size, scale=(0.9, 1.0), interpolation=InterpolationMode.BICUBIC
            ),
            ToTensor(),
            Normalize(card.mean, card.std),
        ]
    )
    loader = DataLoader(
        ImageFolder(setting.folder / "train", transform),
        batch_size=setting.batch // setting.accumulate,
        shuffle=True,
        num_workers=setting.workers,
        drop_last=True,
        pin_memory=device.type == "cuda",
        persistent_workers=setting.workers > 0,
    )
    encoder = ImageEncoder.from_card(card, setting.state).to(device)
    encoder.requires_grad_(True).train()
    head = setting.head.to(device)
    parameters = list(encoder.parameters())
    optimiser = torch.optim.AdamW(parameters, lr=1e-5, weight_decay=0.1)
    batches = endless(loader)
    seconds = []
    for _ in range(setting.steps + 1):
        started = time.perf_counter()
        optimiser.zero_grad()
        for _ in range(setting.accumulate):
            images, labels = next(batches)
            images = images.to(device, non_blocking=True)
            labels = labels.to(device, non_blocking=True)
            with torch.autocast(
                device.type,
                dtype=torch.bfloat16,
                enabled=setting.precision == "bf16",
            ):
                features = encoder(images)
            loss = torch.nn.functional.cross_entropy(head.logits(features.float()), labels)
            loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return setting.batch * setting.steps / sum(seconds[1:])


def endless(loader: DataLoader) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    return itertools.chain.from_iterable(itertools.repeat(loader))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--architecture", default=BUILT_IN)
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--threads", type=int, default=1, help="CPU threads of torch, on both sides"
    )
    parser.add_argument("--workers", type=int, default=1, help="the plain loop's loading processes")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--accumulate", type=int, default=1)
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--steps", type=int, default=10, help="updates per turn")
    parser.add_argument("--turns", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.backends.cudnn.allow_tf32 = False
    card, state = tower(args.architecture)
    rows = torch.randn(CLASSES, card.tower["embed_dim"], generator=torch.Generator().manual_seed(0))
    weight = 100 * torch.nn.functional.normalize(rows, dim=1)
    head = Head(weight, tuple(f"class {i}" for i in range(CLASSES)), card.lineage())
    with tempfile.TemporaryDirectory() as folder:
        setting = Setting(
            card,
            state,
            head,
            Path(folder),
            args.batch,
            args.steps,
            args.accumulate,
            args.precision,
            torch.device(args.device),
            args.workers,
        )
        write_images(setting.folder, max(args.batch * min(args.steps + 1, 8), 64), card.image_size)
        samples = decoded(setting)
        turns = [(ours(setting, samples), plain(setting)) for _ in range(args.turns)]
    ratios = [mine / theirs for mine, theirs in turns]
    mine, theirs = (statistics.median(side) for side in zip(*turns, strict=True))
    print(
        f"{args.architecture}, batch {args.batch}, {args.precision}, {args.threads} threads, "
        f"{args.workers} workers: {mine:.4g} against {theirs:.4g} images/s, "
        f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}, "
        f"{len(turns)} turns)"
    )
    print(machine())


if __name__ == "__main__":
    main()
