"""What "fp32" means does not depend on what the process allows matrix products and convolutions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch

from taskgrid.evaluation.engine.measure import score
from taskgrid.evaluation.tangent.line import features_along, features_at_origin
from taskgrid.finetuning.training import own_settings
from taskgrid.models import inference
from taskgrid.models.encoder import ImageEncoder
from taskgrid.models.heads import Head
from taskgrid.models.inference import full_float32, iter_features, iter_logits, logits_of
from taskgrid.models.linearized import LinearizedEncoder
from tests.unit.example_grid import World, world

BACKENDS = torch.backends
SWITCHES: tuple[Any, ...] = (
    BACKENDS.cudnn.conv,
    BACKENDS.cudnn.rnn,
    BACKENDS.cuda.matmul,
    BACKENDS.mkldnn.conv,
    BACKENDS.mkldnn.matmul,
)


def older(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except RuntimeError:
        return "torch refuses to say"


def switches() -> list[Any]:
    return [
        older(lambda: BACKENDS.cudnn.allow_tf32),
        older(lambda: BACKENDS.cuda.matmul.allow_tf32),
        older(torch.get_float32_matmul_precision),
        *(switch.fp32_precision for switch in SWITCHES),
    ]


FULL = [False, False, "highest", *["ieee"] * len(SWITCHES)]


def _switch_all() -> None:
    BACKENDS.fp32_precision = "tf32"


def _switch_products() -> None:
    BACKENDS.cuda.matmul.fp32_precision = "tf32"


def _switch_convolutions_off() -> None:
    BACKENDS.cudnn.allow_tf32 = False


CALLERS: dict[str, Callable[[], None]] = {
    "nothing": lambda: None,
    "high": lambda: torch.set_float32_matmul_precision("high"),
    "medium": lambda: torch.set_float32_matmul_precision("medium"),
    "no TF32": _switch_convolutions_off,
    "all, newer": _switch_all,
    "products, newer": _switch_products,
}


@pytest.fixture(params=CALLERS)
def caller(request: pytest.FixtureRequest) -> Iterator[list[Any]]:
    """A process that has set torch in some way; what it has set."""
    before = switches()
    CALLERS[request.param]()
    yield switches()
    BACKENDS.fp32_precision = "none"
    BACKENDS.cudnn.allow_tf32 = True
    torch.set_float32_matmul_precision("highest")
    for switch, precision in zip(SWITCHES, before[3:], strict=True):
        switch.fp32_precision = precision
    assert switches() == before


@pytest.fixture(scope="module")
def small() -> World:
    return world(("a",))


@dataclass(frozen=True)
class Spy(Head):
    """A head that notes how torch is set when it is asked."""

    seen: list[list[Any]] = field(default_factory=list)

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        self.seen.append(switches())
        return super().logits(features)

    def to(self, device: Any) -> Head:
        return self


Path_ = Callable[[World, LinearizedEncoder, Spy], object]


def _scored(small: World, encoder: LinearizedEncoder, head: Spy) -> object:
    pixels, labels = small.tasks["a"].val
    plain = ImageEncoder(encoder.origin, encoder.card)
    given = {"batch_size": 5, "precision": "fp32"}
    return score(plain, head, pixels, torch.from_numpy(labels), **given)


def _logits(small: World, encoder: LinearizedEncoder, head: Spy) -> object:
    plain = ImageEncoder(encoder.origin, encoder.card)
    return logits_of(plain, head, small.tasks["a"].val[0], batch_size=5)


def _at_origin(small: World, encoder: LinearizedEncoder, head: Spy) -> object:
    pixels = small.tasks["a"].val[0]
    return features_at_origin(encoder, pixels, batch_size=5, precision="fp32")


def _along(small: World, encoder: LinearizedEncoder, head: Spy) -> object:
    pixels = small.tasks["a"].val[0]
    return features_along(encoder, pixels, small.base, batch_size=5, precision="fp32")


@pytest.mark.parametrize("measured", [_scored, _logits, _at_origin, _along])
def test_images_pass_in_full_float32(measured: Path_, small: World, caller: list[Any]) -> None:
    encoder = LinearizedEncoder.from_card(small.card, small.base)
    seen: list[list[Any]] = []
    for module in encoder.origin.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            module.register_forward_pre_hook(lambda *_: seen.append(switches()))
    head = small.tasks["a"].head
    spy = Spy(head.weight, head.classes, head.lineage)
    measured(small, encoder, spy)
    assert len(seen) >= 3
    assert len(spy.seen) == (3 if measured in (_scored, _logits) else 0)
    assert all(each == FULL for each in seen + spy.seen)
    assert switches() == caller


@pytest.mark.parametrize("of", ["features", "logits"])
def test_between_batches_torch_is_as_the_caller_left_it(
    of: str, small: World, caller: list[Any]
) -> None:
    encoder, pixels = ImageEncoder.from_card(small.card, small.base), small.tasks["a"].val[0]
    passing = (
        iter_features(encoder, pixels, batch_size=5)
        if of == "features"
        else iter_logits(encoder, small.tasks["a"].head, pixels, batch_size=5)
    )
    for _ in passing:
        assert switches() == caller
        assert not torch.is_inference_mode_enabled()


def test_an_error_leaves_torch_as_it_was(caller: list[Any]) -> None:
    with pytest.raises(KeyError), full_float32():
        raise KeyError
    assert switches() == caller


def test_training_is_in_full_float32(caller: list[Any]) -> None:
    with own_settings(torch.device("cpu")):
        assert switches() == FULL
    assert switches() == caller


def test_torch_has_nothing_to_warn_of(caller: list[Any], recwarn: pytest.WarningsRecorder) -> None:
    with full_float32():
        pass
    assert [str(warning.message) for warning in recwarn] == []


def test_mean_and_std_are_brought_to_the_device_once(
    small: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    normalizer = inference.normalizer

    def counted(*arguments: Any) -> Any:
        made.append(arguments)
        return normalizer(*arguments)

    monkeypatch.setattr(inference, "normalizer", counted)
    encoder, pixels = ImageEncoder.from_card(small.card, small.base), small.tasks["a"].val[0]
    assert len(list(iter_features(encoder, np.asarray(pixels), batch_size=3))) == 5
    assert made == [(small.card.mean, small.card.std, torch.device("cpu"))]
