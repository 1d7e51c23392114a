"""A lattice on a budget: planted functions, every merge known, the reported error held against it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from taskgrid.errors import ConfigError
from taskgrid.evaluation import budget
from taskgrid.evaluation.anova import core_numbers
from taskgrid.evaluation.budget import BudgetSpec, ImageSet, Prediction, predict_lattice
from taskgrid.evaluation.curves import exact_row, odds_against
from taskgrid.lattice import all_numbers, subset_number

ORDER = ("a", "b", "c", "d", "e", "f")
LATTICE = all_numbers(len(ORDER))

Logits = Callable[[tuple[str, ...]], NDArray[np.float64]]


def world(
    seed: int,
    sizes: tuple[float, ...],
    *,
    tasks: tuple[str, ...] = ("a", "b", "e"),
    images: int = 60,
) -> tuple[list[ImageSet], list[tuple[str, tuple[str, ...]]]]:
    """Image sets whose logits are sums of random effects; and a list of what is evaluated.

    Args:
        seed: seed of everything.
        sizes: standard deviations of the effects of order 0, 1, 2, ...
        tasks: the image sets.
        images: images of each.
    """
    asked: list[tuple[str, tuple[str, ...]]] = []

    def image_set(task: str, number: int) -> ImageSet:
        random = np.random.default_rng([seed, number])
        effects = {
            part: sizes[part.bit_count()] * random.normal(size=(images, 4))
            for part in range(1 << len(ORDER))
            if part.bit_count() < len(sizes)
        }

        def logits(subset: tuple[str, ...]) -> NDArray[np.float64]:
            asked.append((task, subset))
            merged = subset_number(subset, ORDER)
            return np.sum([e for part, e in effects.items() if part & merged == part], axis=0)

        return ImageSet(task, random.integers(0, 4, images), logits)

    return [image_set(task, number) for number, task in enumerate(tasks)], asked


def errors(
    prediction: Prediction, sets: list[ImageSet]
) -> dict[tuple[str, ...], list[tuple[float, float]]]:
    """True errors of the predicted rows and their bounds, by merge."""
    by_task = {found.task: found for found in sets}
    found: dict[tuple[str, ...], list[tuple[float, float]]] = {}
    for row in prediction.rows:
        if not row.exact:
            images = by_task[row.task]
            truth = np.mean(images.logits_of(row.subset).argmax(axis=1) == images.labels)
            found.setdefault(row.subset, []).append((abs(row.accuracy - truth), row.bound))
    return found


@pytest.mark.parametrize("sizes", [(2.0, 1.0), (2.0, 1.0, 0.5)])
def test_effects_up_to_order_two_are_predicted_without_error(sizes: tuple[float, ...]) -> None:
    sets, _ = world(0, sizes)
    found = predict_lattice(ORDER, sets, LATTICE, BudgetSpec(42, audit=19))
    assert found.report.error.mean == 0
    assert found.report.error.high < 1 / 60 / 3
    # 42 merges of three and more tasks; one of them holds none of the image sets' tasks.
    assert found.report.rest == 41 - 1 - 19
    predicted = [row for row in found.rows if not row.exact]
    assert {row.bound for row in predicted} == {0.0}
    for row in predicted:
        images = next(each for each in sets if each.task == row.task)
        odds = odds_against(images.logits_of(row.subset), images.labels)
        exact = exact_row("", odds, images.labels)
        assert row.hits == np.packbits(exact.hits).tobytes()
        assert (row.nll, row.ece) == pytest.approx((exact.nll, exact.ece), abs=1e-5)


@pytest.mark.parametrize("third", [0.05, 0.4])
def test_effects_of_order_three_are_noticed_and_covered(third: float) -> None:
    level, worlds = 0.8, 60
    merges = kept = means = beyond = noticed = 0
    for seed in range(worlds):
        sets, _ = world(seed, (2.0, 1.0, 0.6, third), images=40)
        spec = BudgetSpec(34, audit=9, level=level, seed=seed)
        found = predict_lattice(ORDER, sets, LATTICE, spec)
        off = errors(found, sets)
        broken = sum(any(error > bound + 1e-9 for error, bound in rows) for rows in off.values())
        merges += len(off)
        kept += len(off) - broken
        beyond += broken <= found.report.beyond
        truth = np.mean([np.mean([error for error, _ in rows]) for rows in off.values()])
        means += found.report.error.low <= truth <= found.report.error.high
        noticed += found.report.error.mean > 0
    assert kept / merges > level - 0.03
    assert beyond / worlds >= level - 0.1
    assert means / worlds >= level - 0.15
    assert noticed / worlds > 0.9


def test_the_budget_is_kept_and_nothing_is_evaluated_twice() -> None:
    sets, asked = world(1, (2.0, 1.0, 0.6, 0.4))
    found = predict_lattice(ORDER, sets, LATTICE, BudgetSpec(40, audit=9, level=0.9))
    assert len(set(asked)) == len(asked)
    assert len({subset for _, subset in asked}) == len(found.evaluated) == 40
    report = found.report
    assert (report.core, report.further, report.audited, report.rest) == (22, 9, 9, 23)
    assert "evaluated 40 merges" in report.sentence()
    # Beyond the core a merge passes over the images of its own tasks alone.
    assert all(len(subset) <= 2 or task in subset for task, subset in asked)
    assert Counter(task for task, subset in asked if len(subset) <= 2) == dict.fromkeys("abe", 22)
    rows = {(row.subset, row.task): row for row in found.rows}
    assert set(rows) == {
        (subset, task)
        for number in LATTICE
        for subset in [tuple(t for i, t in enumerate(ORDER) if number >> i & 1)]
        for task in "abe"
        if task in subset
    }
    for (subset, task), row in rows.items():
        assert row.exact == (subset in found.evaluated)
        if row.exact:
            images = next(each for each in sets if each.task == task)
            assert row.accuracy == np.mean(images.logits_of(subset).argmax(axis=1) == images.labels)
            assert row.bound == 0


def test_rows_outside_are_measured_when_asked_for() -> None:
    sets, asked = world(1, (2.0, 1.0, 0.6, 0.4))
    spec = BudgetSpec(40, audit=9, level=0.9)
    found = predict_lattice(ORDER, sets, LATTICE, spec, outside=True)
    assert len(found.rows) == 3 * 63
    assert len(asked) == 3 * 40


def test_the_budget_goes_where_the_error_is() -> None:
    """Triples of the first four tasks interact strongly, and no others do."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 4, 80)
    effects = {
        part: (2.0, 1.0, 0.5, 0.6, 0.6)[part.bit_count()] * random.normal(size=(80, 4))
        for part in range(16)
    }

    def logits(subset: tuple[str, ...]) -> NDArray[np.float64]:
        merged = subset_number(subset, ORDER)
        return np.sum([e for part, e in effects.items() if part & merged == part], axis=0)

    found = predict_lattice(
        ORDER, [ImageSet("a", labels, logits)], LATTICE, BudgetSpec(22 + 6 + 9, 9, 0.9)
    )
    further = found.evaluated[22:28]
    assert all(len(subset) > 2 for subset in further)
    sizes = [len(subset) for subset in further]
    assert max(sizes) >= 5


def test_a_budget_for_everything_predicts_nothing() -> None:
    sets, _ = world(2, (2.0, 1.0, 0.6, 0.4))
    found = predict_lattice(ORDER, sets, LATTICE, BudgetSpec(64, audit=19))
    assert all(row.exact for row in found.rows)
    assert found.report.rest == 0
    assert found.report.sentence() == "evaluated all 63 merges"
    few = predict_lattice(ORDER, sets, [7, 11, 3, 0], BudgetSpec(60, audit=19))
    assert [row.subset for row in few.rows if row.task == "a"] == [
        ("a", "b"),
        ("a", "b", "c"),
        ("a", "b", "d"),
    ]
    assert all(row.exact for row in few.rows)
    assert len(few.evaluated) == len(core_numbers(6)) + 2


def test_memory_and_scratch_files_change_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spec = BudgetSpec(40, audit=9, level=0.9)
    sets, _ = world(3, (2.0, 1.0, 0.6, 0.4))
    whole = predict_lattice(ORDER, sets, LATTICE, spec)
    monkeypatch.setattr(budget, "_CHUNK", 1)
    monkeypatch.setattr(budget, "_BLOCK", 3)
    pieces = predict_lattice(ORDER, sets, LATTICE, spec, scratch=tmp_path)
    assert whole.evaluated == pieces.evaluated
    assert whole.report.sentence() == pieces.report.sentence()
    for left, right in zip(whole.rows, pieces.rows, strict=True):
        assert (left.subset, left.task, left.hits, left.bound) == (
            right.subset,
            right.task,
            right.hits,
            right.bound,
        )
        assert (left.nll, left.ece) == pytest.approx((right.nll, right.ece))


def test_a_larger_audit_of_a_seed_holds_the_smaller_one() -> None:
    sets, _ = world(4, (2.0, 1.0, 0.6, 0.4))
    # The same number of further merges: the audits are drawn from the same predictions.
    small = predict_lattice(ORDER, sets, LATTICE, BudgetSpec(34, audit=9, level=0.9))
    large = predict_lattice(ORDER, sets, LATTICE, BudgetSpec(40, audit=15, level=0.9))
    other = predict_lattice(ORDER, sets, LATTICE, BudgetSpec(34, audit=9, level=0.9, seed=1))
    assert large.evaluated[:34] == small.evaluated
    assert other.evaluated[:25] == small.evaluated[:25]
    assert other.evaluated != small.evaluated


def test_budgets_that_cannot_be_kept_are_refused() -> None:
    sets, _ = world(0, (1.0,))
    with pytest.raises(ConfigError, match=r"30 merges is too small for 6 tasks.* at least 41"):
        predict_lattice(ORDER, sets, LATTICE, BudgetSpec(30, audit=19))
    with pytest.raises(ConfigError, match=r"audit of 10 merges .* level 0\.95; audit at least 19"):
        predict_lattice(ORDER, sets, LATTICE, BudgetSpec(60, audit=10))
