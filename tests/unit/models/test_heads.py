"""Zero-shot heads."""

from __future__ import annotations

from pathlib import Path

import open_clip
import pytest
import torch

from taskgrid.errors import ArtifactError, ConfigError, LineageError
from taskgrid.models import Head, build_head
from taskgrid.models.heads import check_head
from taskgrid.store.weights import save_state
from tests.unit.example_models import CLASSES, TEMPLATES, tiny_clip, tiny_head


def test_head_is_open_clips_classifier_times_the_scale(tmp_path: Path) -> None:
    clip = tiny_clip(tmp_path)
    theirs = open_clip.build_zero_shot_classifier(clip.model, clip.tokenizer, CLASSES, TEMPLATES)
    head = build_head(clip, CLASSES, TEMPLATES)
    torch.testing.assert_close(head.weight, theirs.T * clip.logit_scale, rtol=1e-5, atol=1e-4)
    norms = head.weight.double().norm(dim=1)
    torch.testing.assert_close(norms, torch.full_like(norms, clip.logit_scale), rtol=1e-6, atol=0)


def test_templates_are_normalised_before_they_are_averaged(tmp_path: Path) -> None:
    clip = tiny_clip(tmp_path)
    with torch.no_grad():
        each = clip.model.encode_text(clip.tokenizer([t.replace("{}", "cat") for t in TEMPLATES]))
    mean = (each / each.norm(dim=1, keepdim=True)).double().mean(0)
    expected = mean / mean.norm() * clip.logit_scale
    other = each.double().mean(0)
    other = other / other.norm() * clip.logit_scale
    head = build_head(clip, ["cat"], TEMPLATES)
    torch.testing.assert_close(head.weight[0].double(), expected, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(head.weight[0].double(), other, rtol=1e-5, atol=1e-6)


def test_a_row_does_not_depend_on_the_other_classes(tmp_path: Path) -> None:
    clip = tiny_clip(tmp_path)
    whole = build_head(clip, CLASSES, TEMPLATES).weight
    assert torch.equal(whole[1:2], build_head(clip, CLASSES[1:2], TEMPLATES).weight)
    assert not torch.equal(whole[0], whole[1])


def test_braces_in_class_names_are_just_text(tmp_path: Path) -> None:
    clip = tiny_clip(tmp_path)
    texts = []
    real = clip.tokenizer

    def spy(prompts: list[str]) -> torch.Tensor:
        texts.extend(prompts)
        return real(prompts)

    object.__setattr__(clip, "tokenizer", spy)
    build_head(clip, ["{x}", "a {} b"], ["the {}."])
    assert texts == ["the {x}.", "the a {} b."]


def test_logits_are_scaled_cosines(tmp_path: Path) -> None:
    head = tiny_head(tiny_clip(tmp_path))
    features = torch.randn(5, 12) * 7
    cosine = torch.nn.functional.cosine_similarity(
        features[:, None].double(), head.weight[None].double(), dim=2
    )
    expected = cosine * head.weight.double().norm(dim=1)
    torch.testing.assert_close(head.logits(features).double(), expected, rtol=1e-5, atol=1e-5)


def test_head_survives_a_file(tmp_path: Path) -> None:
    head = tiny_head(tiny_clip(tmp_path))
    content = head.save(tmp_path / "head.safetensors")
    again = Head.load(tmp_path / "head.safetensors")
    assert torch.equal(again.weight, head.weight)
    assert again.classes == CLASSES
    assert again.lineage == {**head.lineage, "digest": content}
    assert again.save(tmp_path / "again.safetensors") == content


def test_other_files_are_not_heads(tmp_path: Path) -> None:
    save_state(tmp_path / "x.safetensors", {"weight": torch.ones(1)}, {"kind": "expert"})
    with pytest.raises(ArtifactError, match="not a head"):
        Head.load(tmp_path / "x.safetensors")


def test_head_of_another_text_tower_is_refused(tmp_path: Path) -> None:
    mine = tiny_clip(tmp_path, tag="s0")
    other = tiny_clip(tmp_path, tag="s1", seed=1)
    head = tiny_head(other)
    check_head(head, other.card())
    with pytest.raises(LineageError) as caught:
        check_head(head, mine.card())
    message = str(caught.value)
    assert "head of task 'pets'" in message
    assert mine.text_digest in message
    assert other.text_digest in message


def test_lineage_tells_prompts_apart(tmp_path: Path) -> None:
    clip = tiny_clip(tmp_path)
    first = build_head(clip, CLASSES, TEMPLATES).lineage
    assert first["kind"] == "head"
    assert first["text"] == clip.text_digest
    assert first["base"] == clip.visual_digest
    for other in (
        build_head(clip, CLASSES[::-1], TEMPLATES),
        build_head(clip, CLASSES, TEMPLATES[:1]),
    ):
        assert other.lineage != first


@pytest.mark.parametrize(
    ("classes", "templates", "words"),
    [((), TEMPLATES, "class name"), (CLASSES, (), "template"), (CLASSES, ("a photo",), "a photo")],
)
def test_incomplete_prompts_are_refused(
    tmp_path: Path, classes: tuple[str, ...], templates: tuple[str, ...], words: str
) -> None:
    clip = tiny_clip(tmp_path)
    with pytest.raises(ConfigError, match=words):
        build_head(clip, classes, templates)
