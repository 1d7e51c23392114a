"""The configuration: what is accepted, and one sentence for what is not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from taskgrid.config import Experiment, merge_overlay, parse_config, read_config
from taskgrid.config.architectures import image_size
from taskgrid.config.named import point_tasks
from taskgrid.errors import ConfigError
from tests.unit.example_config import changed

SECRET = "https://me:s3cret@host/x?token=s3cret"


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("lambda", 1, ["unknown key 'lambda'", "allowed here: models, tasks"]),
        ("grid/lamdas", [1], ["unknown key 'grid.lamdas'", "did you mean 'lambdas'"]),
        ("grid/lambdas", [0, "0.3"], ["grid.lambdas[1]", "'0.3'", "text", "number", "write 0.3"]),
        ("grid/lambdas", "0.3", ["grid.lambdas", "list of numbers"]),
        ("grid/lambdas", [], ["lambdas is empty"]),
        ("grid/lambdas", [0.1, 0.1], ["'0.10' stands twice"]),
        ("grid/lambdas", {"start": 0, "stop": 1}, ["grid.lambdas.step is missing"]),
        ("grid/lambdas", {"start": 1, "stop": 0, "step": 1}, ["stop 0", "below start 1"]),
        ("grid/methods", ["tties"], ["grid.methods[0].name is 'tties'", "did you mean 'ties'?"]),
        ("grid/methods", ["average", "average"], ["'average' stands twice", "label"]),
        ("grid/subsets", "most", ["grid.subsets is 'most'", "'all'"]),
        ("grid/subsets", {}, ["at least one of sizes, up_to"]),
        ("grid/subsets", {"samples": {}}, ["'grid.subsets.samples'", "did you mean 'sample'"]),
        (
            "grid/subsets",
            {"sample": {"total": "3"}},
            ["grid.subsets.sample.total", "text", "whole number"],
        ),
        ("grid/subsets", {"sample": {"seed": 1}}, ["`per_size` or `total`"]),
        ("grid/subsets", {"include": [["a", "z"]]}, ["'z'", "not in tasks: a, b, c"]),
        ("grid/block_size", 48, ["grid.block_size is 48", "power of two"]),
        ("tasks", ["no-such-task"], ["no built-in task 'no-such-task'", "source"]),
        ("tasks", [{"name": "x", "source": "zip"}], ["tasks[0].source is 'zip'", "folder, npz"]),
        ("tasks", [{"name": "x", "source": "npz"}], ["task 'x'", "needs `path`"]),
        ("tasks", [{"name": "X", "source": "npz"}], ["tasks[0].name is 'X'", "lower-case"]),
        ("tasks/0/finetune", {"lrr": 1}, ["unknown key 'lrr'", "task 'a'", "lr"]),
        ("finetune/recipe/lr", "1e-5", ["finetune.recipe.lr", "write 1.0e-5"]),
        ("finetune/recipe/lr", -1, ["finetune.recipe.lr is -1", "greater than 0"]),
        ("finetune/recipe/epochs", 3, ["`steps` or `epochs`, not both"]),
        ("finetune/recipe/steps", None, ["task 'a' needs `steps` or `epochs`"]),
        ("finetune/modes", ["lineer"], ["finetune.modes[0].name is 'lineer'", "standard"]),
        ("evaluation", {"curves_on": ["test"]}, ["keep `val`"]),
        ("evaluation", {"batch_size": 0}, ["evaluation.batch_size is 0", "1 or more, or auto"]),
        ("evaluation", {"batch_size": "large"}, ["evaluation.batch_size is 'large'", "or auto"]),
        ("evaluation", {"batch_size": True}, ["evaluation.batch_size is True", "or auto"]),
        ("evaluation", {"compile": "yes"}, ["evaluation.compile", "true or false"]),
        ("device", "gpu", ["device is 'gpu'", "'cuda'"]),
        ("tasks/0/path", SECRET, ["tasks[0].path is 'https://***@host/x?token=***'", "copy here"]),
        ("tasks/0/classes", SECRET, ["tasks[0].classes", "copy here"]),
        ("tasks/0/templates", SECRET, ["tasks[0].templates", "copy here"]),
        ("models/0/pretrained", SECRET, ["models[0].pretrained", "copy here"]),
        ("data", {"folder": SECRET}, ["data.folder", "copy here"]),
        (
            "experts",
            [{"name": "x", "format": "open_clip", "source": SECRET}],
            ["experts[0].source", "copy here"],
        ),
        ("tracking", {"uri": {"password": "s3cret"}}, ["tracking.uri", "must be text"]),
        ("tracking", {"url": SECRET}, ["unknown key 'tracking.url'", "did you mean 'uri'"]),
        ("tracking", {"experiment": "../../x"}, ["tracking.experiment is '../../x'", "no name"]),
        ("tracking", {"experiment": "a/.."}, ["tracking.experiment", "no name"]),
        ("tracking", {"experiment": "a\0b"}, ["tracking.experiment", "control character"]),
        ("tracking", {"experiment": " "}, ["tracking.experiment", "no name"]),
        ("tracking", {"experiment": 67 * "日"}, ["tracking.experiment", "at most 200 bytes"]),
        ("tasks/0/name", "../a", ["tasks[0].name is '../a'", "lower-case"]),
        ("tasks/0/name", "a/b", ["tasks[0].name is 'a/b'", "lower-case"]),
        ("models/0/name", "/m", ["models[0].name is '/m'", "lower-case"]),
        (
            "studies",
            [{"name": "addition", "label": "grid.parquet"}],
            ["studies[0].label is 'grid.parquet'", "taken for a file"],
        ),
        (
            "grid/methods",
            [{"name": "ties", "modes": ["linaer"]}],
            ["merge method 'ties' merges modes 'linaer', which there are not"],
        ),
        (
            "grid/methods",
            [{"name": "ties", "subsets": {"include": [["a", "q"]]}}],
            ["subsets of merge method 'ties': include names task 'q', which is not in tasks"],
        ),
        (
            "grid/methods",
            [{"name": "ties", "label": "../x"}],
            ["grid.methods[0].label is '../x'", "lower-case"],
        ),
        ("lattice", {"budget": 26, "lambdas": [0.3], "audit": 18}, ["audit of 18", "level 0.95"]),
        (
            "lattice",
            {"budget": 26, "lambdas": [0.3], "subsets": {"include": [["a", "z"]]}},
            ["lattice.subsets.include", "'z'", "not in tasks: a, b, c"],
        ),
        ("figures", ["pie"], ["figures: unknown figure 'pie'", "there are: lambda_curve"]),
        ("models", [], ["models is []", "at least 1"]),
        ("foo-bar", 1, ["unknown key 'foo-bar'"]),
        ("models/0/foo-bar", 1, ["unknown key 'models[0].foo-bar'", "name, architecture"]),
        ("grid/subsets", {"sample": {"str": 1}}, ["unknown key 'grid.subsets.sample.str'"]),
        ("evaluation", {1: 2}, ["evaluation has the key 1", "put it in quotes"]),
        ("grid/lambdas", [float("nan")], ["grid.lambdas[0] is nan", "finite"]),
        ("grid/lambdas", {"start": 0, "stop": 1, "step": 1.0e-9}, ["step 1e-09", "more than 4096"]),
        ("grid/lambdas", {"start": 0, "stop": 1, "step": 0.3}, ["miss stop 1.0", "stop: 0.9"]),
        ("grid/lambdas", [step / 1e4 for step in range(5000)], ["lambdas has 5000 numbers"]),
        ("grid/lambdas", [1.0e-30], ["grid.lambdas", "1e-30 needs more than 6 decimals"]),
        ("grid/lambdas", [0.3000000000001], ["0.3000000000001 needs more than 6 decimals"]),
        ("grid/lambdas", [1.0e7], ["lambda 1e+07 is larger than 1000000"]),
        (
            "grid/methods",
            [{"name": "ties", "lambdas": [1.0e-9]}],
            ["grid.methods[0].lambdas", "1e-09"],
        ),
        ("grid/points", [{"a": 1.0e-30}], ["grid.points[0]", "1e-30 needs more than 6 decimals"]),
        ("grid/block_size", 2**40, ["grid.block_size is 1099511627776"]),
        ("split", {"seed": 10**30}, ["split.seed is 1000000", "beyond 1e+15"]),
        (
            "split",
            {"seed": 2**32},
            ["split.seed is 4294967296", "less than or equal to 4294967295"],
        ),
        ("finetune/recipe/weight_decay", float("inf"), ["finetune.recipe.weight_decay is inf"]),
        ("finetune/recipe/steps", 10**12, ["finetune.recipe.steps is 1000000000000", "10000000"]),
        ("tasks/0/finetune", {"lr": -1}, ["finetune of task 'a': lr is -1"]),
        ("tasks/0/path", "", ["tasks[0].path is ''"]),
        ("models/0/pretrained", "a\0b", ["models[0].pretrained is 'a\\x00b'", "control character"]),
        ("data", {"prompts": "fusion_bnch"}, ["data.prompts is 'fusion_bnch'", "'fusion_bench'"]),
        ("tasks", ["x" * 5000], ["tasks[0].name is 'xxx"]),
        (
            "grid/methods",
            [{"name": "average", "options": {"weights": {"a": 1, "z": 2}}}],
            ["option 'weights' of merge method 'average' names task 'z'", "a, b, c"],
        ),
        ("models/0/pretrained", 3, ["models[0].pretrained is 3", "text"]),
    ],
)
def test_a_mistake_is_answered_by_a_sentence(path: str, value: Any, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(changed(path, value))
    for word in words:
        assert word in str(caught.value)
    assert all(line.startswith("config: ") for line in str(caught.value).splitlines())
    assert "s3cret" not in str(caught.value)


def test_mistakes_are_told_as_far_as_a_person_reads() -> None:
    raw = changed("split", {f"key-{number}": number for number in range(20)})
    with pytest.raises(ConfigError, match=r"(?s)'split.key-0'.*\nand \d+ more$") as caught:
        parse_config(raw)
    assert len(str(caught.value)) < 300


def test_duplicates_are_kept_or_dropped_and_not_both() -> None:
    dropped = {"name": "a", "source": "npz", "path": "a.npz", "duplicates": "drop_from_train"}
    parse_config(changed("tasks", [dropped]))
    with pytest.raises(
        ConfigError, match="`allow_overlap: true`, which keeps duplicates, and `dup"
    ):
        parse_config(changed("tasks", [{**dropped, "allow_overlap": True}]))


@pytest.mark.parametrize(
    ("expert", "words"),
    [
        ({"check": {"expected": {"A": 0.5}}}, "experts.0..check.expected.A"),
        ({"check": {"expected": {"z": 0.5}}}, "check.expected names task 'z', which there is not"),
        ({"names": {"ab": "x"}}, r"experts\[0\].names names task 'ab', .* did you mean 'b'"),
        ({"revisions": {"z": "x"}}, "revisions names task 'z'"),
        ({"source": "owner/all"}, "one checkpoint, 'owner/all', for tasks 'a' and 'b'"),
        ({"names": {"a": "x", "c": "x"}}, "one checkpoint, 'owner/x', for tasks 'a' and 'c'"),
    ],
)
def test_ready_made_experts_belong_to_tasks_that_there_are(
    expert: dict[str, Any], words: str
) -> None:
    good = {"name": "hub", "format": "open_clip", "source": "owner/{task}"}
    # What is said of published tasks may be said where they are not.
    parse_config(changed("experts", [{**good, "names": {"a": "x", "mnist": "y"}}]))
    parse_config(changed("experts", [{**good, "source": "owner/all", "file": "{task}.pt"}]))
    with pytest.raises(ConfigError, match=words):
        parse_config(changed("experts", [{**good, **expert}]))


@pytest.mark.usefixtures("data")
@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("models/0/architecture", "x" * 5000, "architecture"),
        (
            "models/0/pretrained",
            "x/" * 3000,
            "model 'tiny': pretrained is 'x/x.*File name too long",
        ),
        ("models/0/pretrained", "~nobody-of-that-name/x", "model 'tiny': pretrained is '~nobody"),
        ("tasks/0/path", "x" * 5000, "task 'a': path is 'xxx.*File name too long"),
        (
            "grid/methods",
            [{"name": "average", "options": {"weights": {"a": 1, "b": 2}}}],
            "option 'weights' of method 'average' lacks task 'c'",
        ),
        (
            "grid/methods",
            [{"name": "average", "options": {"weights": {"a": 1, "b": -1, "c": 1}}}],
            r"option 'weights' of method 'average' adds up to zero over a\+b",
        ),
        (
            "grid/methods",
            [
                "task_arithmetic",
                {
                    "name": "task_arithmetic",
                    "label": "shares",
                    "options": {"normalize": True, "weights": {"a": 2, "b": 3, "c": -5}},
                },
            ],
            r"option 'weights' of method 'shares' adds up to zero over a\+b\+c",
        ),
        (
            "grid/methods",
            ["average", "slerp"],
            r"method 'slerp' merges 2 tasks, but a is on the grid; give it `subsets: \{sizes: \[2\]\}`",
        ),
        (
            "grid/methods",
            [{"name": "consensus", "options": {"agree": 4}}],
            "option 'agree' of method 'consensus' is 4, but no subset on the grid has more than 3 tasks",
        ),
        (
            "grid/methods",
            ["average", "knots"],
            "method 'knots' merges LoRA experts only, but mode 'standard' trains others; name",
        ),
        ("tasks/0/classes", "no.txt", "task 'a': no.txt does not exist; correct `classes`"),
        (
            "experts",
            [{"name": "mine", "format": "open_clip", "source": "~/no/{task}.pt"}],
            "experts 'mine': ~/no/a.pt, the expert of task 'a', does not exist; correct `source`",
        ),
        (
            "finetune/recipe/warmup_steps",
            10,
            "recipe of task 'a' in mode 'standard'.*only 10 steps",
        ),
    ],
)
def test_what_stands_outside_is_looked_at_before_any_job(path: str, value: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        Experiment(parse_config(changed(path, value))).check()
    assert len(str(caught.value)) < 300


@pytest.mark.usefixtures("data")
def test_weights_that_add_up_to_zero_are_fine_where_nothing_is_divided() -> None:
    weights = {"weights": {"a": 1, "b": -1, "c": 1}}
    methods = [{"name": "task_arithmetic", "options": weights}]
    Experiment(parse_config(changed("grid/methods", methods))).check()


def test_a_ready_made_expert_may_be_one_that_the_run_makes() -> None:
    preset = Path(__file__).parents[3] / "presets" / "vit-b-32-random.yaml"
    config = read_config(preset)
    assert config.experts[0].source.startswith("results/")
    Experiment(config).check()


def test_tasks_without_end_are_refused() -> None:
    many = [{"name": f"t{i}", "source": "npz", "path": "x"} for i in range(2000)]
    with pytest.raises(ConfigError, match=r"tasks is .* at most 256 items"):
        parse_config(changed("tasks", many))


def test_lambdas_are_text_in_order_whatever_way_they_are_given() -> None:
    spelled = parse_config(changed("grid/lambdas", {"start": 0, "stop": 1, "step": 0.1}))
    listed = parse_config(changed("grid/lambdas", [i / 10 for i in reversed(range(11))]))
    expected = tuple(f"{i / 10:.2f}" for i in range(11))
    assert Experiment(spelled).lambdas("task_arithmetic") == expected
    assert Experiment(listed).lambdas("task_arithmetic") == expected


def test_a_method_may_have_lambdas_options_and_a_label_of_its_own() -> None:
    methods = ["average", {"name": "average", "label": "mean-at-one", "lambdas": [1]}]
    experiment = Experiment(parse_config(changed("grid/methods", methods)))
    assert experiment.methods == ("average", "mean-at-one")
    assert experiment.lambdas("mean-at-one") == ("1.00",)


def test_a_task_may_change_its_recipe() -> None:
    experiment = Experiment(parse_config(changed("tasks/1/finetune", {"epochs": 2, "lr": 0.5})))
    assert experiment.recipe("a", "standard")["steps"] == 10
    assert experiment.recipe("b", "standard")["steps"] is None
    assert (
        experiment.recipe("b", "standard")["epochs"],
        experiment.recipe("b", "standard")["lr"],
    ) == (2, 0.5)


@pytest.mark.parametrize(
    ("subsets", "names"),
    [
        ("all", ["a", "b", "a+b", "c", "a+c", "b+c", "a+b+c"]),
        ({"sizes": [2]}, ["a+b", "a+c", "b+c"]),
        ({"include": [["c", "a"], ["b"], ["a", "c"]]}, ["b", "a+c"]),
        ({"sample": {"per_size": 9}}, ["a", "b", "a+b", "c", "a+c", "b+c", "a+b+c"]),
    ],
)
def test_subsets_by_design(subsets: Any, names: list[str]) -> None:
    experiment = Experiment(parse_config(changed("grid/subsets", subsets)))
    (method, *_) = experiment.methods
    (block,) = experiment.blocks(method)
    assert list(experiment.subsets(method, block)) == names


def test_all_subsets_of_too_many_tasks_are_refused() -> None:
    many = [{"name": f"t{i}", "source": "npz", "path": "x"} for i in range(20)]
    with pytest.raises(ConfigError, match="1048575 subsets"):
        _ = Experiment(parse_config(changed("tasks", many))).numbers


def test_nodes_closer_than_a_lambda_can_tell_are_refused() -> None:
    config = changed("grid/lambdas", [step / 1e6 for step in range(40)])
    config["evaluation"] = {"curves": {"interpolate": False, "nodes": 9}}
    parse_config(config)
    config["evaluation"]["curves"]["interpolate"] = True
    with pytest.raises(ConfigError, match=r"evaluation.curves: 17 nodes .* closer than 6 decimals"):
        parse_config(config)


@pytest.mark.parametrize("key", ["grid", "lattice"])
@pytest.mark.parametrize(
    ("subsets", "word"),
    [
        ({"sizes": [9]}, "chooses none of the subsets of 3 tasks"),
        ({"sizes": []}, "chooses none"),
        ({"include": []}, "chooses none"),
        ({"include": [[]]}, "include holds an empty subset"),
        ({"sample": {"total": 2}}, "sample.total is 2"),
    ],
)
def test_a_design_that_means_nothing_is_refused(key: str, subsets: Any, word: str) -> None:
    config = changed("lattice", {"budget": 99, "lambdas": [0.3]})
    config[key]["subsets"] = subsets
    with pytest.raises(ConfigError, match=f"^{key}.subsets.*{word}"):
        Experiment(parse_config(config)).check()


def test_a_task_that_a_lattice_lists_must_be_there() -> None:
    config = changed("lattice", {"budget": 99, "lambdas": [0.3]})
    config["lattice"]["subsets"] = {"include": [["a", "z"]]}
    with pytest.raises(ConfigError, match=r"lattice.subsets.include names task 'z'"):
        Experiment(parse_config(config)).check()


def test_overlays_merge_mappings_and_replace_the_rest() -> None:
    below = {"a": {"x": 1, "y": [1, 2]}, "b": 3}
    assert merge_overlay(below, {"a": {"y": [9]}}) == {"a": {"x": 1, "y": [9]}, "b": 3}
    assert below == {"a": {"x": 1, "y": [1, 2]}, "b": 3}


@pytest.mark.parametrize(("text", "word"), [("a: [", "not YAML"), ("- a", "mapping")])
def test_a_bad_file_is_named(tmp_path: Any, text: str, word: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=word) as caught:
        read_config(path)
    assert "c.yaml" in str(caught.value)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_config(tmp_path / "none.yaml")


def test_a_name_of_an_architecture_leads_to_no_other_folder(tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text('{"vision_cfg": {"image_size": 24}}')
    with pytest.raises(ConfigError, match="unknown architecture"):
        image_size(str(tmp_path / "mine"))


def test_an_unknown_architecture_gets_close_names() -> None:
    experiment = Experiment(parse_config(changed("models/0/architecture", "VIT-B-32-quickgelu")))
    with pytest.raises(ConfigError, match="ViT-B-32-quickgelu"):
        experiment.pixels("tiny")
    experiment = Experiment(parse_config(changed("models/0/architecture", "ViT-B-32-quickgelu")))
    assert experiment.pixels("tiny") == "224px"


def test_a_file_lies_over_those_it_extends(tmp_path: Path) -> None:
    files = {
        "config.yaml": changed("split", {"seed": 1}),
        "low.yaml": {"split": {"seed": 2, "limit": 7}, "device": "cpu"},
        "middle.yaml": {"extends": ["low.yaml"], "split": {"seed": 3}},
        "sub/top.yaml": {"extends": ["../middle.yaml"], "device": "cuda"},
    }
    for name, value in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(yaml.safe_dump(value))
    config = read_config(
        tmp_path / "config.yaml", tmp_path / "sub" / "top.yaml", values={"split": {"limit": 9}}
    )
    assert (config.split.seed, config.split.limit, config.device) == (3, 9, "cuda")


def test_a_file_that_extends_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("extends: [b.yaml]")
    (tmp_path / "b.yaml").write_text("extends: [a.yaml]")
    with pytest.raises(ConfigError, match="extends itself"):
        read_config(tmp_path / "a.yaml")


def test_runs_are_modes_with_seeds_and_ready_made_experts() -> None:
    raw = changed("finetune/seeds", [0, 1])
    raw["models"] = [*raw["models"], {**raw["models"][0], "name": "other"}]
    raw["experts"] = [
        {"name": "hub", "format": "open_clip", "source": "owner/{task}", "names": {"a": "A-1"}},
        {"name": "mine", "format": "open_clip", "source": "x/{task}", "model": "other"},
    ]
    experiment = Experiment(parse_config(raw))
    first, second = raw["models"][0]["name"], "other"
    assert [(run.model, run.mode, run.seed) for run in experiment.runs] == [
        (first, "standard", 0),
        (first, "standard", 1),
        (first, "hub", 0),
        (second, "standard", 0),
        (second, "standard", 1),
        (second, "hub", 0),
        (second, "mine", 0),
    ]
    assert experiment.imported("hub").place("a") == "owner/A-1"
    assert experiment.imported("hub").place("b") == "owner/b"


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders where tasks say they are."""
    for number in range(20):
        for name in (chr(ord("a") + number), f"t{number}"):
            (tmp_path / "data" / name).mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(tmp_path)


def lattice_of(tasks: int, **lattice: Any) -> Experiment:
    names = [f"t{number}" for number in range(tasks)]
    raw = changed(
        "tasks", [{"name": name, "source": "folder", "path": f"data/{name}"} for name in names]
    )
    raw["grid"]["subsets"] = {"sizes": [1]}
    raw["lattice"] = {"lambdas": [0.3], **lattice}
    return Experiment(parse_config(raw))


@pytest.mark.usefixtures("data")
@pytest.mark.parametrize(
    ("tasks", "subsets", "needed"),
    [
        # 1 + 8 + 28 and the audit of 20; of five tasks there are no more than 32 merges.
        (8, "all", 57),
        (5, "all", 32),
        # The core is that of t0 to t3; one merge of three and more tasks.
        (8, {"include": [["t0", "t1", "t2"], ["t3"]]}, 12),
        (8, {"sizes": [2]}, 37),
    ],
)
def test_a_budget_covers_the_core_of_its_own_tasks_and_the_audit(
    tasks: int, subsets: Any, needed: int
) -> None:
    lattice_of(tasks, budget=needed, subsets=subsets).check()
    with pytest.raises(ConfigError, match=rf"lattice\.budget is {needed - 1}, .* need {needed}:"):
        lattice_of(tasks, budget=needed - 1, subsets=subsets).check()


@pytest.mark.usefixtures("data")
def test_a_budget_for_tasks_outside_has_the_core_of_all() -> None:
    experiment = lattice_of(8, budget=38, subsets={"include": [["t0", "t1", "t2"]]})
    measured = experiment.config.evaluation.model_copy(update={"outside": True})
    outside = Experiment(experiment.config.model_copy(update={"evaluation": measured}))
    outside.check()
    assert outside.config.lattice is not None
    short = replace(outside.config.lattice, budget=37)
    with pytest.raises(ConfigError, match="need 38"):
        Experiment(outside.config.model_copy(update={"lattice": short})).check()


@pytest.mark.usefixtures("data")
@pytest.mark.parametrize(
    ("tasks", "subsets", "words"),
    [
        (3, {"include": [[]]}, "lattice.subsets.include holds an empty subset"),
        (20, "all", "lattice.subsets means 1048575 subsets of 20 tasks"),
    ],
)
def test_a_lattices_design_is_refused_before_any_job(tasks: int, subsets: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        lattice_of(tasks, budget=1000, subsets=subsets).check()


@pytest.mark.usefixtures("data")
def test_a_lattice_of_tangent_models_alone_is_refused() -> None:
    raw = changed("lattice", {"budget": 8, "lambdas": [0.3]})
    raw["finetune"]["modes"] = ["standard", "linear"]
    Experiment(parse_config(raw)).check()
    raw["finetune"]["modes"] = ["linear"]
    with pytest.raises(ConfigError, match=r"lattice .* all experts are tangent models"):
        Experiment(parse_config(raw)).check()


def test_recipes_by_task_lie_between_the_common_one_and_the_tasks_own() -> None:
    raw = changed("finetune/recipes", {"a": {"lr": 0.5}, "b": {"lr": 0.5, "epochs": 2}})
    raw["tasks"][1]["finetune"] = {"lr": 0.25}
    experiment = Experiment(parse_config(raw))
    assert experiment.recipe("a", "standard")["lr"] == 0.5
    assert (
        experiment.recipe("b", "standard")["lr"],
        experiment.recipe("b", "standard")["epochs"],
    ) == (0.25, 2)
    assert experiment.recipe("b", "standard")["steps"] is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": "nope"}, r"there is no model 'nope'; there are: \w+, other$"),
        ({"mode": "typo"}, "there is no mode 'typo'; there are: mine, standard$"),
        ({"seed": "7"}, "there is no seed '7'; there are: 0, 1$"),
        ({"seed": "00"}, "there is no seed '00'"),
        ({"method": "ties"}, "there is no method 'ties'; there are: average, task_arithmetic$"),
        ({"subset": "a+typo"}, "there is no task 'typo'; there are: a, b, c$"),
        ({"subset": "a+a"}, "'a' occurs twice"),
        ({"subset": ""}, "a grid point has at least one task"),
        ({"mode": "mine"}, r"there are no experts \w+/mine/0; there are: .*other/mine/0"),
        ({"subset": "b+a"}, r"this grid point is called a\+b/0\.30; ask for that instead"),
        ({"point": "0.3"}, "the point '0.3' is called '0.30'; ask for that instead"),
        ({"point": "a:0.30,c:0.20"}, r"names a, c; name each task of a\+b$"),
        ({"point": "half"}, "'half' is not a number"),
        ({"point": "nan"}, "not a finite number"),
    ],
)
def test_a_point_that_a_person_names_is_found_or_explained(
    change: dict[str, str], words: str
) -> None:
    raw = changed("finetune/seeds", [0, 1])
    raw["grid"]["methods"] = ["average", "task_arithmetic"]
    raw["models"] = [{**raw["models"][0], "name": "first"}, {**raw["models"][0], "name": "other"}]
    raw["experts"] = [
        {"name": "mine", "format": "open_clip", "source": "x/{task}", "model": "other"}
    ]
    experiment = Experiment(parse_config(raw))
    point = {"model": "first", "mode": "standard", "seed": "0", "method": "average"}
    point |= {"subset": "a+b", "point": "0.30"}
    assert point_tasks(experiment, **point) == ("a", "b")
    assert point_tasks(experiment, **{**point, "point": "-0.125"}) == ("a", "b")
    with pytest.raises(ConfigError, match=words):
        point_tasks(experiment, **{**point, **change})
