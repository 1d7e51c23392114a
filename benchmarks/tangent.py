"""The exact tangent grid against a Jacobian-vector product at each point.

    python benchmarks/tangent.py [--images 16] [--points 5100] [--dtype float32]

8 built-in tasks, all 255 subsets, 21 lambdas, on the built-in model. Experts are fine-tuned in the
tangent space for a few steps, so that directions and margins are those of real ones. Brute force
places theta_0 + lambda sum tau at each point and calls ``torch.func.jvp`` on the images of each task
of the subset; the grid passes the images once per vector. Both classify under the same heads, and
every logit and every label is compared. Brute force on fewer ``--points``, drawn at random, is
extrapolated, and says so. In float64 brute force is an oracle: slower, and only the grid rounds.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from memory import BUILT_IN, TASKS, clip_of
from pairing import Paired, machine, seconds
from torch.func import functional_call, jvp
from torch.nn.attention import SDPBackend, sdpa_kernel

from taskgrid.data.builtin import builtin_task
from taskgrid.data.builtin.task import sample
from taskgrid.data.preprocess import prepare
from taskgrid.evaluation.opening.memory import EvaluationTask, Examples, Held
from taskgrid.evaluation.plan.planner import make_plan
from taskgrid.evaluation.plan.setting import MethodRef, Request
from taskgrid.evaluation.tangent.engine import TangentEngine
from taskgrid.finetuning.loop import Samples, finetune
from taskgrid.finetuning.recipe import Recipe
from taskgrid.lattice.points import format_lambda
from taskgrid.lattice.subsets import parse_subset, subset_name, subset_of_number
from taskgrid.merging.recipe import MergeRecipe
from taskgrid.models.heads import build_head
from taskgrid.models.inference import to_input
from taskgrid.models.tower import build_tower
from taskgrid.provenance.digests import digest
from taskgrid.store.weights import State
from taskgrid.vectors import subtract

RECIPE = Recipe(steps=40, batch_size=32, warmup_steps=4, lr=2e-4, crop_scale=1.0)
LAMBDAS = tuple(format_lambda(step / 20) for step in range(21))


def images_of(task: str, split: str, count: int, size: int) -> Examples:
    described = builtin_task(task)
    step = max(1, described.counts[split] // count)
    chosen = [sample(described, split, index) for index in range(0, step * count, step)]
    pixels = np.stack([prepare(one.pixels, size) for one in chosen])
    labels = np.array([one.label for one in chosen], dtype=np.int64)
    return pixels, labels


def make_world(count: int) -> Held:
    """Return experts that were fine-tuned for a few steps, and ``count`` images of each task."""
    clip = clip_of(BUILT_IN)
    card, base = clip.card(), clip.visual_state()
    tasks, experts = {}, {}
    for task in TASKS:
        described = builtin_task(task)
        head = build_head(clip, described.classes, described.templates)
        train = Samples(*images_of(task, "train", 256, card.image_size))
        done = finetune(card, base, head, train, None, RECIPE, task=task, mode="linear")
        experts[task] = done.state
        images = images_of(task, "test", count, card.image_size)
        tasks[task] = EvaluationTask(head, val=images, test=images)
    vectors = {task: subtract(base, state, task) for task, state in experts.items()}
    return Held(base, card, tasks, vectors, experts)


class BruteForce:
    """The tangent model at each point, as code without this library would have it."""

    def __init__(self, world: Held, dtype: torch.dtype) -> None:
        self.tower = build_tower(world.card).to(dtype)
        self.tower.load_state_dict(world.base)
        self.start = {name: p.detach() for name, p in self.tower.named_parameters()}
        self.vectors = {
            task: {name: vector[name].to(dtype) for name in self.start}
            for task, vector in world.vectors.items()
        }
        self.heads = {name: task.head.weight.to(dtype) for name, task in world.tasks.items()}
        self.images = {
            name: to_input(torch.from_numpy(task.val[0]), world.card.mean, world.card.std).to(dtype)
            for name, task in world.tasks.items()
        }

    def point(self, subset: tuple[str, ...], scale: float) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield the logits of the images of each task of a subset."""
        step = {
            name: scale * sum(self.vectors[task][name] for task in subset) for name in self.start
        }
        for task in subset:
            images = self.images[task]

            def features(weights: State, images: torch.Tensor = images) -> torch.Tensor:
                return functional_call(self.tower, weights, (images,))

            value, slope = jvp(features, (self.start,), (step,))
            unit = torch.nn.functional.normalize(value + slope, dim=-1)
            yield task, unit @ self.heads[task].T


@dataclass
class Differences:
    """How far logits and labels of the two sides are apart."""

    logits: float = 0.0
    labels: int = 0
    samples: int = 0
    closest: float = float("inf")

    def add(self, ours: torch.Tensor, theirs: torch.Tensor) -> None:
        theirs = theirs.double()
        self.logits = max(self.logits, float((ours - theirs).abs().max()))
        self.labels += int((ours.argmax(1) != theirs.argmax(1)).sum())
        self.samples += len(ours)
        top = theirs.topk(2, dim=1).values
        self.closest = min(self.closest, float((top[:, 0] - top[:, 1]).min()))


def main() -> None:
    """Make experts, evaluate the grid both ways, compare."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=16, help="images per task")
    parser.add_argument("--points", type=int, default=255 * 20, help="points of brute force")
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    world = make_world(args.images)
    material = world.material()
    setting = world.setting("taskgrid-vit-4-s0", "linear", 0, "fp32", "tangent")
    subsets = [subset_name(subset_of_number(number, TASKS)) for number in range(1, 256)]
    ref = MethodRef("task_arithmetic", {}, digest("code"))
    plan = make_plan(setting, ref, subsets, LAMBDAS)
    requests: dict[str, Request] = {}
    for name in plan.subsets:
        for scale in plan.lambdas:
            for task in parse_subset(name):
                request = plan.merged(parse_subset(name), scale, task, "val")
                requests[request.key] = request

    def open_engine() -> TangentEngine:
        recipe = MergeRecipe.of("task_arithmetic", {})
        return TangentEngine(material, setting, recipe, batch_size=128)

    def grid() -> None:
        assert sum(
            1 for _ in open_engine().evaluate(list(requests.values()), lambda n: None)
        ) == len(requests)

    # Lambda 0 is the base, which neither side needs a product for.
    points = [(parse_subset(name), scale) for name in subsets for scale in LAMBDAS[1:]]
    drawn = random.Random(0).sample(points, min(args.points, len(points)))
    brute, answers = BruteForce(world, getattr(torch, args.dtype)), []

    def by_points(some: list[tuple[tuple[str, ...], str]]) -> None:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            torch.backends.mha.set_fastpath_enabled(False)
            for subset, scale in some:
                for task, logits in brute.point(subset, float(scale)):
                    answers.append((subset, scale, task, logits))
            torch.backends.mha.set_fastpath_enabled(True)

    grid()
    by_points(drawn[:5])
    answers.clear()
    products = sum(len(subset) for subset, _ in points)
    fast, slow = [], []
    # In turns, so that other work on the machine slows both sides alike.
    for part in (drawn[turn :: args.turns] for turn in range(args.turns)):
        fast.append(seconds(grid))
        share = sum(len(subset) for subset, _ in part) / products
        slow.append(seconds(lambda part=part: by_points(part)) / share)  # type: ignore[misc]
    times = Paired(tuple(fast), tuple(slow))
    print(machine())
    print(
        f"{len(requests)} rows of 255 subsets x 21 lambdas, {args.images} images per task, "
        f"{args.threads} threads, brute force in {args.dtype}"
    )
    kind = "all points" if len(drawn) == len(points) else f"extrapolated from {len(drawn)} points"
    print(f"grid against brute force ({kind}): {times}")
    found, engine = Differences(), open_engine()
    by_set: dict[str, dict[tuple[str, ...], list[tuple[str, torch.Tensor]]]] = {}
    for subset, scale, task, logits in answers:
        by_set.setdefault(task, {}).setdefault(subset, []).append((scale, logits))
    for task, lines in by_set.items():
        for subset, some in lines.items():
            scales = torch.tensor([float(scale) for scale, _ in some], dtype=torch.float64)
            for ours, (_, theirs) in zip(
                engine.line(subset, task, "val").logits(scales), some, strict=True
            ):
                found.add(ours, theirs)
    print(
        f"largest difference of a logit {found.logits:.2e}; labels that differ {found.labels} of "
        f"{found.samples}; closest two largest logits {found.closest:.1e}"
    )


if __name__ == "__main__":
    main()
