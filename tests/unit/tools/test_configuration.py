"""The configuration's reference and schema: made from the sections, and true of every file we ship."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tools.configuration import json_schema, reference

ROOT = Path(__file__).parents[3]
FILES = [ROOT / "config.yaml", *sorted((ROOT / "presets").rglob("*.yaml"))]


@pytest.mark.parametrize(
    ("file", "made"),
    [("docs/configuration.md", reference), ("resources/schema/config.json", json_schema)],
)
def test_what_is_made_is_up_to_date(file: str, made: Any) -> None:
    assert (ROOT / file).read_text() == made(), "run: python -m tools.configuration"


def test_every_key_is_explained() -> None:
    for name, section in json.loads(json_schema())["$defs"].items():
        for key, value in section["properties"].items():
            assert value.get("description"), f"{name}.{key}"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_editors_find_the_schema_and_no_fault(file: Path) -> None:
    first = file.read_text().splitlines()[0]
    assert first.startswith("# yaml-language-server: $schema=")
    schema = json.loads((file.parent / first.partition("=")[2]).read_text())
    jsonschema.validate(yaml.safe_load(file.read_text()), schema)


@pytest.mark.parametrize(
    "raw",
    [
        {"lambda": 1},
        {"grid": {"lamdas": [1]}},
        {"tasks": [{"source": "npz"}]},
        {"grid": {"methods": [{"lambdas": [1]}]}},
        {"split": {"fraction": 2}},
        {"finetune": {"recipes": {"a": {"lrr": 1}}}},
        {"transport": [{"name": "x"}]},
    ],
)
def test_editors_show_a_mistake(raw: Any) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(raw, json.loads(json_schema()))
