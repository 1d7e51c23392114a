"""Weights from elsewhere: shards, wrappers, adapters, and headers that no tensor can have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from taskgrid.errors import ArtifactError, LineageError
from taskgrid.models.hub.weights import check_finite, check_no_adapter, read_weights, unwrapped
from taskgrid.outofcore.shards import WeightFiles
from taskgrid.store.weights import load_state, read_lineage
from tests.unit.example_checkpoints import in_shards, under

STATE = {key: torch.full((2, 3), float(place)) for place, key in enumerate("abcde")}


def same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    return found.keys() == expected.keys() and all(
        torch.equal(found[key], expected[key]) for key in expected
    )


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_shards_are_one_state_by_their_index_or_by_one_of_them(tmp_path: Path, name: str) -> None:
    index = in_shards(tmp_path, STATE, name)
    for path in (index, next(tmp_path.glob("*-00002-of-*"))):
        assert same(read_weights(path)[1], STATE)


def test_shards_that_do_not_fit_their_index_are_refused(tmp_path: Path) -> None:
    index = in_shards(tmp_path, STATE)
    shards = json.loads(index.read_text())["weight_map"]
    index.write_text(json.dumps({"weight_map": shards | {"z": shards["a"]}}))
    with pytest.raises(
        ArtifactError, match=r"says that model-00001-of-00003\.safetensors holds 'z'"
    ):
        read_weights(index)
    for wrong, words in [("../x", "outside its folder"), (index.name, "damaged")]:
        index.write_text(json.dumps({"weight_map": shards | {"a": wrong}}))
        with pytest.raises(ArtifactError, match=words):
            read_weights(index)
    index.write_text(json.dumps({"weight_map": shards}))
    (tmp_path / shards["b"]).unlink()
    with pytest.raises(ArtifactError, match=r"model-00002-of-00003\.safetensors is missing"):
        read_weights(index)
    index.unlink()
    with pytest.raises(ArtifactError, match=r"one of several shards, but their index model\.safe"):
        read_weights(tmp_path / shards["a"])


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "module._orig_mod.", "model.module.", "state_dict.model."]
)
def test_what_trainers_put_before_names_is_taken_off(prefix: str) -> None:
    state = under("visual.", STATE) | {"logit_scale": torch.ones(())}
    assert same(unwrapped(under(prefix, state)), state)
    assert same(unwrapped(under("visual.", STATE)), under("visual.", STATE))


def test_what_lies_beside_a_state_dict_is_left_out() -> None:
    beside = {"optimizer.state.0.exp_avg": torch.ones(3), "epoch": torch.ones(())}
    assert same(unwrapped(under("state_dict.module.", STATE) | beside), STATE)


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("base_model.model.vision_model.encoder.layers.0.self_attn.q_proj.lora_A.weight", "LoRA"),
        ("vision_model.encoder.layers.0.self_attn.q_proj.lora_B.default.weight", "LoRA"),
        ("lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight", "LoRA"),
        ("visual.transformer.resblocks.0.attn.lora_A", "LoRA"),
        ("base_model.model.vision_model.encoder.layers.0.mlp.fc1.ia3_l", "an adapter"),
        ("vision_model.encoder.layers.0.mlp.fc1.hada_w1_a", "an adapter"),
    ],
)
def test_adapters_are_named_with_what_to_do(key: str, kind: str) -> None:
    with pytest.raises(LineageError, match=rf"the file is .*{kind}.*merge_and_unload"):
        check_no_adapter(["visual.proj", key], "the file")
    check_no_adapter(["visual.proj", "explora_A.weight", "flora.weight"], "the file")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_none_are_named(value: float) -> None:
    with pytest.raises(LineageError, match="weights 'x' have values in 'b' that are no numbers; f"):
        check_finite({"a": torch.ones(2), "b": torch.tensor(value)}, "weights 'x' have", "fetch")


# --- headers -------------------------------------------------------------------------------------


def with_header(path: Path, header: Any, data: int = 8) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(data))
    return path


def entry(shape: Any, dtype: str = "F32", offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"a": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


NESTED = b'{"a":' * 100_000
HEADERS: dict[str, Any] = {
    "nested": NESTED,
    "nested lists": b'{"__metadata__":' + b"[" * 100_000,
    "nested tensor": b'{"a":{"dtype":"F32","data_offsets":[0,8],"shape":' + b"[" * 100_000,
    "float": entry([2.0]),
    "text": entry(["2"]),
    "true": entry([True, 2]),
    "negative": entry([-2]),
    "no list": entry(2),
    "huge": entry([1 << 62, 1 << 62]),
    "huge and empty": entry([1 << 63, 0], offsets=[0, 0]),
    "beyond 64 bits": entry([1 << 70, 0], offsets=[0, 0]),
    "float offsets": entry([2], offsets=[0.0, 8.0]),
    "huge offsets": entry([2], offsets=[1 << 62, (1 << 62) + 8]),
    "no dtype": {"a": {"shape": [2], "data_offsets": [0, 8]}},
    "odd dtype": entry([2], dtype=["F32"]),
    "unknown dtype": entry([8], dtype="F" * 100_000),
    "no mapping": [entry([2])],
}


@pytest.mark.parametrize("name", HEADERS)
def test_headers_of_no_tensor_are_one_sentence(tmp_path: Path, name: str) -> None:
    path = with_header(tmp_path / "x.safetensors", HEADERS[name])
    for read in (read_weights, WeightFiles.open, load_state):
        with pytest.raises(ArtifactError, match=r"x\.safetensors") as caught:
            read(path)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 600, read


def test_a_nested_lineage_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.ones(2)}, str(path), metadata={"taskgrid": "[" * 100_000})
    for read in (load_state, read_lineage):
        with pytest.raises(ArtifactError, match="its lineage cannot be read"):
            read(path)
    index = in_shards(tmp_path / "shards", STATE)
    index.write_bytes(b'{"weight_map":' * 100_000)
    with pytest.raises(ArtifactError, match="no index of shards"):
        read_weights(index)


@pytest.mark.parametrize(
    ("content", "size"),
    [
        (entry([8], dtype="F4", offsets=(0, 4)), 4),
        (entry([1], dtype="C64"), 8),
        (entry([1] * 70 + [2]), 8),
    ],
)
def test_dtypes_and_shapes_that_nothing_computes_with_are_refused(
    tmp_path: Path, content: Any, size: int
) -> None:
    with pytest.raises(ArtifactError, match=r"holds 'a' as .* which is not supported"):
        read_weights(with_header(tmp_path / "x.safetensors", content, size))
