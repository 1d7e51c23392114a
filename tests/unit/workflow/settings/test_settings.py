"""Settings of rules: JSON that names what an output depends on, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path
from typing import Any

import pytest

from taskgrid.config import Experiment
from taskgrid.config.sections.transport import TransportSpec
from taskgrid.data.sources.seam import TaskData
from taskgrid.errors import ConfigError
from taskgrid.plugins import cards
from taskgrid.plugins.cards import AlignerCard, ModeCard
from taskgrid.store.atomic import write_json
from taskgrid.workflow import paths
from taskgrid.workflow import stages as settings
from tests.unit.workflow.example_experiment import BLOCK, RUN, experiment

LATTICE = {"budget": 30, "lambdas": [0.3], "audit": 19}
POINT = {**RUN, "method": "average", "subset": "mnist+textures", "scale": "0.30"}
HUB: dict[str, Any] = {
    "experts": [
        {
            "name": "theirs",
            "format": "transformers",
            "source": "hf-hub:someone/clip-{task}@abc",
            "check": {"expected": {"mnist": 0.99}},
        }
    ]
}
LEARNED = {**RUN, "method": "adamerging", "subset": "mnist+textures"}
THEIRS = {"model": "m", "mode": "theirs", "seed": "0", "task": "mnist"}

Ask = Callable[[Experiment], str]

EVERY: dict[str, Ask] = {
    "download": lambda e: settings.data.download(e, task="mnist"),
    "dataset": lambda e: settings.data.dataset(e, pixels="24px", task="mnist"),
    "split": lambda e: settings.data.split(e, "mnist"),
    "base": lambda e: settings.model.base(e, "m"),
    "finetune": lambda e: settings.finetune.expert(e, **RUN, task="mnist"),
    "record": lambda e: settings.experts.record(e, **RUN, task="mnist"),
    "merge": lambda e: settings.merge.plan(e, **BLOCK),
    "reference": lambda e: settings.evaluate.reference(e, **RUN),
    "eval": settings.evaluate.block,
    "precision": lambda e: settings.precision.proof(e, **RUN),
    "export": lambda e: settings.export.point(e, **POINT),
    "grid": settings.tables.grid,
    "figure": settings.figures.sheet,
    "registry": settings.registry.sync,
    "records": lambda e: settings.registry.block(e, RUN["mode"], BLOCK["method"]),
    "report": settings.report.page,
}

NOTHING: set[str] = set()
CHANGES: list[tuple[dict[str, Any], set[str]]] = [
    ({"device": "auto"}, NOTHING),
    ({"finetune": {"checkpoint_seconds": 7}}, {"registry"}),
    ({"finetune": {"recipe": {"lr": 1e-3}}}, {"finetune", "record", "registry"}),
    ({"split": {"seed": 1}}, {"split", "registry"}),
    ({"grid": {"lambdas": [0, 0.5, 1]}}, {"merge", "precision", "registry"}),
    ({"evaluation": {"batch_size": 3}}, {"reference", "eval", "precision", "registry"}),
    ({"evaluation": {"outside": True}}, {"merge", "registry"}),
    ({"figure_width": "column"}, {"figure", "registry"}),
    ({"tracking": {"uri": "http://user:secret@host"}}, {"registry", "report"}),
    ({"tracking": {"points": True}}, {"registry", "records"}),
    ({"export": {"max_mb": 9}}, {"export", "registry"}),
    ({"data": {"limit": 5}}, {"download", "dataset", "registry"}),
]


@pytest.mark.parametrize("name", EVERY)
def test_settings_are_json_objects_of_one_spelling(name: str) -> None:
    text = EVERY[name](experiment())
    assert text == json.dumps(
        json.loads(text), sort_keys=True, separators=(",", ":"), ensure_ascii=False
    )
    assert isinstance(json.loads(text), dict)


@pytest.mark.parametrize(("change", "expected"), CHANGES, ids=[str(one) for one, _ in CHANGES])
def test_a_change_re_runs_what_depends_on_it(change: dict[str, Any], expected: set[str]) -> None:
    before, after = experiment(), experiment(**change)
    assert {name for name, ask in EVERY.items() if ask(before) != ask(after)} == expected


def test_no_secret_of_the_registry_is_in_the_recorded_configuration() -> None:
    asked = experiment(tracking={"uri": "http://u:secret@h?token=secret"})
    for ask in (settings.registry.sync, settings.doctor.needs, settings.report.page):
        written = ask(asked)
        assert "secret" not in written and "//h?token=***" in written
    assert list(settings.registry.secrets(asked).values()) == ["http://u:secret@h?token=secret"]
    known = json.loads(settings.registry.sync(asked))
    assert "secret" not in json.dumps(known["config"])


def test_options_carry_the_defaults_of_the_card() -> None:
    known = json.loads(settings.merge.plan(experiment(), **BLOCK))
    assert known["options"] == dict(settings.merge.options(experiment(), "task_arithmetic"))


def test_a_block_is_planned_with_its_own_subsets_and_tasks() -> None:
    known = json.loads(settings.merge.plan(experiment(), **BLOCK))
    assert known["subsets"] == ["textures", "mnist", "mnist+textures"]
    assert "curves" not in known
    tasks = settings.merge.files(experiment(), **BLOCK).tasks
    assert set(tasks) == {"textures", "mnist"}
    everywhere = experiment(evaluation={"outside": True})
    assert set(settings.merge.files(everywhere, **BLOCK).tasks) == set(everywhere.tasks)
    curves = experiment(evaluation={"curves": {"interpolate": True, "nodes": 5}})
    assert json.loads(settings.merge.plan(curves, **BLOCK))["curves"]["nodes"] == 5


def test_files_of_a_block_are_listed_once_for_what_is_followed_and_what_is_settled() -> None:
    given = experiment()
    for ask in (settings.merge.files, settings.evaluate.files):
        assert ask(given, **BLOCK) is ask(given, **BLOCK)
        assert ask(experiment(), **BLOCK) is not ask(given, **BLOCK)


def test_plans_read_manifests_and_evaluations_read_weights() -> None:
    plan, block = (
        ask(experiment(), **BLOCK) for ask in (settings.merge.files, settings.evaluate.files)
    )
    assert plan.settled == []
    assert {path.rsplit(".", 1)[1] for path in block.settled} == {"safetensors", "arrow"}
    reference = settings.evaluate.reference_files(experiment(), **RUN)
    assert all("vector" not in kinds for kinds in reference.tasks.values())


def test_a_proof_is_asked_for_below_fp32() -> None:
    assert settings.evaluate.proof(experiment()) == []
    reduced = experiment(evaluation={"precision": "bf16"})
    (pattern,) = settings.evaluate.proof(reduced)
    assert pattern.format(**RUN) == "results/eval/m/standard/0/precision.json"
    text = settings.precision.listing(reduced, ["moved.json"])
    assert json.loads(text) == [{"labels": {**RUN, "seed": 0}, "proof": "moved.json"}]


def test_lattices_are_planned_over_all_tasks_in_their_order() -> None:
    given = experiment(lattice=LATTICE)
    known = json.loads(settings.lattice.plan(given, **RUN, method="average"))
    assert known["tasks"] == ["textures", "mnist", "handwritten"]
    assert json.loads(settings.lattice.predict(given))["budget"]["budget"] == 30
    parts = json.loads(settings.lattice.listing(given, ["a", "b"], ["c", "d"]))
    assert [part["report"] for part in parts] == ["c", "d"]
    with pytest.raises(ConfigError, match="no lattice on a budget"):
        settings.lattice.predict(experiment())


def test_published_data_are_downloaded_and_fingerprinted_with_what_the_project_says() -> None:
    given = experiment(tasks=["dtd", "textures"])
    assert settings.data.downloaded(given, "dtd") == ["results/downloads/dtd.json"]
    assert settings.data.downloaded(given, "textures") == []
    assert set(settings.data.fingerprints(given, "dtd")) >= {"tasks/dtd.yaml"}
    known = json.loads(settings.data.dataset(given, pixels="32px", task="dtd"))
    assert known["task"]["options"]["download"] == "results/downloads/dtd.json"
    assert (known["image_size"], known["keep"]) == (32, "all")
    assert settings.data.modules(given, "textures")[1].endswith("builtin.textures")


@pytest.mark.parametrize("ask", ["download", "dataset"])
def test_images_depend_on_the_data_of_a_task_alone(ask: str) -> None:
    known = json.loads(EVERY[ask](experiment()))["task"]
    assert TaskData(**known).path == "data/mnist.npz"


def test_what_becomes_of_duplicates_is_said_of_tasks_that_ask() -> None:
    plain = {"name": "mine", "source": "npz", "path": "data/mnist.npz"}
    for extra, own, dataset, split in (
        ({}, {}, False, {"allow_overlap": False}),
        ({"allow_overlap": True}, {}, True, {"allow_overlap": True}),
        ({"duplicates": "drop_from_train"}, {"drop_duplicates": True}, True, {}),
    ):
        given = experiment(tasks=["textures", {**plain, **extra}])
        known = json.loads(settings.data.dataset(given, pixels="24px", task="mine"))["task"]
        assert known["allow_overlap"] is dataset and "duplicates" not in known
        asked = json.loads(settings.data.split(given, "mine"))
        assert {"allow_overlap": False, **split, **own}.items() <= asked.items()
        assert ("drop_duplicates" in asked) is bool(own)
    # The papers take official splits as they are, unless they are asked not to.
    for extra, allowed in (({}, True), ({"duplicates": "drop_from_train"}, False)):
        given = experiment(tasks=["textures", {"name": "dtd", **extra}])
        assert json.loads(settings.data.split(given, "dtd"))["allow_overlap"] is allowed


def test_ready_made_experts_are_imported_and_checked(tmp_path: Path) -> None:
    given = experiment(tasks=["mnist"], **HUB)
    assert settings.experts.files(given, "theirs", "mnist") == []
    known = json.loads(settings.experts.record(given, **THEIRS))
    assert (known["source"], known["format"]) == ("hf-hub:someone/clip-mnist@abc", "transformers")
    assert settings.experts.verified(given, **THEIRS) == [
        "results/experts/m/theirs/0/mnist/verified.json"
    ]
    assert settings.experts.verified(given, **RUN, task="mnist") == []
    checked = json.loads(settings.experts.verification(given, "theirs", "mnist"))
    assert (checked["expected"], checked["precision"]) == (0.99, "fp32")


def test_experts_that_another_run_lacks_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    spec = {"name": "theirs", "model": "vit", "mode": "linear", "seed": 3, "aligner": "none"}
    there = experiment(tasks=["mnist"], transport=[{**spec, "from": "there"}])
    files = [*astuple(settings.transport.files(there, "theirs", "mnist"))]
    heads = [f"there/heads/vit/mnist.{suffix}" for suffix in ("safetensors", "json")]
    for file in files:
        with pytest.raises(ConfigError, match=rf"'theirs': {file}, for .* task 'mnist', does not"):
            settings.transport.check(there)
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Path(file).touch()
    settings.transport.check(there)
    mapped = {"carry": "model", "output": "heads"}
    with pytest.raises(ConfigError, match=heads[0]):
        settings.transport.check(
            experiment(tasks=["mnist"], transport=[{**spec, **mapped, "from": "there"}])
        )
    # A run makes its own, but of no model or mode that it does not have.
    own = {**spec, "from": "results"}
    settings.transport.check(experiment(transport=[{**own, "model": "m", "mode": "standard"}]))
    for lacking in ({"model": "m"}, {"mode": "standard"}):
        with pytest.raises(ConfigError, match="results/models/"):
            settings.transport.check(experiment(transport=[{**own, **lacking}]))


def test_experts_of_another_base_come_from_the_other_results_and_need_no_check() -> None:
    spec = {
        **{"name": "theirs", "from": "../other/results", "model": "vit", "mode": "linear"},
        **{"seed": 3, "aligner": "none"},
    }
    given, label = experiment(transport=[spec]), {**THEIRS, "seed": "3"}
    found = settings.transport.files(given, "theirs", "mnist")
    assert found.base == "../other/results/models/vit/base.safetensors"
    assert found.manifest == "../other/results/experts/vit/linear/3/mnist/expert.json"
    known = json.loads(settings.transport.expert(given, **label))
    assert known["source"] == {"model": "vit", "mode": "linear", "seed": 3}
    assert (known["seed"], known["options"]["activation"]) == (3, "same")
    assert settings.experts.record(given, **label) == settings.transport.expert(given, **label)
    assert settings.experts.verified(given, **label) == []
    assert settings.transport.modules(given, "theirs") == ["taskgrid.alignment.aligners.none"]
    assert known["carry"] == "vector" and not settings.transport.looks(given, "theirs")
    aligned = settings.transport.aligned(given, paths.ALIGNMENT, **label)
    assert aligned == "results/alignments/m/theirs/3/bases.safetensors"
    of = {"model": "m", "mode": "theirs", "seed": "3", "of": "bases"}
    files = settings.transport.alignment_files(given, **of)
    assert files.followed == ["results/models/m/base.json", "../other/results/models/vit/base.json"]
    assert not files.tasks
    asked = json.loads(settings.transport.alignment(given, **of))
    assert (asked["task"], asked["calibration"]) == ("", {})
    # By heads the output is mapped whatever else is looked at: of all tasks, or those that are named.
    whole = experiment(transport=[{**spec, "carry": "model", "output": "heads"}])
    files = settings.transport.alignment_files(whole, **of)
    assert [*files.tasks] == ["handwritten", "mnist", "textures"]
    assert files.tasks["mnist"] == {
        "head": "results/heads/m/mnist.safetensors",
        "head_manifest": "results/heads/m/mnist.json",
        "source_head": "../other/results/heads/vit/mnist.safetensors",
        "source_head_manifest": "../other/results/heads/vit/mnist.json",
    }
    assert "../other/results/heads/vit/mnist.json" in files.followed
    named = {**spec, "carry": "model", "output": "heads", "calibration": {"tasks": ["mnist"]}}
    files = settings.transport.alignment_files(experiment(transport=[named]), **of)
    assert [*files.tasks] == ["mnist"]


ALIGNERS = {
    "both": AlignerCard(title="Both", sees="images"),
    "own": AlignerCard(title="Own", per="task", sees="labels"),
}


@pytest.mark.parametrize(
    ("aligner", "calibration", "seen"),
    [
        ("both", None, ["handwritten", "mnist", "textures"]),
        ("both", {"tasks": ["textures", "mnist"], "images": 3}, ["mnist", "textures"]),
        ("own", None, ["mnist"]),
        ("own", {"tasks": ["textures"], "draw": 2}, ["textures"]),
    ],
)
def test_an_alignment_lists_what_its_aligner_looks_at(
    monkeypatch: pytest.MonkeyPatch, aligner: str, calibration: Any, seen: list[str]
) -> None:
    real = cards.read_card
    monkeypatch.setattr(
        cards, "read_card", lambda kind, name: ALIGNERS.get(name) or real(kind, name)
    )
    monkeypatch.setattr("taskgrid.config.sections.transport.known_name", lambda name, kind: name)
    spec = {"name": "theirs", "from": "there", "model": "vit", "mode": "linear"}
    given = TransportSpec(**spec, aligner=aligner, calibration=calibration)
    asked = experiment()
    monkeypatch.setattr(asked, "_transports", {"theirs": given})
    of = "mnist" if aligner == "own" else "bases"
    label = {"model": "m", "mode": "theirs", "seed": "0"}
    expected = f"results/alignments/m/theirs/0/{of}.json"
    assert (
        settings.transport.aligned(asked, paths.ALIGNMENT_MANIFEST, **label, task="mnist")
        == expected
    )
    files = settings.transport.alignment_files(asked, **label, of=of)
    assert list(files.tasks) == seen
    heads = {kind for kinds in files.tasks.values() for kind in kinds if "head" in kind}
    assert bool(heads) == (aligner == "own") == ("source_expert" in files.run)
    listing = json.loads(files.listing(files.followed, files.settled))
    assert listing["source_base"] == "there/models/vit/base.safetensors"
    known = json.loads(settings.transport.alignment(asked, **label, of=of))
    wanted = {"images": 64, "draw": 0} | (calibration or {})
    wanted.pop("tasks", None)
    assert known["calibration"] == wanted
    assert known["task"] == ("mnist" if aligner == "own" else "")


def test_an_export_of_a_point_that_does_not_exist_says_so() -> None:
    with pytest.raises(ConfigError, match="there is no task 'typo'"):
        settings.export.files(experiment(), **{**POINT, "subset": "textures+typo"})
    files = settings.export.files(experiment(), **POINT)
    assert set(files.tasks) == {"mnist", "textures"}


def test_what_changes_features_is_not_exported_and_its_code_is_that_of_two_methods() -> None:
    over = {"name": "surgery", "options": {"of": "ties"}}
    given = experiment(grid={"methods": ["ties", over]})
    with pytest.raises(ConfigError, match=r"'surgery' changes the features.*no model to export"):
        settings.export.files(given, **{**POINT, "method": "surgery", "scale": "1.00"})
    modules = [f"taskgrid.merging.methods.{name}" for name in ("surgery", "ties")]
    assert settings.merge.modules(given, "surgery") == modules


def test_a_subset_whose_name_is_no_name_of_a_folder_is_not_learned() -> None:
    tasks = [{"name": 60 * letter, "source": "npz", "path": "data/mnist.npz"} for letter in "abcd"]
    learned = {"methods": ["adamerging"], "lambdas": [0, 1]}
    settings.learn.check(experiment(tasks=tasks[:3], grid=learned))
    settings.learn.check(experiment(tasks=tasks))
    with pytest.raises(ConfigError, match=r"'adamerging' learns .* 4 tasks .* 243 letters"):
        settings.learn.check(experiment(tasks=tasks, grid=learned))


def test_coefficients_are_learned_from_all_that_a_plan_compares() -> None:
    given = experiment(grid={"methods": ["average", {"name": "adamerging", "label": "ada"}]})
    assert settings.learn.methods(given) == ["ada"]
    asked = {**LEARNED, "method": "ada"}
    known = json.loads(settings.learn.coefficients(given, **asked))
    assert (known["method"], known["subset"]) == ("adamerging", "mnist+textures")
    assert known["options"]["level"] == "layer" and "lambdas" not in known
    files = settings.learn.files(given, **asked)
    assert set(files.tasks) == {"mnist", "textures"}
    followed = {"dataset", "split", "head_manifest", "vector_manifest"}
    assert set(files.tasks["mnist"]) == followed | {"images", "head", "vector"}
    with pytest.raises(ConfigError, match="is called mnist"):
        settings.learn.files(given, **{**asked, "subset": "textures+mnist"})
    # An export compares them as a plan does.
    point = settings.export.files(given, **asked, scale="1.00")
    assert followed <= set(point.tasks["mnist"]) and list(point.learned) == ["mnist+textures"]


def test_a_method_learns_by_its_options() -> None:
    auto = {"name": "tall_mask", "label": "auto", "options": {"mask_lambda": "auto"}}
    given = experiment(grid={"methods": ["tall_mask", auto]})
    assert settings.learn.methods(given) == ["auto"]
    run = {key: LEARNED[key] for key in ("model", "mode", "seed")}
    for method, count in (("tall_mask", 0), ("auto", 1)):
        found = settings.merge.learned(given, ["mnist+textures"], **run, method=method)
        assert len(found) == count


def test_figures_read_tables_with_labels_where_snakemake_has_them() -> None:
    given = experiment(finetune={"seeds": [0, 1]})
    assert "published" not in settings.figures.names(given)
    assert settings.figures.names(experiment(figures=["heatmap"])) == ("heatmap",)
    assert settings.figures.tables(given, "cosine") == ["results/tables/conflicts.parquet"]
    drawn = settings.figures.of_table(given, "conflicts")
    assert {Path(file).stem for file in drawn} == {"cosine", "conflicts"} and len(drawn) == 4
    files = settings.figures.tables(given, "training")
    listing = settings.figures.listing(given, "training", [f"x/{file}" for file in files])
    assert json.loads(listing)["history"][-1] == {
        "labels": {**RUN, "seed": 1, "task": "handwritten"},
        "path": "x/results/experts/m/standard/1/handwritten/history.parquet",
    }


def test_figures_have_a_width_and_the_configured_order_of_tasks() -> None:
    tasks = ["textures", "handwritten", {"name": "catalogue", "expert": False}]
    order = ["textures", "handwritten", "catalogue"]
    sheet = json.loads(settings.figures.sheet(experiment(tasks=tasks)))
    assert sheet == {"width": "page", "tasks": order}


def test_published_numbers_are_named_with_what_the_literature_calls_the_run() -> None:
    known = json.loads(settings.tables.grid(experiment(published=["tangent"])))
    assert set(known["numbers"]) == {"index.json", "tangent.csv"}
    assert known["modes"] == {"standard": "standard"}
    assert "numbers" not in json.loads(settings.tables.grid(experiment()))


@pytest.mark.parametrize(("status", "kept"), [("level", True), ("delayed", False)])
def test_a_delayed_registry_is_tried_again(status: str, kept: bool, tmp_path: Path) -> None:
    report = tmp_path / "sync.json"
    settings.registry.forget_delayed(report)
    write_json(report, {"status": status})
    settings.registry.forget_delayed(report)
    assert report.exists() == kept
    # One that is damaged says nothing that the next does not say.
    report.write_text('{"status": "level"')
    settings.registry.forget_delayed(report)
    assert not report.exists()


def test_other_tasks_are_inputs_of_modes_that_ask_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = settings.finetune.others(experiment(), **RUN, task="mnist")
    assert plain.followed == plain.settled == []
    modes = {"held": "tests.unit.finetuning.modes.other_images"}
    monkeypatch.setattr("taskgrid.plugins.registry._outside", lambda: {"mode": modes})
    asking = experiment(finetune={"modes": ["held"]})
    files = settings.finetune.others(asking, **{**RUN, "mode": "held"}, task="mnist")
    assert set(files.tasks) == {"textures", "handwritten"}
    assert files.tasks["textures"] == {
        "dataset": "results/data/24px/textures/dataset.json",
        "split": "results/splits/24px/textures.json",
        "images": "results/data/24px/textures/images.arrow",
        "originals": "results/data/24px/textures/train.arrow",
    }


def test_a_workflow_brings_a_mode_no_statistics(monkeypatch: pytest.MonkeyPatch) -> None:
    asking = ModeCard(title="x", others=("images", "fisher"))
    monkeypatch.setattr("taskgrid.workflow.settings.finetune.mode_card", lambda name: asking)
    with pytest.raises(
        ConfigError, match="'standard' reads fisher of the other tasks, and a workflow"
    ):
        settings.finetune.others(experiment(), **RUN, task="mnist")


def test_modes_with_factors_are_told_from_those_without() -> None:
    given = experiment(finetune={"modes": ["standard", {"name": "lora", "label": "low"}]})
    assert settings.finetune.modes(given, factors=True) == ["low"]
    assert settings.finetune.modes(given, factors=False) == ["standard"]
