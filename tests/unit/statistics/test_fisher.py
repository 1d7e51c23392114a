"""Fisher information against explicit Jacobians in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from taskgrid.models.encoder import ImageEncoder
from taskgrid.models.inference import to_input
from taskgrid.statistics.computing import compute_statistic
from taskgrid.statistics.fisher import draw_labels
from taskgrid.store.weights import State
from tests.unit.example_grid import CLASSES, World, world
from tests.unit.example_statistics import computed, examples


@pytest.fixture(scope="module")
def small() -> World:
    return world(("a",), val=5)


def jacobians_of(small: World, state: State, task: str) -> tuple[torch.Tensor, list[list[State]]]:
    """Probabilities (n, C), and for each image and class d log p(y | x) / d theta, in float64."""
    encoder = ImageEncoder.from_card(small.card, state).double()
    weights = dict(encoder.tower.named_parameters())
    for tensor in weights.values():
        tensor.requires_grad_(True)
    images = to_input(torch.from_numpy(small.tasks[task].val[0]), small.card.mean, small.card.std)
    head = small.tasks[task].head.weight.double()
    chances, found = [], []
    for image in images.double():
        features = encoder(image[None])[0]
        logs = torch.log_softmax(features / features.norm() @ head.T, dim=0)
        found.append(
            [
                dict(
                    zip(
                        weights,
                        torch.autograd.grad(each, list(weights.values()), retain_graph=True),
                        strict=True,
                    )
                )
                for each in logs
            ]
        )
        chances.append(logs.detach().exp())
    return torch.stack(chances), found


@pytest.fixture(scope="module")
def jacobians(small: World) -> tuple[torch.Tensor, list[list[State]]]:
    return jacobians_of(small, small.experts["a"], "a")


def expected(shares: torch.Tensor, jacobians: list[list[State]]) -> State:
    return {
        key: torch.stack(
            [
                share * each[key].square()
                for row, per_class in zip(shares, jacobians, strict=True)
                for share, each in zip(row, per_class, strict=True)
            ]
        ).sum(0)
        for key in jacobians[0][0]
    }


def agree(found: State, wanted: State) -> bool:
    """Equal but for float32, weight by weight, relative to the largest of the tensor."""
    return found.keys() - {"images"} == wanted.keys() and all(
        bool((found[key].double() - exact).abs().max() <= 2e-5 * exact.abs().max())
        for key, exact in wanted.items()
    )


def one_hot(labels: np.ndarray | torch.Tensor) -> torch.Tensor:
    return torch.eye(CLASSES, dtype=torch.float64)[torch.as_tensor(labels)]


def test_exact(small: World, jacobians: tuple[torch.Tensor, list[list[State]]]) -> None:
    shares, each = jacobians
    found = computed("fisher", small, "a", labels="exact")
    assert agree(found, expected(shares, each))
    assert int(found["images"]) == 5


def test_empirical(small: World, jacobians: tuple[torch.Tensor, list[list[State]]]) -> None:
    wanted = expected(one_hot(small.tasks["a"].val[1]), jacobians[1])
    assert agree(computed("fisher", small, "a", labels="empirical"), wanted)


def test_sampled(small: World, jacobians: tuple[torch.Tensor, list[list[State]]]) -> None:
    chances, each = jacobians
    for seed in (0, 1):
        drawn = draw_labels(chances, small.tasks["a"].val[0], seed)
        found = compute_statistic(
            "fisher",
            small.card,
            small.experts["a"],
            small.tasks["a"].head,
            examples(small, "a"),
            seed=seed,
        )
        assert agree(found, expected(one_hot(drawn), each))


def test_classes_are_drawn_by_their_probability() -> None:
    count, chances = 4000, torch.tensor([0.5, 0.0, 0.3, 0.2], dtype=torch.float64)
    pixels = np.random.default_rng(0).integers(0, 256, (count, 2, 2, 3), dtype=np.uint8)
    drawn = draw_labels(chances.expand(count, 4), pixels, 7)
    shares = torch.bincount(drawn, minlength=4) / count
    # Four standard deviations.
    assert ((shares - chances).abs() <= 4 * (chances * (1 - chances) / count).sqrt()).all()
    assert not torch.equal(drawn, draw_labels(chances.expand(count, 4), pixels, 8))


def test_a_draw_does_not_depend_on_the_neighbours() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 2, 2, 3), dtype=np.uint8)
    chances = torch.full((20, 5), 0.2, dtype=torch.float64)
    together = draw_labels(chances, pixels, 3)
    assert torch.equal(draw_labels(chances[7:], pixels[7:], 3), together[7:])
    assert len(set(together.tolist())) > 1


def test_gradients_pass_in_parts(small: World, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = computed("fisher", small, "a", labels="exact")
    monkeypatch.setattr("taskgrid.statistics.fisher._GRADIENT_BYTES", 1)
    apart = computed("fisher", small, "a", labels="exact")
    apart.pop("images")
    assert agree(whole, {key: tensor.double() for key, tensor in apart.items()})
