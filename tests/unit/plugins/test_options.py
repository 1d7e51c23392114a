"""Options: what values become, and one sentence for each mistake."""

from __future__ import annotations

import json
from typing import Any

import pytest

from taskgrid.errors import ConfigError
from taskgrid.plugins.options import Option, Options, Rule, read_options

DECLARED = {
    "density": Option(default=0.2, above=0, most=1, about="share that is kept"),
    "rank": Option(default=None, kind="integer", least=1, about="rank; null chooses it"),
    "fused": Option(default=True, about="whether to fuse"),
    "trim": Option(default="global", choices=("global", "tensor"), about="where"),
    "weights": Option(default=None, kind="numbers", about="per task", below=10),
    "layers": Option(default=(), kind="names", about="which"),
    "pairs": Option(default=(), kind="lists", about="which with which"),
}


def read(**values: Any) -> Options:
    return read_options("merge method 'mine'", DECLARED, values)


def test_every_option_has_a_value() -> None:
    options = read(density=1)
    assert dict(options) == {
        "density": 1.0, "rank": None, "fused": True, "trim": "global",
        "weights": None, "layers": (), "pairs": (),
    }  # fmt: skip
    assert isinstance(options.density, float) and options["density"] == options.density


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ({"density": 1}, 1.0),
        ({"rank": 3.0}, 3),
        ({"rank": None}, None),
        ({"fused": False}, False),
        ({"trim": "tensor"}, "tensor"),
        ({"weights": {"b": 1, "a": -2.5}}, {"a": -2.5, "b": 1.0}),
        ({"layers": ("x", "y")}, ["x", "y"]),
        ({"pairs": [("x", "y"), []]}, [["x", "y"], []]),
    ],
)
def test_values_have_one_form(values: dict[str, Any], found: Any) -> None:
    (name,) = values
    value = read(**values)[name]
    assert value == found and json.dumps(value) == json.dumps(found)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"densty": 0.2}, "merge method 'mine' has no option 'densty'.*density"),
        ({"density": 0}, "option 'density' of merge method 'mine' is 0: it must be more than 0"),
        ({"density": 1.5}, "it must be at most 1"),
        ({"density": "0.2"}, "it must be a number"),
        ({"density": True}, "it must be a number"),
        ({"density": float("nan")}, "it must be a number"),
        ({"density": None}, "it must be a number"),
        ({"rank": 2.5}, "it must be a whole number"),
        ({"rank": 0}, "it must be at least 1"),
        ({"fused": 1}, "it must be true or false"),
        ({"trim": "row"}, "allowed: global, tensor"),
        ({"trim": 3}, "it must be text"),
        ({"weights": [1, 2]}, "a mapping from names to numbers"),
        ({"weights": {"a": "x"}}, "it must be a number"),
        ({"weights": {"a": 10}}, "it must be less than 10"),
        ({"layers": "x"}, "a list of names"),
        ({"pairs": ["x"]}, "a list of names"),
    ],
)
def test_mistakes_are_told_in_one_sentence(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        read(**values)
    assert "\n" not in str(caught.value)


def test_options_do_not_change() -> None:
    options = read()
    with pytest.raises(AttributeError, match="options do not change"):
        options.density = 1.0  # type: ignore[misc]
    with pytest.raises(AttributeError, match="there is no option 'surprise'"):
        _ = options.surprise


RULED = {
    "low": Option(default=0.1, about="a share"),
    "high": Option(default=0.5, about="another"),
    "order": Option(default="up", choices=("up", "down"), about="which way"),
}
RULES = (
    Rule(plus=("low", "high"), most=1, when={"order": "up"}, about="the share that is taken"),
    Rule(plus=("high",), minus=("low",), above=0, about="the width"),
)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"high": 0.95}, "low + high is 1.05, but it must be at most 1 with `order: up`: it is the share "),
        ({"low": 0.5}, "high - low is 0, but it must be more than 0: it is the width"),
        ({"low": 0.7, "order": "down"}, "high - low is -0.2, but it must be more than 0: it is"),
    ],
)  # fmt: skip
def test_values_that_do_not_fit_together_are_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_options("merge method 'mine'", RULED, values, RULES)
    assert str(caught.value).startswith(
        f"options of merge method 'mine' do not fit together: {words}"
    )


def test_a_rule_holds_where_it_is_asked_and_rounding_breaks_none() -> None:
    for values in ({"low": 0.3, "high": 0.7}, {"high": 0.95, "order": "down"}):
        assert read_options("x", RULED, values, RULES).high == values["high"]
    assert 0.7 + 0.2 + 0.1 < 1
    three = Rule(plus=("a", "b", "c"), least=1, about="all")
    three.check({"a": 0.7, "b": 0.2, "c": 0.1})
