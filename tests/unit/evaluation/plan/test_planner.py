from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from taskgrid.data.manifest import DatasetManifest, SplitManifest, split_digest
from taskgrid.data.splits import make_split
from taskgrid.errors import ArtifactError, ConfigError, LineageError, TaskgridError
from taskgrid.evaluation.opening.references import TaskManifests, read_method, read_setting
from taskgrid.evaluation.plan.planner import CurveRef, Plan, make_plan
from taskgrid.evaluation.plan.setting import BASE, Setting, TaskRef, Weights
from taskgrid.models.card import ModelCard
from taskgrid.plugins.cards import MergerCard, merger_card
from taskgrid.plugins.storage import Storage
from taskgrid.provenance import digest
from taskgrid.store.atomic import read_json, write_json
from taskgrid.store.images import SPLITS, ImageIndex
from tests.unit.example_grid import world
from tests.unit.example_plans import method, setting

LAMBDAS = ("0.00", "0.50", "1.00")


def plan_of(names: str = "abc", subsets: tuple[str, ...] = ("a", "a+b"), **options: Any) -> Plan:
    return make_plan(setting(names), method(), subsets, LAMBDAS, **options)


def written(plan: Plan, tmp_path: Path) -> bytes:
    plan.write(tmp_path / "plan.json")
    return (tmp_path / "plan.json").read_bytes()


def test_a_plan_comes_back_as_it_was_written(tmp_path: Path) -> None:
    plan = plan_of(outside=True, curves_on=("val", "test"))
    written(plan, tmp_path)
    assert Plan.read(tmp_path / "plan.json") == plan


def test_equal_plans_have_equal_bytes_in_whatever_order_they_were_asked_for(tmp_path: Path) -> None:
    ours = written(make_plan(setting("abc"), method(), ["a+b", "c"], LAMBDAS), tmp_path)
    theirs = make_plan(setting("cba"), method(), ["c", "b+a"], reversed([*LAMBDAS, "0.50"]))
    assert written(theirs, tmp_path) == ours


def test_lambdas_are_ordered_as_numbers() -> None:
    plan = make_plan(setting("a"), method(), ["a"], ["10.00", "2.00", "-1.00", "0.125"])
    assert plan.lambdas == ("-1.00", "0.125", "2.00", "10.00")


def test_an_appended_task_changes_no_plan_it_has_no_part_in(tmp_path: Path) -> None:
    assert written(plan_of("abcd"), tmp_path) == written(plan_of("abc"), tmp_path)
    assert written(plan_of("abcd", outside=True), tmp_path) != written(
        plan_of("abc", outside=True), tmp_path
    )


@pytest.mark.parametrize(
    "change",
    [
        {"base": "other"},
        {"tower": "other"},
        {"kernel": "other"},
        {"precision": "bf16"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_all_rows_share_changes_every_key(change: dict[str, str]) -> None:
    plan = plan_of()
    other = replace(plan, setting=replace(plan.setting, **change))
    for scale in LAMBDAS:
        ours = plan.merged(("a", "b"), scale, "a", "val").key
        assert ours != other.merged(("a", "b"), scale, "a", "val").key


def test_a_key_depends_on_the_merged_tasks_and_on_the_one_measured_and_on_no_other() -> None:
    plan = plan_of("abc", ("a+b", "a"), outside=True)

    def keys(task: str, **change: Any) -> list[str]:
        tasks = {**plan.setting.tasks, task: replace(plan.setting.tasks[task], **change)}
        other = replace(plan, setting=replace(plan.setting, tasks=tasks))
        return [
            other.merged(("a", "b"), "0.50", "a", "val").key,
            other.merged(("a", "b"), "0.50", "a", "test").key,
            other.merged(("a",), "0.50", "a", "val").key,
            other.merged(("a",), "0.00", "a", "val").key,
        ]

    def changed(task: str, **change: Any) -> list[bool]:
        before = keys(task)
        return [old != new for old, new in zip(before, keys(task, **change), strict=True)]

    assert changed("b", vector="retrained") == [True, True, False, False]
    assert changed("a", vector="retrained") == [True, True, True, False]
    assert changed("a", head="renamed classes") == [True] * 4
    assert changed("b", head="renamed classes") == [False] * 4
    parts = {**setting("a").tasks["a"].parts}
    parts["val"] = replace(parts["val"], ids="other")
    assert changed("a", parts=parts) == [True, False, True, True]
    assert changed("c", vector="retrained", head="other") == [False] * 4


def test_lambda_zero_is_a_request_for_the_base() -> None:
    plan = plan_of()
    zero = plan.merged(("a", "b"), "0.00", "a", "val")
    assert zero == plan.setting.zeroshot("a", "val")
    assert zero.weights == BASE
    other = make_plan(setting("abc"), method("average"), ["a"], LAMBDAS)
    assert other.merged(("a",), "0.00", "a", "val").key == zero.key
    half = plan.merged(("a", "b"), "0.50", "a", "val")
    assert half.weights == Weights("merge", ("a", "b"), "0.50")
    assert half.n == 40


def test_options_seed_and_code_of_a_method_are_in_its_keys() -> None:
    def key(**change: Any) -> str:
        changed = replace(method(normalize=True), **change)
        plan = make_plan(setting("ab"), changed, ["a+b"], LAMBDAS)
        return plan.merged(("a", "b"), "0.50", "a", "val").key

    changes: list[dict[str, Any]] = [
        {},
        {"options": {"normalize": False}},
        {"code": "edited"},
        {"seed": 1},
        {"name": "average"},
    ]
    assert len({key(**change) for change in changes}) == 5


def test_experts_are_measured_on_every_task() -> None:
    ours = setting("ab")
    own, cross = ours.expert("a", "a", "test"), ours.expert("a", "b", "test")
    assert own.weights == cross.weights == Weights("expert", ("a",), "1.00")
    assert own.key != cross.key
    assert own.n == 60
    without = replace(ours, tasks={**ours.tasks, "b": replace(ours.tasks["b"], expert=None)})
    assert without.experts == ("a",)
    with pytest.raises(LineageError, match="'b' has no expert"):
        without.expert("b", "a", "test")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"subsets": ["a+x"]}, "'x' is not one of a, b"),
        ({"subsets": [""]}, "the empty subset is the base itself"),
        ({"subsets": ["a+a"]}, "'a' occurs twice"),
        ({"lambdas": []}, "lambdas is empty"),
        ({"curves_on": ["test"]}, "curves_on must hold val"),
    ],
)
def test_what_cannot_be_planned_is_said(options: dict[str, Any], sentence: str) -> None:
    given = {"subsets": ["a"], "lambdas": LAMBDAS, **options}
    with pytest.raises(ConfigError, match=sentence):
        make_plan(setting("ab"), method(), given.pop("subsets"), given.pop("lambdas"), **given)


def test_a_merged_task_needs_a_vector() -> None:
    ours = setting("ab")
    tasks = {**ours.tasks, "b": replace(ours.tasks["b"], vector=None)}
    with pytest.raises(LineageError, match="'b' has no task vector"):
        make_plan(replace(ours, tasks=tasks), method(), ["a", "a+b"], LAMBDAS)


@pytest.mark.parametrize(
    "damage",
    [
        lambda value: {**value, "format": 3},
        lambda value: {key: value[key] for key in value if key != "lambdas"},
    ],
)
def test_a_file_that_is_no_plan_is_named(damage: Any, tmp_path: Path) -> None:
    plan_of().write(tmp_path / "plan.json")
    value = read_json(tmp_path / "plan.json")
    write_json(tmp_path / "plan.json", damage(value))
    with pytest.raises(ArtifactError, match=r"plan\.json is not a plan"):
        Plan.read(tmp_path / "plan.json")


# --- references from manifests -------------------------------------------------------------------


def manifests(folder: Path, card: ModelCard, task: str = "a", **change: Any) -> TaskManifests:
    """Write the manifests of a task as the rules do; ``change`` breaks one of them."""
    index = ImageIndex(
        tuple(f"{task}{i}" for i in range(30)),
        tuple(i % 3 for i in range(30)),
        ("train",) * 20 + ("test",) * 10,
        tuple(f"pixels {task} {i}" for i in range(30)),
    )
    dataset = DatasetManifest(
        task=task,
        classes=("x", "y", "z"),
        templates=("a {}",),
        counts={"train": 20, "test": 10},
        digest=index.content_digest(),
        images=f"file of {task}",
        image_size=card.image_size,
        interpolation=card.interpolation,
    )
    split = make_split(task, index, ("x", "y", "z"))
    head = {**card.lineage(), "kind": "head", "digest": f"head of {task}"}
    vector = {
        **card.lineage(),
        "kind": "taskvector",
        "task": task,
        "split": split.digest,
        "head": head["digest"],
        "expert": f"expert of {task}",
        "digest": f"vector of {task}",
    }
    values = {"dataset": asdict(dataset), "head": head, "vector": vector}
    for name, entries in change.items():
        values[name] = {**values[name], **entries}
    found = TaskManifests(
        dataset=folder / f"{task}-dataset.json",
        split=folder / f"{task}-split.json",
        head=folder / f"{task}-head.json",
        vector=folder / f"{task}-vector.json",
    )
    for name, value in values.items():
        kept = {key: entry for key, entry in value.items() if entry is not None}
        write_json(folder / f"{task}-{name}.json", kept)
    split.write(found.split)
    return found


def read(card: ModelCard, **tasks: TaskManifests) -> Setting:
    return read_setting(
        model="tiny", mode="standard", seed=0, precision="fp32", card=card, tasks=tasks
    )


def test_a_setting_is_read_from_manifests(tmp_path: Path) -> None:
    card = world("a").card
    found = manifests(tmp_path, card)
    ref = read(card, a=found).tasks["a"]
    assert (ref.head, ref.expert, ref.vector) == ("head of a", "expert of a", "vector of a")
    assert {split: part.n for split, part in ref.parts.items()} == {
        "train": 18,
        "val": 2,
        "test": 10,
    }
    assert ref.parts["val"].images != ref.parts["test"].images
    assert read(card, a=found).base == card.base


def test_an_expert_stands_in_for_a_vector_and_neither_is_needed(tmp_path: Path) -> None:
    card = world("a").card
    found = manifests(tmp_path, card)
    expert = json.loads(found.vector.read_text())  # type: ignore[union-attr]
    write_json(tmp_path / "expert.json", {**expert, "kind": "expert", "digest": expert["expert"]})
    ref = read(card, a=replace(found, vector=None, expert=tmp_path / "expert.json")).tasks["a"]
    assert (ref.expert, ref.vector) == ("expert of a", None)
    bare = read(card, a=replace(found, vector=None)).tasks["a"]
    assert (bare.expert, bare.vector) == (None, None)


def test_a_split_touches_only_its_own_rows(tmp_path: Path) -> None:
    card = world("a").card
    found = manifests(tmp_path, card)
    before = read(card, a=found).tasks["a"]
    manifest = SplitManifest.read(found.split)
    index = {
        **asdict(manifest),
        "val": manifest.val[:1],
        "train": (*manifest.train, manifest.val[1]),
    }
    other = SplitManifest(**index)
    digest = split_digest(other.dataset, {split: other.ids(split) for split in SPLITS})
    replace(other, digest=digest).write(found.split)
    bare = replace(found, vector=None)
    after = read(card, a=bare).tasks["a"]
    assert after.parts["test"] == before.parts["test"]
    assert after.parts["val"] != before.parts["val"]


BROKEN: list[tuple[dict[str, Any], str]] = [
    ({"head": {"text": "another"}}, "the head of task 'a' comes from another text tower"),
    ({"head": {"activation": "quick_gelu"}}, "the head of task 'a' .* activation"),
    ({"vector": {"base": "another"}}, "the task vector of task 'a' comes from another base"),
    ({"vector": {"layout": "hf"}}, "the task vector of task 'a' .* layout"),
    ({"vector": {"split": "another"}}, "the expert of task 'a' comes from another split"),
    ({"vector": {"head": "another"}}, "the expert of task 'a' comes from another head"),
    ({"vector": {"expert": None}}, "does not say which expert"),
    ({"dataset": {"digest": "another"}}, "the split of task 'a' was made from other images"),
    ({"dataset": {"image_size": 9}}, "the images of task 'a' are 9 px"),
    ({"head": {"digest": None}}, "is no manifest of an artefact"),
]


@pytest.mark.parametrize(("change", "sentence"), BROKEN, ids=[text[:45] for _, text in BROKEN])
def test_what_does_not_belong_together_is_refused(
    change: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    card = world("a").card
    with pytest.raises(TaskgridError, match=sentence):
        read(card, a=manifests(tmp_path, card, **change))


def test_a_method_is_read_with_its_defaults_and_its_code() -> None:
    ref = read_method("task_arithmetic", {}, seed=3)
    defaults = {"weights": None, "normalize": False}
    assert (ref.name, ref.options, ref.seed) == ("task_arithmetic", defaults, None)
    assert ref.code != read_method("average", {}, seed=3).code
    with pytest.raises(ConfigError, match="density"):
        read_method("average", {"density": 1}, seed=3)


def test_a_task_reference_says_what_rows_depend_on() -> None:
    # Names, paths and counts of training images are not among it.
    assert set(TaskRef.__dataclass_fields__) == {"head", "parts", "expert", "vector", "statistics"}


def test_statistics_and_what_was_learned_are_in_the_keys_of_merges() -> None:
    ours = setting("ab")

    def plan(**statistics: str) -> Plan:
        tasks = {
            name: replace(ref, statistics={"exact": digest([name, statistics.get(name)])})
            for name, ref in ours.tasks.items()
        }
        needing = replace(method(), needs={"fisher": "exact"})
        return make_plan(replace(ours, tasks=tasks), needing, ["a", "a+b"], LAMBDAS)

    one, other = plan(), plan(b="computed anew")
    assert one.merge_key(("a",)) == other.merge_key(("a",))
    assert one.merge_key(("a", "b")) != other.merge_key(("a", "b"))
    with pytest.raises(LineageError, match=r"needs the statistic 'fisher' of task 'a'.*rule"):
        make_plan(ours, replace(method(), needs={"fisher": "exact"}), ["a"], LAMBDAS)


def test_a_method_that_learns_needs_what_was_learned_for_each_subset() -> None:
    learns = replace(merger_card("task_arithmetic"), learned=True)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("taskgrid.evaluation.plan.setting.merger_card", lambda name: learns)
        knows = replace(method(), learned={"a+b": digest("coefficients")})
        first = make_plan(setting("ab"), knows, ["a+b"], LAMBDAS).merge_key(("a", "b"))
        edited = replace(knows, learned={"a+b": digest("others")})
        assert make_plan(setting("ab"), edited, ["a+b"], LAMBDAS).merge_key(("a", "b")) != first
        with pytest.raises(LineageError, match="nothing was learned for a by 'task_arithmetic'"):
            make_plan(setting("ab"), knows, ["a"], LAMBDAS)


def test_rows_of_more_than_one_model_say_what_is_kept() -> None:
    masks = method("tall_mask")
    assert masks.shown == {**masks.options, "storage": "32 + T bits per weight"}
    assert method("ties").shown == method("ties").options


def per_task(**change: Any) -> MergerCard:
    masks = Storage(shared=32, task=1)
    return replace(merger_card("task_arithmetic"), gives="per_task", storage=masks, **change)


def test_a_model_per_task_is_measured_on_the_tasks_of_its_subset_alone() -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("taskgrid.evaluation.plan.setting.merger_card", lambda name: per_task())
        plan = make_plan(setting("abc"), method(), ["a+b"], LAMBDAS, outside=True)
        assert plan.measurable(("a", "b"), ("a", "b", "c")) == ("a", "b")
        on_a, on_b = (plan.merged(("a", "b"), "0.50", task, "val") for task in "ab")
        assert (on_a.weights.task, on_b.weights.task) == ("a", "b")
        assert plan.point_key(("a", "b"), "0.50", "a") != plan.point_key(("a", "b"), "0.50", "b")
        tangent = replace(setting("ab"), tangent="tangent code")
        with pytest.raises(ConfigError, match="gives a model for each task; tangent models"):
            make_plan(tangent, method(), ["a"], LAMBDAS)
        with pytest.raises(ConfigError, match="nothing can be interpolated"):
            make_plan(
                setting("ab"), method(), ["a"], LAMBDAS, curves=CurveRef(7, 0.01, code="code")
            )


def test_a_method_may_have_a_threshold_or_nothing_in_the_place_of_lambda() -> None:
    with pytest.MonkeyPatch.context() as patched:
        card = per_task(coefficient="threshold")
        patched.setattr("taskgrid.evaluation.plan.setting.merger_card", lambda name: card)
        plan = make_plan(setting("ab"), method(), ["a"], LAMBDAS)
        assert plan.merged(("a",), "0.00", "a", "val").weights.kind == "merge"
        card = per_task(coefficient="none")
        own = {"a+b": ["a:0.30,b:0.50"]}
        alone = make_plan(setting("ab"), method(), ["a+b"], LAMBDAS, points=own)
        assert alone.sweep(("a", "b")) == ("1.00",)
