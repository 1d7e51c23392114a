"""Reading files: what YAML allows and nobody means, and what never ends."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from taskgrid.config.load import read_config, read_entries
from taskgrid.config.reading import MOST_VALUES, plain, read_text, read_yaml
from taskgrid.errors import ConfigError

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)
MERGES = "a0: &a0 {x: 1}\n" + "".join(
    f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\nb: {c: 1, d: 2,\n  c: 3}", "b has the key 'c' twice, in lines 2 and 3; keep one"),
        ("a: 1\n'a': 2", "has the key 'a' twice, in lines 1 and 2"),
        ("1: 2", "has the key 1, which is no text; put it in quotes"),
        ("a: {null: 2}", "a has the key None, which is no text"),
        ("? [a]\n: 2", r"has a key that is no text \(line 1\)"),
        ("a: [.nan]", r"a\[0\] is nan, which is not a finite number"),
        ("a: -.inf", "a is -inf, which is not a finite number"),
        ("a: 1.0e+308", r"a is 1e\+308, which is beyond 1e\+15"),
        (f"a: {'9' * 5000}", "a is inf, which is not a finite number"),
        ("a: 1.0e-400", "a is 1.0e-400, nearer to 0 than numbers are"),
        ("a: 010", "a is 010, which YAML reads as int; put it in quotes if it is text"),
        ("a: 1:30", "a is 1:30, which YAML reads as int"),
        ("a: 1:30.5", "a is 1:30.5, which YAML reads as float"),
        ("a: 2001-01-01", "a is 2001-01-01, which YAML reads as timestamp"),
        ("a: !!binary aGk=", "which YAML reads as binary"),
        ("a: !!python/name:os.system x", "which YAML reads as python/name:os.system"),
        ("a: !!float x", "a is x, which YAML reads as float"),
        ('a: "\\0"', r"a is '\\x00', which holds a control character"),
        ("a: \0", "is not YAML"),
        ("a: [", r"is not YAML \(line 1\)"),
        ("\ta: 1", r"is not YAML \(line 1\): found character '\\t'"),
        ("a: *b", r"is not YAML \(line 1\): found undefined alias"),
        ("a: &a [*a]", "nested more than 32 deep"),
        ("a: &a {<<: *a}", "nested more than 32 deep"),
        ("a: {<<: 1}", "a has << before what is no mapping"),
        (f"a: {'[' * 3000}{']' * 3000}", "nested more than 32 deep"),
        (f"a: {'[' * 100}{']' * 100}", "nested more than 32 deep"),
        (BOMB, f"more than {MOST_VALUES} values, aliases counted each time"),
        (MERGES, f"more than {MOST_VALUES} values"),
    ],
)
def test_what_nobody_means_is_refused_at_once(text: str, words: str) -> None:
    began = time.process_time()
    with pytest.raises(ConfigError, match=words) as caught:
        read_text(text, "config file c.yaml")
    assert time.process_time() - began < 10
    message = str(caught.value)
    assert message.startswith("config file c.yaml") and len(message) < 300 and "\n" not in message


def test_what_people_mean_is_read() -> None:
    text = """
        low: &low {lr: 1.0e-5, steps: 1_000, clip: null}
        high: {steps: 7, <<: *low, all: yes}
        list: [-1, +2, 0.5, 1., 0.0e+9, "1", "010", x y, true, ~]
    """
    low = {"lr": 1e-5, "steps": 1000, "clip": None}
    found = read_text(text.replace("\n        ", "\n"), "")
    assert found["low"] == low
    assert found["list"] == [-1, 2, 0.5, 1.0, 0.0, "1", "010", "x y", True, None]
    assert [type(one) for one in found["list"][:2]] == [int, int]
    assert found["high"] == {**low, "steps": 7, "all": True}


def test_values_of_a_program_are_copied_and_checked() -> None:
    given: dict[str, Any] = {"a": ({"b": 1},)}
    found = plain(given, "config")
    assert found == {"a": [{"b": 1}]} and found["a"][0] is not given["a"][0]
    given["self"] = given
    with pytest.raises(
        ConfigError, match=r"config: self\.self\.self\.self is nested more than 32 deep"
    ):
        plain(given, "config")
    with pytest.raises(
        ConfigError, match=r"config: a is \{1\}, which is neither text nor a number"
    ):
        plain({"a": {1}}, "config")


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"a: 1\nb: \xff", r"is not UTF-8 \(line 2\); save it in UTF-8"),
        ("a: 1".encode("utf-16"), "is not UTF-8"),
        (b"", r"must hold a mapping \(key: value\)"),
        (b"- a", "must hold a mapping"),
        (b"#" * (1 << 24) + b"#", "is larger than 16 MB"),
    ],
)
def test_a_file_that_is_no_configuration_is_named(tmp_path: Path, raw: bytes, words: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(raw)
    with pytest.raises(ConfigError, match=f"config file .*c.yaml {words}"):
        read_yaml(path)


def test_a_byte_order_mark_is_no_part_of_a_key(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\r\n")
    assert read_yaml(path) == {"a": 1}


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/zero")):
        with pytest.raises(ConfigError, match="is no file; give the path of a YAML file"):
            read_yaml(path)
    with pytest.raises(ConfigError, match="cannot be read: File name too long"):
        read_yaml(tmp_path / ("x" * 5000))


@pytest.mark.parametrize("extends", ['["a\\0b"]', "[[x]]", "x", "{a: 1}", "[pipe/x]", "[1]"])
def test_what_a_file_extends_is_checked(tmp_path: Path, extends: str) -> None:
    (tmp_path / "c.yaml").write_text(f"extends: {extends}")
    with pytest.raises(ConfigError, match=r"extends|cannot be read"):
        read_config(tmp_path / "c.yaml")


def test_files_that_extend_one_another_come_to_an_end(tmp_path: Path) -> None:
    for number in range(40):
        (tmp_path / f"{number}.yaml").write_text(f"extends: [{number + 1}.yaml]")
    with pytest.raises(ConfigError, match=r"17.yaml is one of more than 16 that extend each other"):
        read_config(tmp_path / "0.yaml")


def test_a_command_line_gives_values_as_yaml() -> None:
    entries = [
        'grid={"lambdas":[0,0.25],"points":[]}',
        "grid={lambdas: [1]}",
        "device=cpu",
        "published=",
    ]
    assert read_entries(entries) == {
        "grid": {"lambdas": [1], "points": []},
        "device": "cpu",
        "published": None,
    }
