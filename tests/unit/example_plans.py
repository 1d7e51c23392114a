"""Plans of made-up digests and a bench that follows a law: evaluation without torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from taskgrid.evaluation.plan.setting import MethodRef, Part, Request, Setting, TaskRef
from taskgrid.plugins.cards import plugin_options
from taskgrid.provenance import derive_seed, digest
from taskgrid.store.outcome import Outcome


def setting(
    names: Sequence[str] = ("a", "b", "c"),
    val: int = 40,
    test: int = 60,
    control: Sequence[str] = (),
) -> Setting:
    """Return a setting of made-up digests; a task's depend on its name alone. Controls have no expert."""
    return Setting(
        model="tiny",
        mode="standard",
        seed=0,
        base=digest("base"),
        tower=digest("tower"),
        kernel=digest("kernel"),
        precision="fp32",
        tasks={
            name: TaskRef(
                head=digest(["head", name]),
                parts={
                    "val": Part(digest(["images", name]), digest(["val", name]), val),
                    "test": Part(digest(["images", name]), digest(["test", name]), test),
                },
                expert=None if name in control else digest(["expert", name]),
                vector=None if name in control else digest(["vector", name]),
            )
            for name in (*names, *control)
        },
    )


def method(name: str = "task_arithmetic", **options: object) -> MethodRef:
    """Return a method of made-up code."""
    own = plugin_options("merger", name, options)
    return MethodRef(name, dict(own), digest(["code", name]))


@dataclass
class FakeBench:
    """Answers by a law, and counts: an accuracy curve that peaks where the number of tasks says.

    The law looks at what a request means, never at its key, as an encoder would.
    """

    asked: list[Request] = field(default_factory=list)
    opened: int = 0

    def open(self) -> FakeBench:
        self.opened += 1
        return self

    def evaluate(
        self, requests: Sequence[Request], advance: Callable[[int], None]
    ) -> Iterator[Outcome]:
        for request in requests:
            self.asked.append(request)
            yield fake_outcome(request)
            advance(request.n)


def fake_outcome(request: Request) -> Outcome:
    weights = request.weights
    named = weights.coefficients.named.values()
    scale = sum(named) / len(named) if named else float(weights.point)
    if weights.kind == "expert":
        # Experts differ, so that a row normalised by another task's expert shows.
        gain = 0.65 - 0.05 * (ord(request.task[0]) % 5) if request.task in weights.subset else 0.1
    else:
        peak = 1.0 / max(len(weights.subset), 1)
        own = 0.5 if request.task in weights.subset else 0.05
        gain = own * (1 - (scale / peak - 1) ** 2) if scale else 0.0
    accuracy = min(max(0.3 + gain, 0.0), 1.0)
    random = np.random.default_rng(
        derive_seed(weights.kind, *weights.subset, weights.point, request.task, request.split)
    )
    hits = random.permutation(request.n) < round(accuracy * request.n)
    return Outcome.of(request.key, hits, 1 - accuracy, 0.1)
