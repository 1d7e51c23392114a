"""The engine against its limit, and against the usual way of doing it.

    python benchmarks/engine.py limit [--architecture ViT-B-32-quickgelu] [--device cuda] [--compile]
    python benchmarks/engine.py precision [--architecture ViT-B-32-quickgelu] [--device cuda]
    python benchmarks/engine.py naive

``limit``: images per second of the engine over many grid points, as a share of a bare forward loop
of the same model over images that are resident, already normalised float tensors; and its operations
per second as a share of those of a large matrix product in the same precision.

``precision``: the engine in bf16 against the engine in fp32, over the same points.

``naive``: the same points of the built-in 8-task grid, done as the papers' scripts do them: for each
point load the checkpoints, open the images and decode them, build the heads, run the model. Their
loaders have 16 worker processes by default (``--workers``), which help little where images are small;
with none the naive way is at its best here.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import open_clip
import torch
from memory import BUILT_IN, TASKS, clip_of
from pairing import machine, paired, seconds
from PIL import Image
from safetensors.torch import load_file, save_file

from taskgrid.config.architectures import operations
from taskgrid.data.builtin import builtin_task, samples
from taskgrid.data.preprocess import prepare
from taskgrid.evaluation.engine.engine import Engine
from taskgrid.evaluation.engine.material import Material
from taskgrid.evaluation.opening.memory import EvaluationTask, Examples, Held
from taskgrid.evaluation.plan.setting import BASE, Request, Weights
from taskgrid.lattice.subsets import subset_of_number
from taskgrid.merging.recipe import MergeRecipe
from taskgrid.models.clip import Clip
from taskgrid.models.encoder import ImageEncoder
from taskgrid.models.heads import Head, build_head
from taskgrid.models.inference import to_input
from taskgrid.store.weights import State


def random_vectors(state: State) -> dict[str, State]:
    generator = torch.Generator().manual_seed(0)
    return {
        task: {
            key: 1e-3 * torch.randn(tensor.shape, generator=generator)
            for key, tensor in state.items()
            if tensor.is_floating_point()
        }
        for task in TASKS
    }


def held(clip: Clip, count: int, classes: int) -> Held:
    """Return random images, heads and vectors: ``count`` images, the same for each task."""
    random, card = np.random.default_rng(0), clip.card()
    size = card.image_size
    pixels = random.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    images: Examples = (pixels, random.integers(0, classes, count))
    rows = torch.nn.functional.normalize(torch.randn(classes, card.tower["embed_dim"]), dim=1)
    head = Head(100 * rows, tuple(f"class {i}" for i in range(classes)), {})
    state, task = clip.visual_state(), EvaluationTask(head, val=images, test=images)
    return Held(state, card, dict.fromkeys(TASKS, task), random_vectors(state))


def requests(points: int, images: int) -> list[Request]:
    """Return points over the lattice's first subsets, three coefficients each, one task each."""
    weights = [
        Weights("merge", subset_of_number(1 + i // 3, TASKS), ("0.20", "0.50", "0.90")[i % 3])
        for i in range(points)
    ]
    return [
        Request(f"{i:032x}", one, one.subset[0], "val", images) for i, one in enumerate(weights)
    ]


def limit(args: argparse.Namespace) -> None:
    """Compare the engine with a bare forward loop."""
    device = torch.device(args.device)
    given = held(clip_of(args.architecture), args.images, classes=100)
    engine = Engine(
        given.material(),
        MergeRecipe.of("task_arithmetic", {}),
        device=device,
        batch_size=args.batch_size,
        precision=args.precision,
        compiled=args.compile,
    )
    asked = requests(args.points, args.images)
    card = given.card
    encoder = ImageEncoder.from_card(card, given.base).to(device).eval().requires_grad_(False)
    resident = [
        to_input(batch.to(device), card.mean, card.std)
        for batch in torch.from_numpy(given.tasks[TASKS[0]].val[0]).split(args.batch_size)
    ]

    def measured() -> None:
        for _ in engine.evaluate(asked, lambda count: None):
            pass

    def bare() -> None:
        half = args.precision == "bf16"
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=half):
            for _ in range(args.points):
                for batch in resident:
                    encoder(batch)

    found = paired(measured, bare, args.turns)
    rate = args.points * args.images / (sum(found.first) / len(found.first))
    print(f"limit, {args.architecture}, batch {args.batch_size}, {args.precision}, {device}")
    print(f"{args.points} points x {args.images} images: {found}; engine {rate:.1f} images/s")
    print(f"engine / bare rate: {found.ratio:.3f}")
    achieved, most = 2 * rate * operations(args.architecture), ceiling(device, args.precision)
    print(
        f"{achieved / 1e12:.3f} TFLOP/s, {achieved / most:.2f} of the {most / 1e12:.3f} TFLOP/s of a "
        "large matrix product"
    )


def ceiling(device: torch.device, precision: str, turns: int = 5) -> float:
    """Return the operations per second of a large matrix product, two per multiply-add."""
    size, times = (8192, 50) if device.type == "cuda" else (2048, 1)
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    left, right = (torch.randn(size, size, dtype=kind, device=device) for _ in range(2))
    out = torch.empty_like(left)

    def multiply() -> None:
        for _ in range(times):
            torch.mm(left, right, out=out)

    multiply()
    return 2 * size**3 * times / statistics.median(seconds(multiply) for _ in range(turns))


def precision(args: argparse.Namespace) -> None:
    """Compare the engine in bf16 with the engine in fp32."""
    material = held(clip_of(args.architecture), args.images, classes=100).material()
    asked = requests(args.points, args.images)

    def measured(kind: str) -> Callable[[], None]:
        engine = Engine(
            material,
            MergeRecipe.of("task_arithmetic", {}),
            device=args.device,
            batch_size=args.batch_size,
            precision=kind,
        )

        def evaluate() -> None:
            for _ in engine.evaluate(asked, lambda count: None):
                pass

        return evaluate

    found = paired(measured("bf16"), measured("fp32"), args.turns)
    print(f"precision, {args.architecture}, batch {args.batch_size}, {args.device}")
    print(f"{args.points} points x {args.images} images: {found}")
    print(f"bf16 / fp32 rate: {found.ratio:.3f}")


@dataclass(frozen=True)
class Files:
    """What the papers' scripts read: checkpoints and images, as files."""

    folder: Path
    clip: Clip

    def write(self, per_task: int) -> None:
        base = self.clip.visual_state()
        save_file(base, self.folder / "base.safetensors")
        for task, vector in random_vectors(base).items():
            expert = {key: tensor + vector.get(key, 0) for key, tensor in base.items()}
            save_file(expert, self.folder / f"{task}.safetensors")
            for index, sample in zip(
                range(per_task), samples(builtin_task(task), "test"), strict=False
            ):
                path = self.folder / task / f"{sample.label:03d}" / f"{index:05d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(sample.pixels).save(path)

    def paths(self, task: str) -> list[Path]:
        return sorted((self.folder / task).glob("*/*.png"))

    @cached_property
    def material(self) -> Material:
        """What the engine starts from: images decoded once, heads built once."""
        base = load_file(self.folder / "base.safetensors")
        tasks, vectors = {}, {}
        for task in TASKS:
            expert = load_file(self.folder / f"{task}.safetensors")
            vectors[task] = {key: expert[key] - base[key] for key in base}
            paths = self.paths(task)
            pixels = np.stack(
                [
                    prepare(np.asarray(Image.open(path).convert("RGB")), self.clip.image_size)
                    for path in paths
                ]
            )
            labels = np.array([int(path.parent.name) for path in paths])
            images: Examples = (pixels, labels)
            tasks[task] = EvaluationTask(head_of(self.clip, task), val=images, test=images)
        return Held(base, self.clip.card(), tasks, vectors).material()


def head_of(clip: Clip, task: str) -> Head:
    described = builtin_task(task)
    return build_head(clip, described.classes, described.templates)


class Folder(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
    """Image files of one task, decoded when asked for."""

    def __init__(self, paths: list[Path], transform: object) -> None:
        self.paths, self.transform = paths, transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        path = self.paths[index]
        return self.transform(Image.open(path)), int(path.parent.name)  # type: ignore[operator]


def naive_point(files: Files, request: Request, workers: int) -> Iterator[int]:
    """Evaluate a point on its tasks as the papers' scripts do."""
    clip = clip_of(BUILT_IN)
    base = load_file(files.folder / "base.safetensors")
    merged = {key: tensor.clone() for key, tensor in base.items()}
    for task in request.weights.subset:
        expert = load_file(files.folder / f"{task}.safetensors")
        for key, tensor in merged.items():
            tensor += float(request.weights.point) * (expert[key] - base[key])
    clip.model.visual.load_state_dict(merged)
    transform = open_clip.image_transform(
        clip.image_size, is_train=False, mean=clip.mean, std=clip.std
    )
    for task in request.weights.subset:
        head = head_of(clip, task)
        loader = torch.utils.data.DataLoader(
            Folder(files.paths(task), transform), batch_size=128, num_workers=workers
        )
        correct = 0
        with torch.inference_mode():
            for images, labels in loader:
                logits = head.logits(clip.model.encode_image(images))
                correct += int((logits.argmax(1) == labels).sum())
        yield correct


LAMBDAS = tuple(f"{step / 20:.2f}" for step in range(21))


def asks(files: Files, weights: Sequence[Weights], subset: tuple[str, ...]) -> list[Request]:
    """Return the rows of some points of a subset; lambda 0 is the base, whatever the subset."""
    return [
        Request(
            f"{'+'.join(() if one.kind == 'base' else subset)} {one.point} {task}",
            one,
            task,
            "val",
            len(files.paths(task)),
        )
        for one in weights
        for task in subset
    ]


def naive(args: argparse.Namespace) -> None:
    """Compare the engine on whole lambda curves with the naive way on points drawn from them."""
    with tempfile.TemporaryDirectory() as folder:
        files = Files(Path(folder), clip_of(BUILT_IN))
        files.write(args.images)
        random = np.random.default_rng(0)
        subsets = [
            subset_of_number(int(number), TASKS)
            for number in random.choice(np.arange(1, 256), args.points, replace=False)
        ]
        drawn = [Weights("merge", subset, str(random.choice(LAMBDAS[1:]))) for subset in subsets]
        lambdas = [Weights("merge", (), scale) for scale in LAMBDAS[1:]]
        correct: dict[str, int] = {}
        fast, slow, wrong = [], [], 0
        clock = time.perf_counter()
        engine = Engine(files.material, MergeRecipe.of("task_arithmetic", {}), batch_size=128)
        began = time.perf_counter() - clock
        # In turns: a whole curve of ours, then one of its points the naive way.
        for one in drawn:
            curve = [BASE, *(replace(point, subset=one.subset) for point in lambdas)]
            clock = time.perf_counter()
            for outcome in engine.evaluate(asks(files, curve, one.subset), lambda count: None):
                correct[outcome.key] = outcome.correct
            fast.append((time.perf_counter() - clock) / len(LAMBDAS))
            clock = time.perf_counter()
            wanted = asks(files, [one], one.subset)
            for request, count in zip(
                wanted, naive_point(files, wanted[0], args.workers), strict=True
            ):
                wrong += count != correct[request.key]
            slow.append(time.perf_counter() - clock)
        ratios = [theirs / ours for theirs, ours in zip(slow, fast, strict=True)]
        each, theirs, points = np.mean(fast), np.mean(slow), 255 * len(LAMBDAS)
        print(
            f"naive with {args.workers} workers, built-in model, {len(TASKS)} tasks of {args.images} "
            f"images, {args.threads} thread"
        )
        print(
            f"per point: naive {theirs:.3f} s ({len(drawn)} points drawn), engine {each:.3f} s (their "
            f"curves of {len(LAMBDAS)}); start {began:.2f} s"
        )
        print(
            f"ratio: median {np.median(ratios):.1f} x ({min(ratios):.1f} to {max(ratios):.1f}, "
            f"{len(ratios)} turns)"
        )
        print(f"whole grid of {points}: {theirs * points / (began + each * points):.1f} x")
        print(f"counts of right answers that differ: {wrong}")


def main() -> None:
    """Run one comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["limit", "precision", "naive"])
    parser.add_argument("--architecture", default=BUILT_IN)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--compile", action="store_true", help="limit: torch.compile in the engine")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--points", type=int, default=12)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--workers", type=int, default=16)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(machine())
    {"limit": limit, "precision": precision, "naive": naive}[args.what](args)


if __name__ == "__main__":
    main()
