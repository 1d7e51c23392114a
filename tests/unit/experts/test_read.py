"""Ready-made experts of every format: read exactly, with their provenance, or refused in a sentence."""

from __future__ import annotations

import hashlib
import json
import runpy
import sys
import types
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from open_clip.model import CLIP
from safetensors.torch import load_file, save_file
from torch import nn

from taskgrid.errors import ArtifactError, ConfigError, LineageError, RemoteError
from taskgrid.evaluation.opening.references import TaskManifests, _trained
from taskgrid.experts.read import FARTHEST, Imported, read_expert
from taskgrid.experts.vector import vector_of
from taskgrid.models.encoder import ImageEncoder
from taskgrid.models.hub.conversion import to_transformers
from taskgrid.store.atomic import read_json, write_json
from taskgrid.store.tables import read_table
from taskgrid.store.weights import State, digest_state, load_state, save_state
from taskgrid.vectors import TaskVector
from tests.unit.example_grid import SIZE, world
from tests.unit.example_hub import COMMIT, as_json, as_safetensors, put
from tests.unit.example_models import tiny_config

ROOT = Path(__file__).parents[3]
with torch.random.fork_rng(devices=[]):
    torch.manual_seed(0)
    WORLD = world(("a",))
CARD, BASE = WORLD.card, WORLD.base


def near(by: float = 0.02, seed: int = 1) -> State:
    """An expert: the base, moved a little."""
    generator = torch.Generator().manual_seed(seed)
    return {key: t + by * torch.randn(t.shape, generator=generator) for key, t in BASE.items()}


def read(location: Path | str, format: str = "open_clip", **options: Any) -> Imported:
    return read_expert(format, str(location), "mnist", CARD, BASE, **options)


def same(found: State, expected: State) -> bool:
    return found.keys() == expected.keys() and all(
        torch.equal(found[key], expected[key]) for key in expected
    )


def one_sentence(error: BaseException) -> bool:
    return "\n" not in str(error) and len(str(error)) < 500


# --- transformers --------------------------------------------------------------------------------

VISION = {
    "model_type": "clip_vision_model",
    "hidden_size": 16,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": SIZE,
    "patch_size": 4,
    "hidden_act": "gelu",
    "projection_dim": 12,
}


def theirs(state: State, *, projection: bool = False, prefix: str = "vision_model.") -> State:
    found = to_transformers(state)
    last = found.pop("visual_projection.weight")
    moved = {prefix + key.removeprefix("vision_model."): t for key, t in found.items()}
    return {**moved, **({"visual_projection.weight": last} if projection else {})}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the hub and no network."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path / "hub"


@pytest.mark.parametrize("prefix", ["vision_model.", ""])
def test_a_hub_repository_without_projection_takes_the_bases(cache: Path, prefix: str) -> None:
    expert = near()
    weights = as_safetensors(theirs(expert, prefix=prefix))
    put(
        cache,
        "someone/clip-vit-tiny_mnist",
        {"config.json": as_json(VISION), "model.safetensors": weights, "README.md": b"# hello"},
    )
    for revision in (None, "main", COMMIT):
        found = read("someone/clip-vit-tiny_mnist", "transformers", revision=revision)
        assert same(found.state, {**expert, "proj": BASE["proj"]})
        assert found.lineage == {
            "kind": "expert",
            **CARD.lineage(),
            "task": "mnist",
            "format": "transformers",
            "repository": "someone/clip-vit-tiny_mnist",
            "commit": COMMIT,
            "file": "model.safetensors",
            "file_sha256": hashlib.sha256(weights).hexdigest(),
            "source_layout": "transformers",
            "projection": "base",
            "stored_dtype": "float32",
        }
        assert found.notes == ("it has no projection: the base's was taken",)


@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
def test_an_expert_of_transformers_computes_what_it_computed_there(
    tmp_path: Path, activation: str
) -> None:
    library = pytest.importorskip("transformers", reason="the dev extra installs transformers")
    quick = activation == "quick_gelu"
    card = replace(CARD, activation=activation, tower={**CARD.tower, "quick_gelu": quick})  # type: ignore[arg-type]
    config = library.CLIPVisionConfig(**{**VISION, "hidden_act": activation})
    model = library.CLIPVisionModel(config).eval()
    own = model.state_dict()
    moved = theirs(
        near(), prefix="vision_model." if "vision_model.pre_layrnorm.bias" in own else ""
    )
    model.load_state_dict(moved, strict=True)
    model.save_pretrained(tmp_path)
    found = read_expert("transformers", str(tmp_path), "mnist", card, BASE)
    images = torch.randn(5, 3, SIZE, SIZE)
    with torch.inference_mode():
        expected = model(pixel_values=images).pooler_output @ BASE["proj"]
        features = ImageEncoder.from_card(card, found.state)(images)
    assert float((expected - features).abs().max() / expected.abs().max()) < 1e-5


def test_half_precision_is_converted_and_noted(tmp_path: Path) -> None:
    expert = near()
    half = {key: tensor.half() for key, tensor in theirs(expert, projection=True).items()}
    (tmp_path / "config.json").write_bytes(as_json(VISION))
    save_file(half, str(tmp_path / "model.safetensors"))
    found = read(tmp_path, "transformers")
    assert same(found.state, {key: tensor.half().float() for key, tensor in expert.items()})
    assert found.lineage["stored_dtype"] == "float16"
    assert found.lineage["projection"] == "own"
    assert found.notes == ("stored as float16, converted to float32",)


def test_a_whole_clip_gives_its_image_tower(tmp_path: Path) -> None:
    expert = near()
    state = theirs(expert, projection=True) | {
        "text_model.embeddings.token_embedding.weight": torch.ones(3, 2),
        "text_projection.weight": torch.ones(2, 2),
        "logit_scale": torch.tensor(4.6),
        "vision_model.embeddings.position_ids": torch.arange(5),
    }
    save_file(state, str(tmp_path / "model.safetensors"))
    found = read(tmp_path, "transformers")
    assert same(found.state, expert)
    assert len(found.notes) == 2  # No config.json, and the text tower that was left out.


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"hidden_act": "quick_gelu"}, r"trained with QuickGELU, .*'tiny' computes GELU"),
        ({"hidden_act": None}, r"trained with QuickGELU"),
        ({"num_attention_heads": 4}, r"num_attention_heads 4 .*has 2"),
        ({"layer_norm_eps": 1e-6}, r"layer_norm_eps 1e-06 .*has 1e-05"),
        ({"model_type": "siglip_vision_model"}, r"'siglip_vision_model' model"),
    ],
)
def test_what_no_tensor_shows_is_read_from_the_configuration(
    tmp_path: Path, change: dict[str, Any], sentence: str
) -> None:
    config = {key: value for key, value in {**VISION, **change}.items() if value is not None}
    (tmp_path / "config.json").write_bytes(as_json(config))
    save_file(theirs(near()), str(tmp_path / "model.safetensors"))
    with pytest.raises(LineageError, match=sentence) as caught:
        read(tmp_path, "transformers")
    assert one_sentence(caught.value)
    assert "task 'mnist'" in str(caught.value)


# --- open_clip -----------------------------------------------------------------------------------

DEAD = {
    "token_embedding.weight": torch.ones(7, 8),
    "positional_embedding": torch.ones(12, 8),
    "ln_final.weight": torch.ones(8),
    "text_projection": torch.ones(8, 12),
    "logit_scale": torch.tensor(4.6),
}


def under(prefix: str, state: State) -> State:
    return {prefix + key: tensor for key, tensor in state.items()}


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
@pytest.mark.parametrize(
    ("prefix", "others"),
    [
        ("", {}),
        ("visual.", DEAD),
        ("model.visual.", under("model.", DEAD)),
        ("module.model.visual.", under("module.model.", DEAD)),
        (
            "image_encoder.model.visual.",
            under("image_encoder.model.", DEAD) | {"classification_head.weight": torch.ones(2, 2)},
        ),
    ],
)
def test_a_tower_is_found_below_its_prefix(
    tmp_path: Path, prefix: str, others: State, suffix: str
) -> None:
    expert = near()
    path = tmp_path / f"model.{suffix}"
    state = under(prefix, expert) | others
    if suffix == "pt":
        torch.save(state, path)
    else:
        save_file(state, str(path))
    found = read(path)
    assert same(found.state, expert)
    assert found.lineage["source_layout"] == "open_clip"
    assert found.lineage["file"] == path.name
    assert "repository" not in found.lineage
    left = " ".join(found.notes)
    assert ("5 tensors of the text tower" in left) == bool(others)
    assert ("1 tensors of a classification head" in left) == ("classification" in str(list(others)))
    assert "gelu was taken for granted" in left


def test_a_file_of_a_hub_repository_in_folders(cache: Path, tmp_path: Path) -> None:
    # As nik-dim/tall_masks has them: a state_dict with the text tower's dead weight.
    expert = near()
    torch.save(OrderedDict(under("model.visual.", expert) | under("model.", DEAD)), tmp_path / "x")
    name = "single_task/ViT-tiny/MNISTVal/nonlinear_finetuned.pt"
    put(cache, "someone/masks", {name: (tmp_path / "x").read_bytes()})
    for format in ("open_clip", "task_vectors"):
        found = read("someone/masks", format, file=name)
        assert same(found.state, expert)
        assert found.lineage["file"] == name
        assert found.lineage["commit"] == COMMIT


def test_an_expert_of_this_project(tmp_path: Path) -> None:
    expert = near()
    path = tmp_path / "expert.safetensors"
    save_state(path, expert, {"kind": "expert", "task": "digits", **CARD.lineage()})
    found = read(path)
    assert same(found.state, expert)
    assert found.notes == ()
    save_state(path, expert, {"kind": "expert", **CARD.lineage(), "base": "another"})
    with pytest.raises(LineageError, match="base weights: another"):
        read(path)
    save_state(path, expert, {"kind": "taskvector", **CARD.lineage()})
    with pytest.raises(LineageError, match="holds a taskvector, not an expert"):
        read(path)


def test_an_expert_that_was_carried_whole_stays_one(tmp_path: Path) -> None:
    far = {key: torch.randn_like(tensor) for key, tensor in BASE.items()}
    lineage = {"kind": "expert", **CARD.lineage(), "carry": "model"}
    save_state(tmp_path / "expert.safetensors", far, lineage)
    found = read(tmp_path / "expert.safetensors")
    assert same(found.state, far) and found.lineage["carry"] == "model"
    vector = vector_of(BASE, found.state, found.lineage)
    assert all(torch.allclose(vector.deltas[key], far[key] - BASE[key]) for key in BASE)


def test_an_expert_that_says_its_base_may_be_far_from_it(tmp_path: Path) -> None:
    far = {key: tensor.roll(1) for key, tensor in near().items()}
    save_state(tmp_path / "expert.safetensors", far, {"kind": "expert", **CARD.lineage()})
    found = read(tmp_path / "expert.safetensors")
    assert same(found.state, far) and found.distance > FARTHEST


def _saved(path: Path, state: State) -> Path:
    save_file({key: t.clone().contiguous() for key, t in state.items()}, str(path))
    return path


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda s: {k: t for k, t in s.items() if k != "proj"}, "lacks 'proj'"),
        (lambda s: s | {"ln_mid.weight": torch.ones(2)}, r"holds 'ln_mid\.weight'"),
        (lambda s: s | {"proj": torch.ones(16, 13)}, r"\(16, 13\) for 'proj'.*\(16, 12\)"),
        (lambda s: s | {"proj": torch.full((16, 12), torch.nan)}, "'proj' that are no numbers"),
        (lambda s: BASE, "is the base itself, bit for bit"),
        (lambda s: {k: t.roll(1) for k, t in s.items()}, "not fine-tuned from this base"),
        (lambda s: under("visual.", s) | {"cache.x": torch.ones(1)}, r"holds 'cache\.x'"),
        (lambda s: under("a.visual.", s) | under("b.visual.", s), "several image towers"),
        (lambda s: {"weight": torch.ones(2)}, "has no image tower"),
        (theirs, "write format: transformers"),
        (lambda s: {"m.params0.0": torch.ones(1)}, "write format: task_vectors"),
    ],
)
def test_what_is_no_expert_of_the_base_is_refused(
    tmp_path: Path, change: Callable[[State], State], sentence: str
) -> None:
    path = _saved(tmp_path / "expert.safetensors", change(near()))
    with pytest.raises(LineageError, match=sentence) as caught:
        read(path)
    assert one_sentence(caught.value)
    assert "task 'mnist'" in str(caught.value)
    assert "expert.safetensors" in str(caught.value)


def test_the_wrong_format_is_named(tmp_path: Path) -> None:
    path = _saved(tmp_path / "model.safetensors", near())
    with pytest.raises(LineageError, match="write format: open_clip"):
        read(path, "transformers")
    with pytest.raises(ConfigError, match="unknown format of experts 'peft'; there are: transf"):
        read(path, "peft")


def test_distance_is_that_of_the_vector(tmp_path: Path) -> None:
    expert = near(0.1)
    found = read(_saved(tmp_path / "e.safetensors", expert))
    vector = TaskVector.between(BASE, found.state, {"task": "mnist"})
    total = vector.norm_table(BASE)[-1]
    assert found.distance == pytest.approx(total.relative, rel=1e-6)
    with pytest.raises(LineageError, match=rf"{found.distance:.2f} norms .*below 0\.01"):
        read(tmp_path / "e.safetensors", farthest=0.01)


# --- task_vectors --------------------------------------------------------------------------------


class Encoder(nn.Module):
    """As the papers' ImageEncoder: a CLIP that lost the blocks of its text tower."""

    def __init__(self, state: State) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            self.model = CLIP(**tiny_config())
        self.model.visual.load_state_dict(state)
        self.train_preprocess = self.val_preprocess = None
        self.cache_dir = "/somewhere"
        del self.model.transformer


@pytest.fixture
def modeling() -> Iterator[None]:
    """The class is pickled as ``src.modeling.ImageEncoder``."""
    module = types.ModuleType("src.modeling")
    module.ImageEncoder = Encoder  # type: ignore[attr-defined]
    before = Encoder.__module__, Encoder.__qualname__
    Encoder.__module__, Encoder.__qualname__ = "src.modeling", "ImageEncoder"
    sys.modules |= {"src": types.ModuleType("src"), "src.modeling": module}
    yield
    Encoder.__module__, Encoder.__qualname__ = before
    for name in ("src", "src.modeling"):
        sys.modules.pop(name, None)


def test_a_pickled_image_encoder(tmp_path: Path, modeling: None) -> None:
    expert = near()
    torch.save(Encoder(expert), tmp_path / "finetuned.pt")
    del sys.modules["src"], sys.modules["src.modeling"]
    found = read(tmp_path, "task_vectors")
    assert same(found.state, expert)
    assert found.lineage["format"] == "task_vectors"
    assert any("6 tensors of the text tower" in note for note in found.notes)


def linear(expert: State, base: State = BASE, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    """The state of a linearised encoder, as tangent_task_arithmetic saves it."""
    lists = {"params": Encoder(expert), "params0": Encoder(base)}
    state: dict[str, Any] = OrderedDict(
        (f"model.{name}.{place}", parameter.detach().to(dtype))
        for name, encoder in lists.items()
        for place, parameter in enumerate(encoder.parameters())
    )
    state["model_name"] = "ViT-B-32"
    return state


def test_a_linearised_encoder_has_its_names_back(tmp_path: Path) -> None:
    expert = near()
    torch.save(linear(expert), tmp_path / "linear_finetuned.pt")
    found = read(tmp_path, "task_vectors", file="linear_finetuned.pt")
    assert same(found.state, expert)
    assert found.lineage["source_layout"] == "params"
    assert found.lineage["trained_as"] == "linear"
    assert any("tangent model" in note for note in found.notes)


def test_a_linearised_encoder_in_half_precision(tmp_path: Path) -> None:
    expert = near()
    torch.save(linear(expert, dtype=torch.float16), tmp_path / "linear_finetuned.pt")
    found = read(tmp_path / "linear_finetuned.pt", "task_vectors")
    assert same(found.state, {key: tensor.half().float() for key, tensor in expert.items()})


def test_another_theta_0_is_refused_with_the_first_tensor_that_differs(tmp_path: Path) -> None:
    other = {**BASE, "ln_pre.bias": BASE["ln_pre.bias"] + 0.25}
    torch.save(linear(near(), other), tmp_path / "linear.pt")
    with pytest.raises(
        LineageError, match=r"another theta_0: its 'ln_pre\.bias' .* 0\.25;"
    ) as caught:
        read(tmp_path / "linear.pt", "task_vectors")
    assert one_sentence(caught.value)


def test_other_linearised_models_are_refused(tmp_path: Path) -> None:
    state = linear(near())
    path = tmp_path / "linear.pt"
    torch.save({key: value for key, value in state.items() if not key.endswith(".7")}, path)
    with pytest.raises(LineageError, match="no linearised encoder of this architecture"):
        read(path, "task_vectors")
    torch.save({key: value for key, value in state.items() if key != "model.params.30"}, path)
    with pytest.raises(LineageError, match=r"has \d+ parameters, but its theta_0 has \d+"):
        read(path, "task_vectors")


class Touch:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("format", ["open_clip", "task_vectors", "transformers"])
def test_a_pickle_with_code_runs_nothing(tmp_path: Path, format: str) -> None:
    torch.save({**near(), "x": Touch(tmp_path / "ran")}, tmp_path / "finetuned.pt")
    with pytest.raises(ArtifactError, match=r"asks for .*pathlib\.Path.*nothing of it was run"):
        read(tmp_path / "finetuned.pt", format)
    assert not (tmp_path / "ran").exists()


# --- places --------------------------------------------------------------------------------------


def test_places_that_do_not_exist_are_named(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(ArtifactError, match=r"no/such/place\.pt does not exist"):
        read("no/such/place.pt")
    with pytest.raises(ArtifactError, match=r"has no open_clip_model\.safetensors and no model"):
        read(tmp_path)
    with pytest.raises(ArtifactError, match=r"has no other\.pt; name the right one as `file`"):
        read(tmp_path, file="other.pt")
    with pytest.raises(RemoteError, match="someone/unknown at main"):
        read("someone/unknown", "transformers")
    with pytest.raises(RemoteError, match="someone/unknown at abc"):
        read("hf-hub:someone/unknown@abc", "transformers")


def test_damaged_files_are_refused(tmp_path: Path, cache: Path) -> None:
    path = _saved(tmp_path / "e.safetensors", near())
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ArtifactError, match="is damaged"):
        read(path)
    put(cache, "a/b", {"config.json": as_json(VISION), "model.safetensors": path.read_bytes()})
    blobs = cache / "models--a--b" / "blobs"
    (blobs / hashlib.sha256(path.read_bytes()).hexdigest()).write_bytes(b"short")
    with pytest.raises(ArtifactError, match="damaged or truncated"):
        read("a/b", "transformers")


# --- the script ----------------------------------------------------------------------------------


def run_script(name: str, monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
    words = [
        word
        for key, value in options.items()
        for word in (f"--{key}", json.dumps(value) if key == "settings" else str(value))
    ]
    monkeypatch.setattr(sys, "argv", [name, *words])
    runpy.run_path(str(ROOT / "scripts" / f"{name}.py"), run_name="__main__")


def test_an_import_leaves_what_a_fine_tuning_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    (source / "config.json").write_bytes(as_json(VISION))
    save_file(theirs(near()), str(source / "model.safetensors"))
    save_state(out / "base.safetensors", BASE, {"kind": "base", **CARD.lineage()})
    write_json(out / "base.json", CARD.to_json())
    settings = {
        "model": "tiny",
        "task": "mnist",
        "mode": "hub",
        "seed": 0,
        "format": "transformers",
        "source": str(source),
        "file": None,
        "revision": None,
    }
    files = {
        "expert": out / "expert.safetensors",
        "manifest": out / "expert.json",
        "history": out / "history.parquet",
        "timing": out / "timing.json",
    }
    inputs = {"card": out / "base.json", "base": out / "base.safetensors"}
    run_script("import_expert", monkeypatch, settings=settings, **inputs, **files)

    state, lineage = load_state(files["expert"])
    manifest = read_json(files["manifest"])
    assert manifest["digest"] == lineage["digest"] == digest_state(state)
    assert {key: manifest[key] for key in lineage} == lineage
    assert lineage.items() >= {"model": "tiny", "mode": "hub", "seed": "0", "task": "mnist"}.items()
    assert manifest["notes"] == ["it has no projection: the base's was taken"]
    assert str(tmp_path) not in files["manifest"].read_text()
    history = read_table(files["history"])
    assert history.num_rows == 0
    assert {field.name: str(field.type) for field in history.schema} == {
        "step": "int64",
        "metric": "string",
        "value": "double",
    }
    assert read_json(files["timing"])["seconds"] > 0

    # What the later rules make of it.
    vector = {name: out / f"vector.{name}" for name in ("safetensors", "json", "csv")}
    run_script(
        "taskvector",
        monkeypatch,
        **inputs,
        expert=files["expert"],
        vector=vector["safetensors"],
        manifest=vector["json"],
        norms=vector["csv"],
    )
    deltas = TaskVector.load(vector["safetensors"]).deltas
    assert float(deltas["proj"].abs().max()) == 0.0
    assert float(deltas["conv1.weight"].abs().max()) > 0.0
    used = {"head": "h", "split": "s"}
    nowhere = TaskManifests(dataset=out, split=out, head=out)
    for manifests in (
        replace(nowhere, expert=files["manifest"]),
        replace(nowhere, vector=vector["json"]),
    ):
        digests = _trained("mnist", manifests, CARD, used)
        assert digests[0] == manifest["digest"]
    run_script(
        "record_expert",
        monkeypatch,
        settings=settings,
        manifest=files["manifest"],
        history=files["history"],
        timing=files["timing"],
        record=out / "run.json",
    )
    assert "expert/tiny/hub/0/mnist" in (out / "run.json").read_text()


def test_the_script_refuses_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save_state(tmp_path / "base.safetensors", BASE, {"kind": "base", **CARD.lineage()})
    write_json(tmp_path / "base.json", CARD.to_json())
    _saved(tmp_path / "e.safetensors", BASE)
    names = ("expert", "manifest", "history", "timing")
    with pytest.raises(SystemExit) as caught:
        run_script(
            "import_expert",
            monkeypatch,
            settings={
                "model": "tiny",
                "task": "mnist",
                "mode": "hub",
                "seed": 0,
                "format": "open_clip",
                "source": str(tmp_path / "e.safetensors"),
            },
            card=tmp_path / "base.json",
            base=tmp_path / "base.safetensors",
            **{name: tmp_path / "out" / name for name in names},
        )
    assert caught.value.code == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_safetensors_of_the_tests_are_what_the_hub_has(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(as_safetensors(BASE))
    assert same(load_file(str(tmp_path / "a.safetensors")), dict(BASE))
