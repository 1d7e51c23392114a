"""A grid point as a file that others load: the same features as the engine measured."""

from __future__ import annotations

import json
import runpy
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import open_clip
import pytest
import torch
from open_clip import factory

from taskgrid.errors import ArtifactError, ConfigError, LineageError
from taskgrid.lattice.points import read_point
from taskgrid.merging.recipe import MergeRecipe
from taskgrid.merging.seam import Sources
from taskgrid.models import ImageEncoder, load_clip
from taskgrid.models.clip import Clip
from taskgrid.outofcore import export as module
from taskgrid.outofcore import whole
from taskgrid.outofcore.export import Method, Point, export_points
from taskgrid.store.atomic import write_json
from taskgrid.store.weights import State, digest_state, load_state, save_state
from taskgrid.vectors import TaskVector
from tests.unit.example_mergers import STATISTICS
from tests.unit.example_models import SIZE, tiny_clip, tiny_config

ROOT = Path(__file__).parents[3]
TASKS = ("dtd", "mnist", "svhn")


@pytest.fixture
def clip(tmp_path: Path) -> Clip:
    return tiny_clip(tmp_path)


@pytest.fixture
def vectors(clip: Clip) -> dict[str, State]:
    generator = torch.Generator().manual_seed(0)
    return {
        task: {
            key: 0.02 * torch.randn(tensor.shape, generator=generator)
            for key, tensor in clip.visual_state().items()
        }
        for task in TASKS
    }


@pytest.fixture
def files(tmp_path: Path, clip: Clip, vectors: dict[str, State]) -> tuple[Path, dict[str, Path]]:
    lineage = clip.card().lineage()
    save_state(tmp_path / "base.safetensors", clip.visual_state(), {"kind": "base", **lineage})
    for task, deltas in vectors.items():
        TaskVector(deltas, {**lineage, "task": task}).save(tmp_path / f"{task}.safetensors")
    return tmp_path / "base.safetensors", {t: tmp_path / f"{t}.safetensors" for t in TASKS}


@pytest.fixture
def known(tmp_path: Path) -> Iterator[str]:
    """The tiny model's architecture, as open_clip knows others."""
    folder = tmp_path / "configs"
    folder.mkdir()
    (folder / "tiny-export.json").write_text(json.dumps(tiny_config()))
    before = dict(factory._MODEL_CONFIGS), list(factory._MODEL_CONFIG_PATHS)
    open_clip.add_model_config(folder)
    yield "tiny-export"
    factory._MODEL_CONFIGS, factory._MODEL_CONFIG_PATHS = before


def merged(clip: Clip, vectors: dict[str, State], tasks: tuple[str, ...], scale: float) -> State:
    """What the engine puts into its encoder."""
    recipe = MergeRecipe.of("task_arithmetic", {})
    base = clip.visual_state()
    return recipe.apply(base, recipe.prepare(base, Sources(vectors.__getitem__), tasks), scale)


def test_open_clip_computes_what_the_engine_measured(
    tmp_path: Path,
    clip: Clip,
    vectors: dict[str, State],
    files: tuple[Path, dict[str, Path]],
    known: str,
) -> None:
    points = [
        Point(("svhn", "dtd"), "0.30", tmp_path / "a.safetensors"),
        Point(TASKS, "-1.25", tmp_path / "b.safetensors"),
        Point(TASKS, "0.00", tmp_path / "c.safetensors"),
    ]
    digests = export_points(
        clip, *files, Method("task_arithmetic"), points, lineage={"mode": "standard"}
    )
    images = torch.randn(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    tokens = clip.tokenizer(["a cat", "a dog"])
    assert isinstance(clip.model, torch.nn.Module)
    for point, digest in zip(points, digests, strict=True):
        loaded = open_clip.create_model(known, pretrained=str(point.path)).eval()
        weights = merged(clip, vectors, point.tasks, float(point.scale))
        engine = ImageEncoder.from_card(clip.card(), weights)
        with torch.inference_mode():
            # torch adds in another order when weights require a gradient.
            loaded.requires_grad_(False)
            assert torch.equal(loaded.encode_image(images), engine(images))
            text: Any = clip.model.encode_text  # the base's own
            assert torch.equal(loaded.encode_text(tokens), text(tokens))
        assert torch.equal(loaded.logit_scale, clip.model.logit_scale)
        state, lineage = load_state(point.path)
        assert lineage["digest"] == digest == digest_state(state)
        assert lineage["kind"] == "clip" and lineage["mode"] == "standard"
        assert lineage["base"] == clip.visual_digest and lineage["point"] == point.scale


def test_load_clip_takes_the_file_as_a_base(
    tmp_path: Path, clip: Clip, vectors: dict[str, State], files: tuple[Path, dict[str, Path]]
) -> None:
    path = tmp_path / "a.safetensors"
    export_points(clip, *files, Method("task_arithmetic"), [Point(TASKS, "0.30", path)])
    again = load_clip("tiny", str(path), resources=tmp_path)
    assert again.visual_digest == digest_state(merged(clip, vectors, TASKS, 0.3))
    assert again.text_digest == clip.text_digest
    (tmp_path / "quick.json").write_text(json.dumps(tiny_config(quick_gelu=True)))
    with pytest.raises(LineageError, match="trained with gelu"):
        load_clip("quick", str(path), resources=tmp_path)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ArtifactError, match=r"a\.safetensors are damaged"):
        load_clip("tiny", str(path), resources=tmp_path)


def test_a_method_that_sees_the_whole_model_merges_in_memory(
    tmp_path: Path,
    clip: Clip,
    files: tuple[Path, dict[str, Path]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def points(folder: str) -> list[Point]:
        asked = [(TASKS, "0.30"), (TASKS[:1], "1.00"), (TASKS, "0.60")]
        places = [tmp_path / folder / f"{i}.safetensors" for i in range(len(asked))]
        return [Point(*one, place) for one, place in zip(asked, places, strict=True)]

    read, load = [], whole.load_weights
    monkeypatch.setattr(whole, "load_weights", lambda path: (read.append(path), load(path))[1])
    streamed = export_points(clip, *files, Method("task_arithmetic"), points("streamed"))
    monkeypatch.setattr(MergeRecipe, "scope", "model")
    monkeypatch.setattr(module, "stream_merge", None)
    assert export_points(clip, *files, Method("task_arithmetic"), points("whole")) == streamed
    # Whatever is read is read once.
    assert len(read) == 1
    paths = [point.path for point in points("whole")]
    for one, other in zip(points("streamed"), paths, strict=True):
        assert Path(one.path).read_bytes() == Path(other).read_bytes()
    with pytest.raises(ConfigError, match="no outputs"):
        export_points(clip, *files, Method("task_arithmetic"), [])
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    with pytest.raises(ArtifactError, match="cannot write to the disk of"):
        export_points(clip, *files, Method("task_arithmetic"), [Point(TASKS, "0.30", paths[0])])


@pytest.mark.parametrize(
    ("method", "scale", "tasks"),
    [
        ("tall_mask", "1.00", TASKS),
        ("emr", "0.30", TASKS),
        ("emr", "dtd:0.50,mnist:1.00,svhn:-0.25", TASKS),
        ("ties", "dtd:0.50,mnist:-0.25", TASKS[:2]),
        ("magmax", "0.30", TASKS),
        ("dare", "dtd:0.50,mnist:-0.25", TASKS[:2]),
        ("della", "0.30", TASKS),
        ("breadcrumbs", "0.30", TASKS),
        ("fisher", "dtd:0.50,mnist:-0.25", TASKS[:2]),
    ],
)
def test_every_kind_of_method_is_exported_as_it_is_measured(
    tmp_path: Path,
    clip: Clip,
    vectors: dict[str, State],
    files: tuple[Path, dict[str, Path]],
    method: str,
    scale: str,
    tasks: tuple[str, ...],
) -> None:
    recipe, base = MergeRecipe.of(method, {}), clip.visual_state()
    known = {task: STATISTICS["fisher"](base, i) for i, task in enumerate(TASKS)}
    stored = {task: tmp_path / f"fisher-{task}.safetensors" for task in TASKS}
    for task, state in known.items():
        save_state(stored[task], state, {"kind": "statistic"})
    asked = tasks if recipe.per_task else (None,)
    points = [
        Point(tasks, scale, tmp_path / f"{scale}{f'@{task}' if task else ''}.safetensors", task)
        for task in asked
    ]
    export_points(clip, *files, Method(method), points, statistics={"fisher": stored})
    point = read_point(scale)
    sources = Sources(vectors.__getitem__, lambda name, task: known[task])
    prepared = recipe.prepare(base, sources, tasks, point.named)
    for one in points:
        state, lineage = load_state(one.path)
        engine = recipe.apply(base, prepared, point.lambda_value, task=one.task)
        assert all(torch.equal(state[f"visual.{key}"], tensor) for key, tensor in engine.items())
        assert lineage["point"] == scale and lineage.get("task") == one.task


def test_points_that_a_method_does_not_have_are_refused(
    tmp_path: Path, clip: Clip, files: tuple[Path, dict[str, Path]]
) -> None:
    path = tmp_path / "x.safetensors"
    for method, point, words in (
        ("logit_ensemble", Point(TASKS, "1.00", path), "merges logits, not weights"),
        ("emr", Point(TASKS, "1.00", path), "none is named"),
        ("tall_mask", Point(TASKS, "0.30", path, "dtd"), "has no coefficient"),
        ("ties", Point(TASKS, "dtd:0.30,svhn:0.50", path), "but dtd, mnist, svhn are merged"),
        ("fisher", Point(TASKS, "1.00", path), "needs the statistic 'fisher' of task 'dtd'"),
    ):
        with pytest.raises(ConfigError, match=words):
            export_points(clip, *files, Method(method), [point])
    assert not path.exists()


def test_another_base_is_refused(tmp_path: Path, files: tuple[Path, dict[str, Path]]) -> None:
    other = tiny_clip(tmp_path, tag="s1", seed=1)
    with pytest.raises(LineageError, match=f"holds the base .* is {other.visual_digest}"):
        export_points(
            other, *files, Method("average"), [Point(TASKS, "1.00", tmp_path / "x.safetensors")]
        )


def test_unknown_options_are_refused(
    tmp_path: Path, clip: Clip, files: tuple[Path, dict[str, Path]]
) -> None:
    with pytest.raises(ConfigError, match="no option 'density'"):
        export_points(
            clip, *files, Method("average", {"density": 1}),
            [Point(TASKS, "1.00", tmp_path / "x.safetensors")],
        )  # fmt: skip


def test_the_script_names_the_key_of_a_bound_that_is_too_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = load_clip("taskgrid-vit-4", "s0")
    lineage = clip.card().lineage()
    write_json(tmp_path / "card.json", clip.card().to_json())
    save_state(tmp_path / "base.safetensors", clip.visual_state(), {"kind": "base", **lineage})
    zeros = {key: torch.zeros_like(tensor) for key, tensor in clip.visual_state().items()}
    TaskVector(zeros, {**lineage, "task": "dtd"}).save(tmp_path / "dtd.safetensors")
    settings = {
        "architecture": "taskgrid-vit-4", "pretrained": "s0", "mode": "standard", "seed": 0,
        "method": "average", "options": {}, "subset": "dtd", "point": "0.30", "task": None, "needs": {},
        "max_bytes": 1 << 20,
    }  # fmt: skip
    listing = {
        "card": f"{tmp_path}/card.json", "base": f"{tmp_path}/base.safetensors",
        "tasks": {"dtd": {"vector": f"{tmp_path}/dtd.safetensors"}},
    }  # fmt: skip
    words = [
        "--listing", json.dumps(listing), f"--weights={tmp_path}/x.safetensors",
        "--settings", json.dumps(settings),
    ]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["export", *words])
    with pytest.raises(SystemExit):
        runpy.run_path(str(ROOT / "scripts" / "export.py"), run_name="__main__")
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "export.max_mb allows 1.0 MB; raise it to 8" in said
    words[-1] = json.dumps({**settings, "max_bytes": 8 << 20})
    monkeypatch.setattr(sys, "argv", ["export", *words])
    runpy.run_path(str(ROOT / "scripts" / "export.py"), run_name="__main__")
    assert load_state(tmp_path / "x.safetensors")[1]["point"] == "0.30"
