"""One voice for messages: each kind of mistake, in each kind of model."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator
from pydantic.dataclasses import dataclass

from taskgrid.errors import ConfigError
from taskgrid.sentences import (
    _SECRETS,
    choices,
    did_you_mean,
    key_path,
    pydantic_sentence,
    pydantic_sentences,
    unknown,
    without_secrets,
)

_STRICT = ConfigDict(extra="forbid", strict=True)
_NAME = "^[a-z]+$"


class Range(BaseModel):
    model_config = _STRICT

    start: float
    step: float = 0.1


class Grid(BaseModel):
    model_config = _STRICT

    lambdas: list[float] | Range
    method: Literal["average", "ties"] = "ties"
    name: Annotated[str, Field(pattern=_NAME)] = "a"
    label: str = "x"
    size: Annotated[int, Field(gt=0)] = 1

    @field_validator("label")
    @classmethod
    def _label(cls, value: str) -> str:
        if value == "taken":
            raise ValueError("it stands twice")
        return value


class Config(BaseModel):
    model_config = _STRICT

    grids: list[Grid]
    named: Mapping[str, Range] = Field(default_factory=dict)


@dataclass(frozen=True, config=ConfigDict(extra="forbid"), kw_only=True)
class Part:
    url: str
    md5: str | None = None


@dataclass(frozen=True, config=ConfigDict(extra="forbid"), kw_only=True)
class Whole:
    title: str
    inner: str = ""
    files: tuple[Part, ...] = ()


def refused(kind: Any, value: Any) -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(kind).validate_python(value)
    return caught.value


def grid(**values: Any) -> dict[str, Any]:
    return {"grids": [{"lambdas": [0.5]}, {"lambdas": [0.5], **values}]}


def test_a_wrong_name_is_told_the_close_ones_and_all_there_are() -> None:
    assert did_you_mean("tiez", ["average", "ties"]) == "did you mean 'ties'? "
    assert did_you_mean("ab1", ["ab2", "ab3", "zzz"], most=2) == "did you mean 'ab3' or 'ab2'? "
    assert did_you_mean("x", ["average"]) == ""
    assert choices("x", []) == "there are: none"
    assert unknown("method", "tiez", ("ties",)) == (
        "unknown method 'tiez'; did you mean 'ties'? there are: ties"
    )


def test_a_place_is_written_as_in_the_configuration() -> None:
    assert key_path(("grid", "lambdas", 1)) == "grid.lambdas[1]"
    assert key_path(()) == ""


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (
            grid(lamdas=1),
            "unknown key 'grids[1].lamdas'; did you mean 'lambdas'? "
            "allowed here: lambdas, method, name, label, size",
        ),
        (grid(lambdas={}), "grids[1].lambdas.start is missing"),
        (grid(lambdas=3), "grids[1].lambdas is 3, but must be a list or a mapping (key: value)"),
        (grid(lambdas=["1"]), "grids[1].lambdas[0] is the text '1', but must be a number"),
        (grid(label=3), "grids[1].label is 3, but must be text; put it in quotes"),
        (grid(label="taken"), "grids[1].label is 'taken': it stands twice"),
        (grid(method="tiez"), "grids[1].method is 'tiez'; allowed: 'average' or 'ties'"),
        (grid(name="A"), "grids[1].name is 'A'; use small letters"),
        (grid(size=0), "grids[1].size is 0: input should be greater than 0"),
        (
            {"grids": [], "named": {"a b": {"start": 0.0, "stp": 1.0}}},
            "unknown key 'named.a b.stp'; did you mean 'step'? allowed here: start, step",
        ),
    ],
)
def test_a_mistake_is_one_sentence(value: Any, sentence: str) -> None:
    found = pydantic_sentences(
        refused(Config, value), Config, patterns={_NAME: "use small letters"}
    )
    assert sentence in found
    assert all("\n" not in line for line in found)


def test_dataclasses_have_keys_too_and_a_misspelt_key_comes_first() -> None:
    error = refused(Whole, {"titel": "a", "files": [{"url": "u", "md": "x"}]})
    assert pydantic_sentences(error, Whole, hidden=["inner"]) == [
        "unknown key 'files[0].md'; did you mean 'md5'? allowed here: url, md5",
        "unknown key 'titel'; did you mean 'title'? allowed here: title, files",
        "title is missing",
    ]


def test_what_the_keys_are_is_not_needed() -> None:
    error = refused(Range, {"start": 0.0, "stp": 1.0})
    assert pydantic_sentence(error, within="options") == "unknown key 'options.stp'; remove it"
    assert pydantic_sentence(error, Range, within="options").startswith(
        "unknown key 'options.stp'; did you mean 'step'? allowed here: start"
    )


def test_keys_that_were_taken_out_before_are_offered_too() -> None:
    error = refused(Range, {"start": 0.0, "layot": 1.0})
    assert pydantic_sentence(error, Range, beside=["layout"]) == (
        "unknown key 'layot'; did you mean 'layout'? allowed here: layout, start, step"
    )


def test_a_long_value_is_cut() -> None:
    sentence = pydantic_sentence(refused(Range, {"start": 500 * "x"}), Range)
    assert len(sentence) < 140
    assert "..." in sentence


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://me:s3cret@host:5000/x does", "http://***@host:5000/x does"),
        ("'postgresql://me:s3c@ret'@host/db'", "'postgresql://***@host/db'"),
        ("see https://s3cret@github.com/a/b", "see https://***@github.com/a/b"),
        ("https://host/x.zip?token=s3cret&part=2", "https://host/x.zip?token=***&part=2"),
        ("https://s3/x?X-Amz-Signature=s3cret;a=1", "https://s3/x?X-Amz-Signature=***;a=1"),
        ("https://host/x?part=2&sig=s3cret'", "https://host/x?part=2&sig=***'"),
        ("{'password': 's3cret', 'user': 'me'}", "{'password': '***', 'user': 'me'}"),
        ("uri: x, api_key: s3cret", "uri: x, api_key: ***"),
        ("Authorization: Bearer s3cret.s3cret.s3cret", "Authorization: Bearer ***"),
        ("hf_abcdefghijs3cret", "hf_***"),
        ("S\u0131GNATURE=s3cret", "S\u0131GNATURE=***"),
        ("CREDENT\u0130ALS=s3cret", "CREDENT\u0130ALS=***"),
        ("TO\u212aEN=s3cret", "TO\u212aEN=***"),
        # Nothing of these is secret.
        ("sqlite:////home/me@work/a.db", "sqlite:////home/me@work/a.db"),
        (
            "log in (HF_TOKEN) at https://host/a?id=5#b",
            "log in (HF_TOKEN) at https://host/a?id=5#b",
        ),
        ("hf-hub:owner/name@revision", "hf-hub:owner/name@revision"),
        ("77 tokens, the key 'grid' and a password", "77 tokens, the key 'grid' and a password"),
    ],
)
def test_no_text_holds_a_password_or_a_token(text: str, shown: str) -> None:
    assert without_secrets(text) == shown
    assert str(ConfigError(text)) == f"{ConfigError(text)}" == shown


@given(st.data())
def test_what_a_pattern_of_a_secret_finds_is_looked_for(data: st.DataObject) -> None:
    signs, pattern = data.draw(st.sampled_from(_SECRETS))
    found = data.draw(st.from_regex(pattern))
    assert any(sign in found.casefold() for sign in signs)


def test_a_value_is_rid_of_its_password_before_it_is_cut() -> None:
    address = f"http://me:{30 * 's3cret'}@host"
    sentence = pydantic_sentence(refused(Range, {"start": address}), Range)
    assert "s3cret" not in sentence and "http://***@host" in sentence


def test_saying_something_costs_no_import_of_pydantic() -> None:
    # The registry of plug-ins speaks with this voice, and Snakemake asks it in every job.
    code = "import sys, taskgrid.sentences; sys.exit('pydantic' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("part", ["x", "://", "a-", "?a-", "&key", "Bearer ", "hf_", "password "])
def test_long_texts_are_searched_in_a_time_that_grows_with_them(part: str) -> None:
    began = time.process_time()
    assert without_secrets(part * 100_000)
    assert time.process_time() - began < 20
