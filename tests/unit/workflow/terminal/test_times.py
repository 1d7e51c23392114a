"""How long jobs take, by benchmarks, and how long many take together."""

from __future__ import annotations

from pathlib import Path

import pytest

from taskgrid.workflow.terminal.points import changes_of
from taskgrid.workflow.terminal.times import Machine, Times, left, read_benchmarks, spoken
from tests.unit.workflow.example_experiment import BLOCK, experiment
from tests.unit.workflow.terminal.example_jobs import (
    changed,
    evaluation,
    finetune,
    job,
    plan,
    write_benchmark,
    write_timing,
)

KEY = tuple(BLOCK.values())
LARGE = {"models": [{"name": "m", "architecture": "ViT-B-32-quickgelu", "pretrained": "random"}]}
BUILT_IN = {"tasks": ["textures", "handwritten", "pictograms"]}


def test_the_benchmarks_that_agree_in_most_labels_count(tmp_path: Path) -> None:
    write_benchmark(tmp_path, "finetune/m/standard/0/textures", 30.0)
    write_benchmark(tmp_path, "finetune/m/standard/0/mnist", 50.0)
    write_benchmark(tmp_path, "finetune/m/lora/0/textures", 10.0)
    times, known = Times.look(experiment(), tmp_path), experiment()
    assert times.seconds(known, finetune("handwritten")) == pytest.approx(40.0)
    assert times.seconds(known, finetune("mnist")) == pytest.approx(50.0)


def test_a_training_with_more_steps_takes_longer(tmp_path: Path) -> None:
    write_benchmark(tmp_path, "finetune/m/standard/0/textures", 30.0)
    reason = changed({"recipe": {"steps": 5}}, {"recipe": {"steps": 10}})
    known = experiment()  # of 10 steps
    assert Times.look(known, tmp_path).seconds(known, finetune("textures", reason)) == 60.0


def test_attempts_count_with_their_mean_and_broken_files_not(tmp_path: Path) -> None:
    write_benchmark(tmp_path, "grid", 1.0, 3.0)
    write_benchmark(tmp_path, "pages")
    (tmp_path / "results/benchmarks/sync.tsv").write_bytes(b"s\th:m:s\nNA\t-\n")
    assert read_benchmarks(tmp_path) == {"grid": {(): 2.0}}


def test_an_evaluation_takes_its_opening_and_its_images(tmp_path: Path) -> None:
    write_benchmark(tmp_path, "eval/m/standard/0/task_arithmetic/00000", 26.0)
    write_timing(tmp_path, "m/standard/0/task_arithmetic/00000", images=1000, seconds=20.0)
    known = experiment()
    change = changes_of(known, [plan(), evaluation()], tmp_path)[KEY]
    # textures, mnist, and both at three lambdas: 4 tasks x (3 x 200 + 500) images, as nothing is split.
    assert Times.look(known, tmp_path).seconds(known, evaluation(), change) == pytest.approx(
        6.0 + 4400 * 0.02
    )


def test_without_benchmarks_the_default_is_known_and_a_large_model_is_not() -> None:
    folder = Path("nowhere")
    small, large = experiment(**BUILT_IN), experiment(**LARGE)
    for one in (finetune("textures"), job("grid", "grid")):
        assert (Times.look(small, folder).seconds(small, one) or 0) > 0
        assert Times.look(large, folder).seconds(large, one) is None
    jobs = [plan(), evaluation()]
    for known, there in ((small, True), (large, False)):
        change = changes_of(known, jobs, folder)[KEY]
        found = Times.look(known, folder).seconds(known, evaluation(), change)
        assert (found is not None) == there


def test_stages_come_one_after_the_other_and_none_ends_before_its_longest() -> None:
    machine = Machine(2, 0, "2 cores")
    jobs = [(finetune(task), 30.0) for task in "abc"]
    assert left(jobs, machine) == 45.0
    assert left([*jobs, (evaluation(), 100.0), (plan(), 1.0)], machine) == 145.0
    assert left([], machine) == 0.0


def test_jobs_that_want_a_gpu_wait_for_one() -> None:
    machine = Machine(16, 1, "16 cores and 1 GPU")
    assert left([(finetune(task), 30.0) for task in "abc"], machine) == 90.0
    assert left([(job("figure", f"figure/{name}"), 16.0) for name in "abcd"], machine) == 16.0


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "1 s"),
        (89.4, "89 s"),
        (91, "2 min"),
        (3600, "60 min"),
        (3600 * 2 + 540, "2 h 10 min"),
        (3600 * 5, "5 h"),
        (3600 * 24 * 3, "3 days"),
    ],
)
def test_times_are_said_as_people_do(seconds: float, words: str) -> None:
    assert spoken(seconds) == words
