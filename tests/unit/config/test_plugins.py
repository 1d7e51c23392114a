"""Plug-ins in the configuration: names, options and needs are looked up on their cards, at once."""

from __future__ import annotations

from collections.abc import Iterator
from types import MappingProxyType
from typing import Any

import pytest

from taskgrid.config import Experiment, parse_config
from taskgrid.errors import ConfigError
from taskgrid.plugins import registry
from taskgrid.plugins.options import Option
from tests.unit.example_config import changed

STATISTIC = (
    'StatisticCard(title="S", options={"images": Option(default=0, about="i"), '
    '"split": Option(default="train", about="s"), more})'
)
TOYS = {
    "merger.soft": 'MergerCard(title="S", needs=("heat",), options={"power": Option(default=2, about="")})',
    "merger.lone": 'MergerCard(title="Lone", coefficient="none")',
    "merger.lost": 'MergerCard(title="Lost", needs=("nowhere",))',
    "statistic.heat": STATISTIC.replace("more", '"steps": Option(default=5, about="s")'),
    "statistic.cold": STATISTIC.replace("more", ""),
    "mode.gentle": 'ModeCard(title="Gentle", recipe={"lr": 0.5, "epochs": 3})',
    "mode.wary": 'ModeCard(title="Wary", others=("images", "heat"))',
    "study.why": 'StudyCard(title="Why", rule="none", options={"lambdas": Option(default=None, about="l")})',
    "aligner.shift": 'AlignerCard(title="Shift", options={"rank": Option(default=4, about="r", least=1)})',
    "aligner.glance": (
        'AlignerCard(title="Glance", sees_if={"by": {"images": "images", "labels": "labels"}}, '
        'options={"by": Option(default="weights", choices=("weights", "images", "labels"), about="b")})'
    ),
}


@pytest.fixture(scope="module", autouse=True)
def toys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Plug-ins of a package that cannot be imported: only their cards are read."""
    folder = tmp_path_factory.mktemp("outside") / "config_toys"
    folder.mkdir()
    (folder / "__init__.py").touch()
    found: dict[str, dict[str, str]] = {}
    for key, card in TOYS.items():
        kind, name = key.split(".")
        (folder / f"{name}.py").write_text(f"CARD = {card}\nraise ImportError\n")
        found.setdefault(kind, {})[name] = f"config_toys.{name}"
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder.parent))
        patch.setattr(registry, "_outside", lambda: MappingProxyType(found))
        yield


def experiment(**sections: Any) -> Experiment:
    raw = changed("device", "cpu")
    for path, value in sections.items():
        raw = raw | {path: {**raw[path], **value} if isinstance(value, dict) else value}
    return Experiment(parse_config(raw))


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("grid/methods", [{"name": "soft", "options": {"powr": 3}}], r"methods\[0\]: merge method 'soft'"),
        ("grid/methods", [{"name": "soft", "options": {"power": "x"}}], "option 'power' .* is 'x'"),
        ("finetune/modes", [{"name": "standard", "options": {"rank": 3}}], r"modes\[0\]: .* no option"),
        ("studies", [{"name": "why", "options": {"lamdas": 1}}], r"studies\[0\]: study 'why' has no option"),
        ("studies", ["wy"], r"studies\[0\].name is 'wy': unknown study 'wy'; did you mean 'why'"),
        ("studies", ["why", "why"], "study 'why' stands twice; give each a `label`"),
        ("statistics", [{"name": "heat", "options": {"steps": 0.5}}], "option 'steps' of statistic 'heat'"),
        ("statistics", ["heat", "heat"], "statistic 'heat' stands twice"),
        ("grid/methods", ["lost"], "'lost' needs statistic 'nowhere', which does not exist"),
        ("grid/methods", [{"name": "lone", "lambdas": [1]}], "'lone' has one model .* remove `lambdas`"),
        (
            "grid/methods",
            [{"name": "soft", "statistics": {"cold": "cold"}}],
            "has 'cold' under `statistics`, but does not need it; it needs: heat",
        ),
        (
            "grid/methods",
            [{"name": "soft", "statistics": {"heat": "heet"}}],
            "takes 'heat' from 'heet'; did you mean 'heat'",
        ),
    ],
)  # fmt: skip
def test_what_a_card_does_not_know_is_refused_at_once(path: str, value: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse_config(changed(path, value))


def test_a_list_of_numbers_is_checked_number_by_number() -> None:
    option = Option(default=[0.5], kind="series", above=0, about="some")
    assert option.read([1, 0.25]) == [1.0, 0.25]
    for value in ([1, 0], [0.5, "x"], 0.5, [True]):
        with pytest.raises(ValueError, match=r"more than 0|a list of numbers|a number"):
            option.read(value)


def test_options_stay_as_they_are_written() -> None:
    methods = [
        {"name": "soft", "options": {}},
        {"name": "soft", "label": "b", "options": {"power": 3}},
    ]
    found = experiment(grid={"methods": methods})
    assert [found.method(label).options for label in found.methods] == [{}, {"power": 3}]


def test_a_statistic_that_is_needed_and_not_listed_is_made_with_its_defaults() -> None:
    found = experiment(grid={"methods": ["soft"]}, statistics=["cold"])
    assert found.statistics == ("cold", "heat")
    assert found.statistic("heat").options == {}
    assert found.needs("soft") == {"heat": "heat"}
    assert experiment().statistics == ()


def test_a_mode_may_need_a_statistic_of_other_tasks() -> None:
    found = experiment(finetune={"modes": ["wary", "standard"]})
    assert found.statistics == ("heat",)
    assert (found.mode_needs("wary"), found.mode_needs("standard")) == ({"heat": "heat"}, {})


def test_the_only_one_of_its_name_is_taken_whatever_its_label() -> None:
    found = experiment(grid={"methods": ["soft"]}, statistics=[{"name": "heat", "label": "long"}])
    assert (found.statistics, found.needs("soft")) == (("long",), {"heat": "long"})


def test_of_two_statistics_of_a_name_a_method_says_which() -> None:
    two = [{"name": "heat", "label": "long", "options": {"steps": 50}}, {"name": "heat"}]
    with pytest.raises(
        ConfigError, match=r"stands in `statistics` as long, heat; say which: .*heat: long"
    ):
        experiment(grid={"methods": ["soft"]}, statistics=two)
    methods = [
        {"name": "soft", "statistics": {"heat": "long"}},
        {"name": "soft", "label": "short", "statistics": {"heat": "heat"}},
    ]
    found = experiment(grid={"methods": methods}, statistics=two)
    assert [found.needs(label) for label in found.methods] == [{"heat": "long"}, {"heat": "heat"}]
    assert found.statistic("long").options == {"steps": 50}


def test_a_label_that_is_the_name_of_another_statistic_in_need_is_refused() -> None:
    with pytest.raises(ConfigError, match="'heat' is a label of statistic 'cold'"):
        experiment(grid={"methods": ["soft"]}, statistics=[{"name": "cold", "label": "heat"}])


def test_recipes_lie_over_one_another_from_the_common_one_to_the_tasks_own() -> None:
    recipe = {"steps": 10, "lr": 0.1, "weight_decay": 0.1, "clip_norm": 0.1, "label_smoothing": 0.1}
    modes = [
        "standard",
        "gentle",
        {"name": "gentle", "label": "own", "recipe": {"steps": 7, "lr": 0.3}},
    ]
    recipes = {"a": {"clip_norm": 0.4}, "b": {"lr": 0.4, "clip_norm": 0.4}}
    tasks = [{"name": name, "source": "folder", "path": name} for name in ("a", "b")]
    tasks[1]["finetune"] = {"clip_norm": 0.5}  # type: ignore[assignment]
    found = experiment(finetune={"recipe": recipe, "modes": modes, "recipes": recipes}, tasks=tasks)
    seen = {
        (task, mode): tuple(
            found.recipe(task, mode)[key] for key in ("steps", "epochs", "lr", "clip_norm")
        )
        for task in "ab"
        for mode in found.modes
    }
    assert seen == {
        ("a", "standard"): (10, None, 0.1, 0.4),
        ("a", "gentle"): (None, 3, 0.5, 0.4),
        ("a", "own"): (7, None, 0.3, 0.4),
        ("b", "standard"): (10, None, 0.4, 0.5),
        ("b", "gentle"): (None, 3, 0.4, 0.5),
        ("b", "own"): (7, None, 0.4, 0.5),
    }
    assert found.recipe("a", "gentle")["weight_decay"] == 0.1


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ({"lrr": 1}, "unknown key 'lrr' in recipe of mode 'own'; did you mean 'lr'"),
        ({"lr": -1}, "recipe of mode 'own': lr is -1"),
        ({"steps": 1, "epochs": 1}, "recipe of mode 'own': give `steps` or `epochs`, not both"),
    ],
)
def test_a_mistake_in_a_modes_recipe_names_the_mode(recipe: Any, words: str) -> None:
    mode = {"name": "standard", "label": "own", "recipe": recipe}
    with pytest.raises(ConfigError, match=words):
        experiment(finetune={"modes": [mode]})


def test_studies_have_labels_and_options() -> None:
    studies = ["addition", {"name": "why", "label": "because", "options": {"lambdas": "x"}}]
    found = experiment(studies=studies)
    assert found.studies == ("addition", "because")
    assert (found.study("because").name, found.study("because").options) == (
        "why",
        {"lambdas": "x"},
    )


# ---------------------------------------------------------------------------------- transport

THEIRS = {
    "name": "theirs",
    "from": "../other",
    "model": "vit",
    "mode": "standard",
    "aligner": "shift",
}


GLANCE: dict[str, Any] = {"aligner": "glance", "options": {"by": "images"}}


def test_what_an_aligner_sees_depends_on_its_options() -> None:
    for by, sees in (("weights", "nothing"), ("images", "images"), ("labels", "labels")):
        spec = {**THEIRS, **GLANCE, "options": {"by": by}}
        found = Experiment(parse_config(changed("transport", [spec])))
        assert found.transport("theirs").sees == sees


def test_transported_experts_stand_among_the_runs() -> None:
    two = [
        {"name": name, "architecture": "taskgrid-vit-4", "pretrained": "s0"} for name in ("m", "n")
    ]
    transport = [
        {**THEIRS, "seed": 3, "to": "n", "options": {"rank": 2}},
        {**THEIRS, "name": "bent"},
    ]
    transport[1]["evaluation"] = "tangent"
    found = Experiment(parse_config({**changed("models", two), "transport": transport}))
    assert found.transports == ("theirs", "bent")
    assert [(run.model, run.mode, run.seed) for run in found.expert_runs] == [
        ("m", "standard", 0),
        ("m", "bent", 0),
        ("n", "standard", 0),
        ("n", "theirs", 3),
        ("n", "bent", 0),
    ]
    spec = found.transport("theirs")
    assert (spec.results, spec.model, spec.mode, spec.aligner) == (
        "../other",
        "vit",
        "standard",
        "shift",
    )
    assert [found.evaluation(name) for name in found.transports] == ["plain", "tangent"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"aligner": "shft"}, "unknown aligner 'shft'; did you mean 'shift'"),
        ({"options": {"rank": 0}}, r"transport\[0\]: option 'rank' of aligner 'shift' is 0"),
        ({"options": {"rnk": 1}}, "aligner 'shift' has no option 'rnk'"),
        ({"to": "nope"}, "transport 'theirs' belongs to model 'nope', which is not in models"),
        ({"name": "standard"}, "'standard' stands twice"),
        ({"calibration": {}}, "aligner 'shift' looks at no images with these options; leave out"),
        (
            {"aligner": "glance", "calibration": {"images": 3}},
            "aligner 'glance' looks at no images with these options",
        ),
        (
            {**GLANCE, "calibration": {"tasks": ["a", "q"]}},
            r"transport\[0\]\.calibration\.tasks names task 'q', which there is not; .*a, b, c",
        ),
        ({**GLANCE, "calibration": {"tasks": ["a", "a"]}}, "'a' stands twice"),
        ({**GLANCE, "calibration": {"images": -1}}, "images"),
        ({"carry": "model", "evaluation": "tangent"}, "a tangent model means nothing"),
        ({"carry": "model", "aligner": "few_shot"}, "'few_shot' brings a task's vector over"),
        ({"output": "heads"}, "`output: heads` is for a model that is carried whole"),
        ({"form": "x"}, r"unknown key 'transport\[0\].form'; did you mean 'from'"),
    ],
)
def test_a_mistake_in_a_transport_is_answered(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse_config(changed("transport", [{**THEIRS, **change}]))


def test_a_transport_needs_the_other_runs_results(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in "abc":
        (tmp_path / "data" / name).mkdir(parents=True)
    found = Experiment(parse_config(changed("transport", [{**THEIRS, "from": "there"}])))
    with pytest.raises(ConfigError, match="transport 'theirs': there is no folder there"):
        found.check()
    (tmp_path / "there").mkdir()
    found.check()
    # Its own are made by the run itself.
    Experiment(parse_config(changed("transport", [{**THEIRS, "from": "results"}]))).check()


def test_a_configuration_survives_its_own_dump() -> None:
    looking = {**THEIRS, **GLANCE, "name": "glances", "calibration": {"tasks": ["b"], "draw": 1}}
    config = parse_config(changed("transport", [THEIRS, looking]))
    assert parse_config(config.model_dump(mode="json")) == config
