from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from taskgrid.evaluation.engine.compiled import CompiledEncoder
from taskgrid.models.batches import BatchSize
from taskgrid.models.encoder import ImageEncoder
from taskgrid.models.inference import features_of
from tests.unit.evaluation.engine.test_engine import answers, engine, plan_for, requests_of
from tests.unit.example_grid import World, world

PIXELS = torch.randint(0, 256, (13, 8, 8, 3), generator=torch.Generator().manual_seed(0)).byte()
Forward = Callable[[torch.Tensor], torch.Tensor]


@pytest.fixture(scope="module")
def small() -> World:
    return world()


class Graph:
    """A compiler whose code, like a CUDA graph, writes every result to the same place."""

    def __init__(self) -> None:
        self.made, self.shapes = 0, list[int]()

    def __call__(self, forward: Forward, **options: Any) -> Forward:
        self.made += 1
        place: list[torch.Tensor] = []

        def replay(images: torch.Tensor) -> torch.Tensor:
            self.shapes.append(len(images))
            found = forward(images)
            place.append(found.clone())
            return place[0].copy_(found)

        return replay


def test_only_whole_batches_are_compiled_and_each_keeps_its_result(
    small: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = Graph()
    monkeypatch.setattr(torch, "compile", graph)
    plain = ImageEncoder.from_card(small.card, small.base)
    compiled = CompiledEncoder(plain, lambda: 5)
    for _ in range(2):
        found = features_of(compiled, PIXELS, batch_size=5)
        assert torch.equal(found, features_of(plain, PIXELS, batch_size=5))
    assert (graph.made, graph.shapes) == (1, [5, 5, 5, 5])


def test_the_engine_computes_the_same_rows(small: World, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = Graph()
    monkeypatch.setattr(torch, "compile", graph)
    requests = requests_of(plan_for(small))
    assert answers(engine(small, compiled=True), requests) == answers(engine(small), requests)
    assert set(graph.shapes) == {5}


def refuse(*given: Any, **options: Any) -> Forward:
    raise RuntimeError("no working C++ compiler\nand a long story")


def refuse_later(*given: Any, **options: Any) -> Forward:
    return refuse


@pytest.mark.parametrize("compiler", [refuse, refuse_later])
def test_where_nothing_can_be_compiled_a_warning_says_so_once(
    small: World,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    compiler: Callable[..., Forward],
) -> None:
    monkeypatch.setattr(torch, "compile", compiler)
    requests = requests_of(plan_for(small))[:6]
    assert answers(engine(small, compiled=True), requests) == answers(engine(small), requests)
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("warning: evaluation.compile is on")
    assert "(no working C++ compiler)" in said


def test_an_error_of_the_model_itself_is_not_taken_for_the_compilers(
    small: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", refuse)
    compiled = CompiledEncoder(ImageEncoder.from_card(small.card, small.base), lambda: 2)
    with pytest.raises(RuntimeError, match="channels"):
        compiled(torch.zeros(2, 5, 8, 8))


def test_too_little_memory_halves_the_batch_of_compiled_code(
    small: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def starved(forward: Forward, **options: Any) -> Forward:
        def run(images: torch.Tensor) -> torch.Tensor:
            if len(images) > 3:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return forward(images)

        return run

    monkeypatch.setattr(torch, "compile", starved)
    plain, size = ImageEncoder.from_card(small.card, small.base), BatchSize(12)
    compiled = CompiledEncoder(plain, lambda: size.size)
    found = size.fit(lambda count: features_of(compiled, PIXELS, batch_size=count))
    assert size.size == 3
    assert torch.equal(found, features_of(plain, PIXELS, batch_size=3))


def test_compiled_code_sees_weights_that_are_written_in_place(
    small: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    compile_ = torch.compile

    def captured(forward: Forward, *, mode: str, **options: Any) -> Forward:
        # The graph is captured as for any compiler; code from this one is quick to make.
        return compile_(forward, backend="aot_eager", **options)

    monkeypatch.setattr(torch, "compile", captured)
    plain = ImageEncoder.from_card(small.card, small.base).eval().requires_grad_(False)
    compiled, live = CompiledEncoder(plain, lambda: 5), plain.live_state()
    seen = []
    for state in (small.base, small.experts["a"], small.experts["b"], small.base):
        with torch.inference_mode():
            for name, tensor in live.items():
                tensor.copy_(state[name])
        found = features_of(compiled, PIXELS, batch_size=5)
        assert torch.allclose(found, features_of(plain, PIXELS, batch_size=5), atol=1e-5, rtol=0)
        seen.append(found)
    assert (seen[0] - seen[1]).abs().max() > 0.01
    assert torch.equal(seen[0], seen[3])
    assert "warning: evaluation.compile" not in capsys.readouterr().err
