"""A registered model is a folder that open_clip loads by itself: how it is built lies beside its weights."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import open_clip
import pytest
import torch

from taskgrid.errors import LineageError
from taskgrid.models import ImageEncoder, load_clip
from taskgrid.models.clip import Clip
from taskgrid.outofcore.export import export_expert
from taskgrid.outofcore.folder import ABOUT, CONFIG, WEIGHTS, describe
from taskgrid.store.weights import State, load_state, save_state
from tests.unit.example_models import SIZE, tiny_clip

ROOT = Path(__file__).parents[3]


def moved(state: State) -> State:
    generator = torch.Generator().manual_seed(0)
    return {
        key: tensor + 0.02 * torch.randn(tensor.shape, generator=generator)
        for key, tensor in state.items()
    }


@pytest.fixture
def clip(tmp_path: Path) -> Clip:
    return tiny_clip(tmp_path)


def test_open_clip_loads_an_expert_as_it_was_trained(tmp_path: Path, clip: Clip) -> None:
    expert = moved(clip.visual_state())
    lineage = {**clip.card().lineage(), "base": clip.visual_digest, "task": "dtd"}
    own = save_state(tmp_path / "expert.safetensors", expert, {"kind": "expert", **lineage})
    folder = tmp_path / "model"
    digest = export_expert(clip, tmp_path / "expert.safetensors", folder / WEIGHTS)
    describe(clip, folder / CONFIG, {"name": "x", "digest": digest})

    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    model.eval().requires_grad_(False)
    images = torch.randn(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    engine = ImageEncoder.from_card(clip.card(), expert)
    with torch.inference_mode():
        assert torch.equal(model.encode_image(images), engine(images))
    normalise = preprocess.transforms[-1]
    assert (tuple(normalise.mean), tuple(normalise.std)) == (clip.mean, clip.std)
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    assert torch.equal(tokenizer(["a cat"]), clip.tokenizer(["a cat"]))
    _, known = load_state(folder / WEIGHTS)
    assert (known["kind"], known["expert"], known["digest"]) == ("clip", own, digest)
    again = load_clip("tiny", str(folder / WEIGHTS), resources=tmp_path)
    assert again.text_digest == clip.text_digest
    assert json.loads((folder / CONFIG).read_text())[ABOUT] == {"name": "x", "digest": digest}


def test_an_expert_of_another_base_is_refused(tmp_path: Path, clip: Clip) -> None:
    save_state(tmp_path / "e.safetensors", clip.visual_state(), {"kind": "expert", "base": "other"})
    with pytest.raises(LineageError, match="made from the base other"):
        export_expert(clip, tmp_path / "e.safetensors", tmp_path / WEIGHTS)
    assert not (tmp_path / WEIGHTS).exists()


def test_the_script_writes_weights_and_what_builds_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = load_clip("taskgrid-vit-4", "s0")
    lineage = {"kind": "expert", "base": base.visual_digest}
    save_state(tmp_path / "e.safetensors", moved(base.visual_state()), lineage)
    identity = {"name": "m.standard.s0.expert.a", "record": "expert/m/standard/0/a"}
    settings = {"architecture": "taskgrid-vit-4", "pretrained": "s0", "identity": identity}
    folder = tmp_path / "model"
    words = ["--settings", json.dumps(settings), "--expert", str(tmp_path / "e.safetensors")]
    words += ["--config", str(folder / CONFIG), "--weights", str(folder / WEIGHTS)]
    monkeypatch.setattr(sys, "argv", ["register_expert", *words])
    runpy.run_path(str(ROOT / "scripts" / "register_expert.py"), run_name="__main__")
    about = json.loads((folder / CONFIG).read_text())[ABOUT]
    assert about == {**identity, "digest": load_state(folder / WEIGHTS)[1]["digest"]}
    model = open_clip.create_model(f"local-dir:{folder}")
    key = "class_embedding"
    assert torch.equal(model.visual.state_dict()[key], moved(base.visual_state())[key])
