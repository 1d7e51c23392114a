"""Cards: literals that are read without what they describe."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from taskgrid import plugins
from taskgrid.errors import ConfigError
from taskgrid.plugins import cards
from taskgrid.plugins.cards import (
    AlignerCard,
    Card,
    MergerCard,
    merger_card,
    plugin_options,
    read_card,
)
from taskgrid.plugins.options import Option
from taskgrid.plugins.registry import NOUNS, Kind

WITH_CARDS: list[tuple[Kind, str]] = [
    (kind, name) for kind in cards._KINDS for name in plugins.names(kind)
]


@pytest.mark.parametrize(("kind", "name"), WITH_CARDS)
def test_every_plugin_says_what_it_is(kind: Kind, name: str) -> None:
    card = read_card(kind, name)
    assert card == plugins.load(kind, name).CARD
    assert card.title and not card.title.endswith(".")
    for option in card.options.values():
        assert option.about and not option.about.endswith(".")
        # The default is a value like any other, in its canonical form.
        found = option.read(
            list(option.default) if isinstance(option.default, tuple) else option.default
        )
        assert found == option.default or list(found) == list(option.default)
    assert plugin_options(kind, name, {}).keys() == card.options.keys()
    for rule in card.rules:
        assert card.options.keys() >= {*rule.plus, *rule.minus, *rule.when}


@pytest.mark.parametrize(("kind", "name"), WITH_CARDS)
def test_a_misspelt_option_is_refused_by_every_plugin(kind: Kind, name: str) -> None:
    with pytest.raises(ConfigError, match=f"{NOUNS[kind]} '{name}' has no option 'desity'"):
        plugin_options(kind, name, {"desity": 0.2})


def test_a_misspelt_option_is_refused_before_anything_is_imported() -> None:
    script = """
import sys
from taskgrid.errors import ConfigError
from taskgrid.plugins import names
from taskgrid.plugins.cards import _KINDS, plugin_options, read_card
for kind in _KINDS:
    for name in names(kind):
        assert read_card(kind, name).title
        try:
            plugin_options(kind, name, {"desity": 0.2})
            raise SystemExit(f"{kind} {name} took it")
        except ConfigError:
            pass
heavy = {"torch", "numpy", "pyarrow", "open_clip"} & sys.modules.keys()
raise SystemExit(f"imported {heavy}" if heavy else 0)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("della", {"density": 0.1, "epsilon": 0.1}, "density - epsilon is 0, .* more than 0"),
        ("della", {"density": 0.9}, r"density \+ epsilon is 1.05, .* at most 1"),
        ("breadcrumbs", {"keep": 0.95}, r"keep \+ remove is 1.05, .* at most 1 with `scope: row`"),
        (
            "breadcrumbs",
            {"order": "keep_first", "remove": 0.2},
            "keep - remove is 0, .* `order: keep_first`",
        ),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    name: str, options: dict[str, object], words: str
) -> None:
    with pytest.raises(ConfigError, match=f"'{name}' do not fit together: {words}"):
        plugin_options("merger", name, options)


def test_merge_methods_say_what_the_workflow_must_know() -> None:
    card = merger_card("tall_mask")
    assert (card.gives, card.coefficient, card.needs) == ("per_task", "none", ())
    assert merger_card("logit_ensemble").gives == "logits"
    for name in plugins.names("merger"):
        needed = merger_card(name).needs
        assert set(needed) <= set(plugins.names("statistic"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has no CARD = MergerCard"),
        ("CARD = 3", "has no CARD = MergerCard"),
        ("CARD = StudyCard(title='x', rule='y')", "has no CARD = MergerCard"),
        ("CARD = MergerCard(title=str(3))", "line 1 calls what is no card"),
        ("CARD = MergerCard('x')", "line 1 calls what is no card, or without names"),
        ("CARD = MergerCard(\n    title='a' + name)", "line 2 is no literal"),
        ("CARD = MergerCard(titel='x')", "CARD in mine is no MergerCard.*titel"),
        ("CARD = MergerCard()", "CARD in mine is no MergerCard.*title"),
        ("CARD = MergerCard(title='x', labels=True)", "only where it says `learned`"),
        (
            "CARD = MergerCard(title='x', learned=True, labels=True, options={'images': "
            "Option(default='val', about='y', choices=('val', 'test'))})",
            "never of test",
        ),
    ],
)
def test_a_card_that_is_none_is_told_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, words: str
) -> None:
    (tmp_path / "mine.py").write_text(text)
    monkeypatch.setattr(cards, "module_of", lambda kind, name: "mine")
    monkeypatch.setattr(cards, "source_of", lambda module: tmp_path / "mine.py")
    with pytest.raises(ConfigError, match=words):
        read_card("merger", "mine")


def test_a_statistic_says_which_images_it_is_computed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(
        "CARD = StatisticCard(title='x', options={'images': Option(default=0, about='y')})"
    )
    monkeypatch.setattr(cards, "module_of", lambda kind, name: "mine")
    monkeypatch.setattr(cards, "source_of", lambda module: tmp_path / "mine.py")
    with pytest.raises(ConfigError, match="StatisticCard: a statistic needs the option 'split'"):
        read_card("statistic", "mine")


def test_a_card_holds_literals_of_every_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(
        "CARD = MergerCard(title='a' 'b', needs=('fisher',), options={'x': Option(default=-1.5, about='y')})"
    )
    monkeypatch.setattr(cards, "module_of", lambda kind, name: "mine.of.this.test")
    monkeypatch.setattr(cards, "source_of", lambda module: tmp_path / "mine.py")
    card = read_card("merger", "mine")
    assert isinstance(card, MergerCard) and isinstance(card, Card)
    assert card.title == "ab" and card.needs == ("fisher",)
    assert card.options["x"].default == -1.5


def test_unknown_plugins_are_named_with_those_that_exist() -> None:
    with pytest.raises(ConfigError, match=r"merge method 'tise'; did you mean 'ties'\?"):
        read_card("merger", "tise")


def test_an_aligner_says_what_it_sees_with_which_options() -> None:
    options = {"by": Option(default="weights", about="b"), "deep": Option(default=False, about="d")}
    card = AlignerCard(
        title="A",
        options=options,
        sees="images",
        sees_if={"by": {"weights": "nothing"}, "deep": {True: "labels"}},
    )
    for by, deep, sees in (
        ("weights", False, "nothing"),
        ("units", False, "images"),
        ("units", True, "labels"),
    ):
        assert card.looks_at({"by": by, "deep": deep}) == sees
    with pytest.raises(ValueError, match="`sees_if` names 'bye', which is no option"):
        AlignerCard(title="A", options=options, sees_if={"bye": {}})
