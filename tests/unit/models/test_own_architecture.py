"""Architectures by the path of a model config."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast

from taskgrid.config import architectures, parse_config
from taskgrid.config.experiment import Experiment
from taskgrid.errors import ConfigError, LineageError, TaskgridError
from taskgrid.models.clip import load_clip
from taskgrid.models.heads import build_head
from taskgrid.plugins.resources import resource_path
from taskgrid.workflow.settings import model as settings
from tests.unit.example_config import changed

NAME = "taskgrid-vit-4"
WEIGHTS = resource_path(f"models/{NAME}-s0.safetensors")
SHIPPED: dict[str, Any] = json.loads(resource_path(f"models/{NAME}.json").read_text())


def own(folder: Path, config: Any = SHIPPED) -> str:
    path = folder / "mine.json"
    path.write_text(config if isinstance(config, str) else json.dumps(config))
    return str(path)


def with_text(**changes: Any) -> dict[str, Any]:
    return {**SHIPPED, "text_cfg": {**SHIPPED["text_cfg"], **changes}}


@pytest.mark.parametrize("wrapped", [False, True], ids=["as shipped", "as on the hub"])
def test_a_path_is_as_good_as_a_name(tmp_path: Path, wrapped: bool) -> None:
    config = dict(SHIPPED)
    if wrapped:
        config = {"preprocess_cfg": config.pop("preprocess_cfg"), "model_cfg": config}
    path = own(tmp_path, config)
    found, named = load_clip(path, str(WEIGHTS)), load_clip(NAME, "s0")
    assert found.architecture == path
    for name in ("visual_digest", "text_digest", "image_size", "mean", "std", "activation"):
        assert getattr(found, name) == getattr(named, name), name
    assert found.card().tower == named.card().tower
    texts = ["a photo of a cat", "of a dog"]
    assert torch.equal(found.tokenizer(texts), named.tokenizer(texts))
    heads = [build_head(clip, ["cat", "dog"], ["a {}."]).weight for clip in (found, named)]
    assert torch.equal(*heads)
    for ask in (
        architectures.image_size,
        architectures.parameters,
        architectures.features,
        architectures.operations,
    ):
        assert ask(path) == ask(NAME)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("{", "mine.json cannot be read as JSON"),
        ([1], "mine.json is none of open_clip's: it lacks 'embed_dim'"),
        ({"embed_dim": 8, "vision_cfg": {}}, "it lacks 'text_cfg'; docs/models.md shows one"),
        (with_text(hedas=4), "cannot be built .*'hedas'.*; correct its config"),
        (with_text(heads=7), "cannot be built .*divisible"),
        ({**SHIPPED, "multimodal_cfg": {}}, "is a captioning model"),
    ],
)
def test_what_is_no_model_config_is_said(tmp_path: Path, config: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as raised:
        load_clip(own(tmp_path, config), "random")
    assert "\n" not in str(raised.value)


def test_weights_must_fit_and_tags_there_are_none(tmp_path: Path) -> None:
    path = own(tmp_path, {**SHIPPED, "embed_dim": 64})
    with pytest.raises(LineageError, match=r"mine\.json"):
        load_clip(path, str(WEIGHTS))
    for ask in (load_clip, architectures.local_weights):
        with pytest.raises(ConfigError, match=r"'openai' is no file, .*mine\.json\) has no tags"):
            ask(path, "openai")
    assert architectures.local_weights(path, "random") is None
    assert architectures.local_weights(path, str(WEIGHTS)) == WEIGHTS


def test_the_tokenizer_is_the_one_that_the_config_names(tmp_path: Path) -> None:
    words = {"[UNK]": 0, "[PAD]": 1, "a": 2, "cat": 3}
    tokenizer = Tokenizer(WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]"
    ).save_pretrained(tmp_path / "words")
    named = {"hf_tokenizer_name": str(tmp_path / "words"), "context_length": 5, "vocab_size": 4}
    clip = load_clip(own(tmp_path, with_text(**named)), "random")
    assert clip.tokenizer(["a cat"]).tolist() == [[2, 3, 1, 1, 1]]
    gone = with_text(hf_tokenizer_name=str(tmp_path / "gone" / "for" / "good"))
    with pytest.raises(TaskgridError, match=r"the tokenizer of .*mine.json' cannot be loaded"):
        load_clip(own(tmp_path, gone), "random")


def test_a_changed_config_is_another_model(tmp_path: Path) -> None:
    def said(config: dict[str, Any]) -> str:
        model = {
            "name": "own",
            "architecture": own(tmp_path, config),
            "pretrained": str(WEIGHTS),
        }
        return settings.base(Experiment(parse_config(changed("models", [model]))), "own")

    # Other heads fit the same weights, and no digest of weights would tell.
    assert said(SHIPPED) == said(dict(reversed(SHIPPED.items())))
    assert said(SHIPPED) != said(with_text(heads=2))
    named = Experiment(parse_config(changed("grid/lambdas", [0, 1])))
    assert json.loads(settings.base(named, "tiny")) == {"architecture": NAME, "pretrained": "s0"}
