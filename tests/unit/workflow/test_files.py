"""What rules read per task: inputs and listing are made of the same entries."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from taskgrid.config import Experiment, read_config
from taskgrid.errors import ArtifactError, ConfigError
from taskgrid.workflow import paths
from taskgrid.workflow import stages as settings
from taskgrid.workflow.files import PER_RUN, PER_TASK, FileKind, files_of
from taskgrid.workflow.listing import Listing
from tests.unit.workflow.example_experiment import RUN, experiment

ROOT = Path(__file__).parents[3]
KINDS_OF_BASE = (("card", "json"), ("base", "safetensors"))


def test_files_are_followed_or_settled_and_the_listing_holds_each_once() -> None:
    files = files_of(experiment(), ("card", "base", "split", "head"), ("textures", "mnist"), **RUN)
    assert files.followed == [
        "results/models/m/base.json",
        "results/splits/24px/textures.json",
        "results/splits/24px/mnist.json",
    ]
    assert files.settled == [
        "results/models/m/base.safetensors",
        "results/heads/m/textures.safetensors",
        "results/heads/m/mnist.safetensors",
    ]
    assert json.loads(files.listing(files.followed, files.settled)) == {
        "card": "results/models/m/base.json",
        "base": "results/models/m/base.safetensors",
        "tasks": {
            task: {
                "split": f"results/splits/24px/{task}.json",
                "head": f"results/heads/m/{task}.safetensors",
            }
            for task in ("textures", "mnist")
        },
    }


def test_the_listing_names_files_where_snakemake_has_them() -> None:
    files = files_of(experiment(), ("card", "split", "head"), ("mnist",), **RUN)
    moved = files.listing(
        [f"there/{path}" for path in files.followed], [f"far/{path}" for path in files.settled]
    )
    listing = Listing.read(json.loads(moved))
    assert listing.run == {"card": Path("there/results/models/m/base.json")}
    assert listing.of("split") == {"mnist": Path("there/results/splits/24px/mnist.json")}
    assert listing.of("head") == {"mnist": Path("far/results/heads/m/mnist.safetensors")}


def test_a_new_kind_of_file_is_one_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    pattern = "results/statistics/{model}/{mode}/{seed}/fisher/{task}.safetensors"
    monkeypatch.setitem(PER_TASK, "fisher", FileKind(pattern, settled=True))
    files = files_of(experiment(), ("split", "fisher"), ("mnist",), **RUN)
    path = "results/statistics/m/standard/0/fisher/mnist.safetensors"
    assert files.settled == [path]
    listing = Listing.read(json.loads(files.listing(files.followed, files.settled)))
    assert listing.of("fisher") == {"mnist": Path(path)}


def test_post_hoc_experts_and_vectors_are_those_of_the_mode_they_were_trained_in() -> None:
    again = experiment(evaluation={"posthoc": "standard"})
    files = files_of(again, ("vector",), ("mnist",), model="m", mode="posthoc", seed="0")
    assert files.settled == ["results/vectors/m/standard/0/mnist.safetensors"]


def test_every_pattern_is_what_a_rule_makes() -> None:
    text = "".join(path.read_text() for path in (ROOT / "rules").glob("*.smk"))
    made = set(re.findall(r'"(results/[^"]+)"', text))
    for name, pattern in vars(paths).items():
        # A figure's file is named by its suffix in the rule, what a study measures by its folder.
        if name.isupper() and name[0] != "_" and name not in ("FIGURE", "STUDY_MEASURED"):
            assert pattern in made, name
    for kind in (*PER_RUN.values(), *PER_TASK.values()):
        assert kind.pattern in vars(paths).values()


def test_the_listing_of_the_largest_presets_fits_a_command_line() -> None:
    preset = ROOT / "presets/clip-vit-l-14-20tasks.yaml"
    big = Experiment(read_config(ROOT / "config.yaml", preset))
    (run,) = {(run.model, run.mode, str(run.seed)) for run in big.runs}
    files = files_of(big, (*PER_RUN, *PER_TASK), big.tasks, model=run[0], mode=run[1], seed=run[2])
    assert len(big.tasks) == 20
    # Linux: 128 KiB for a word, and a shell command is one.
    assert len(files.listing(files.followed, files.settled)) < 32 * 1024


def test_what_was_learned_is_listed_by_its_subset() -> None:
    given = experiment(grid={"methods": ["adamerging", "average"]})
    asked = {**RUN, "method": "adamerging", "block": "00000"}
    path = "results/learned/m/standard/0/adamerging/{}/coefficients.json"
    subsets = ["textures", "mnist", "mnist+textures"]
    for files in (settings.merge.files(given, **asked), settings.evaluate.files(given, **asked)):
        assert files.followed[-3:] == [path.format(subset) for subset in subsets]
        beside = path.replace("coefficients.json", "tensors.safetensors")
        assert files.settled[-3:] == [beside.format(subset) for subset in subsets]
        moved = [f"there/{name}" for name in files.followed]
        listing = Listing.read(json.loads(files.listing(moved, files.settled)))
        assert listing.learned["mnist+textures"] == Path("there", path.format("mnist+textures"))
        assert "learned" not in listing.run
    assert not settings.merge.files(given, **{**asked, "method": "average"}).learned


def test_a_statistic_of_the_base_is_listed_once_and_made_of_the_tasks_that_it_names() -> None:
    prior = {"name": "fisher_base", "label": "prior", "options": {"of": "trained"}}
    given = experiment(grid={"methods": ["ubgm"]}, statistics=[prior])
    asked = {**RUN, "method": "ubgm", "block": "00000"}
    made, of_task = "results/statistics/m/base/prior", "results/statistics/m/standard/0/fisher"
    planned = settings.merge.files(given, **asked)
    assert {f"{made}.json", f"{of_task}/mnist.json"} <= {*planned.followed}
    files = settings.evaluate.files(given, **asked)
    assert {f"{made}.safetensors", f"{of_task}/mnist.safetensors"} <= {*files.settled}
    listing = Listing.read(json.loads(files.listing(files.followed, files.settled)))
    assert listing.files().statistics == {"prior": Path(f"{made}.safetensors")}
    assert "prior" not in listing.files().tasks["mnist"].statistics
    assert listing.statistics()["prior"] == Path(f"{made}.safetensors")
    listing = Listing.read(json.loads(planned.listing(planned.followed, planned.settled)))
    assert listing.base_statistics() == {"prior": Path(f"{made}.json")}
    assert len(listing.statistic_manifests()) == 1 + len(listing.tasks)
    assert settings.statistics.labels(given, "base") == ["prior"]
    assert settings.statistics.labels(given, "task") == ["fisher"]
    seen = settings.statistics.base_files(given, model="m", label="prior")
    assert list(seen.tasks) == ["textures", "mnist", "handwritten"]
    assert seen.run == {kind: f"results/models/m/base.{end}" for kind, end in KINDS_OF_BASE}
    assert "results/heads/m/mnist.safetensors" in seen.settled


def test_by_default_it_is_made_of_control_tasks_and_refused_where_there_are_none() -> None:
    without = experiment(grid={"methods": ["ubgm"]})
    with pytest.raises(ConfigError, match="'fisher_base' is computed on images of control tasks"):
        without.check()
    tasks = ["textures", "handwritten", {"name": "catalogue", "expert": False}]
    given = experiment(grid={"methods": ["ubgm"]}, tasks=tasks)
    given.check()
    assert given.tasks_seen("fisher_base") == ("catalogue",)
    every = experiment(
        grid={"methods": ["ubgm"]},
        tasks=tasks,
        statistics=[{"name": "fisher_base", "options": {"of": "all"}}],
    )
    assert every.tasks_seen("fisher_base") == ("textures", "handwritten", "catalogue")


@pytest.mark.parametrize("value", [{}, {"tasks": ["a"]}, {"tasks": {"a": "b"}}])
def test_what_is_no_listing_is_refused(value: dict[str, object]) -> None:
    with pytest.raises(ArtifactError, match="a listing is"):
        Listing.read(value)
