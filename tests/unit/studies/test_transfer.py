"""Transfer curves: lines, levels, differences and intervals, on a grid whose outcomes are known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest

from taskgrid.errors import ArtifactError
from taskgrid.store.outcome import Outcome
from taskgrid.studies.seam import Brought, Results
from taskgrid.studies.tables import study_table
from taskgrid.studies.transfer import interval_over_draws

N = 200
OPTIONS = {"orthogonality": "hard"}


class World:
    """A base with own experts and brought ones: mode -> share of images right at one, and where chosen."""

    def __init__(self, brought: Mapping[str, tuple[Brought, float, float | None]]) -> None:
        self.brought = {mode: how for mode, (how, _, _) in brought.items()}
        self.outcomes: dict[str, Outcome] = {}
        rows = [self._row(None, "zeroshot", "", "0.00", task, 0.3) for task in "ab"]
        chosen = []
        # An own expert of another mode, which is no ceiling, and one on a foreign task.
        for mode, share in (("standard", 0.9), ("lora", 0.95)):
            for task in "ab":
                rows.append(self._row(mode, "expert", task, "1.00", task, share))
                rows.append(self._row(mode, "expert", task, "1.00", "ba"["ab".index(task)], 0.1))
        for mode, (_, one, at) in brought.items():
            for task in "ab":
                rows.append(self._row(mode, "expert", task, "1.00", task, one))
                if at is not None:
                    # Another point on test, and the merge of both tasks: neither is a vector alone where
                    # validation chose.
                    rows.append(self._row(mode, "task_arithmetic", task, "1.00", task, 0.99))
                    rows.append(self._row(mode, "task_arithmetic", task, "0.40", task, at))
                    rows.append(self._row(mode, "task_arithmetic", "a+b", "0.40", task, 0.98))
            if at is not None:
                chosen += [self._chosen(mode, subset) for subset in ("a", "b", "a+b")]
        self.grid = pd.DataFrame(rows).astype({"seed": "Int64"})
        columns = ["study", "model", "mode", "seed", "method", "options", "subset", "point"]
        self.selected = pd.DataFrame(chosen, columns=columns).astype({"seed": "Int64"})

    def _row(
        self, mode: str | None, method: str, subset: str, point: str, task: str, share: float
    ) -> dict[str, Any]:
        key = f"{len(self.outcomes):032x}"
        self.outcomes[key] = Outcome.of(key, np.arange(N) < round(share * N), 0.0, 0.0)
        named = {"model": "m", "mode": mode, "seed": None if mode is None else 0}
        return {
            **named,
            **{"method": method, "options": "{}", "subset": subset, "point": point},
            **{"task": task, "split": "test", "accuracy": share, "key": key},
        }

    def _chosen(self, mode: str, subset: str) -> dict[str, Any]:
        named = {"study": "addition", "model": "m", "mode": mode, "seed": 0}
        return {
            **named,
            "method": "task_arithmetic",
            "options": "{}",
            "subset": subset,
            "point": "0.40",
        }

    def find(self, keys: Any) -> Mapping[str, Outcome]:
        return {key: self.outcomes[key] for key in keys if key in self.outcomes}

    def table(self, **options: Any) -> pd.DataFrame:
        results = Results(
            "transfer", self.grid, self.selected, self.find, ("a", "b"), brought=self.brought
        )
        return study_table("transfer", options, "curves", results).to_pandas()


def orthogonal(images: int, draw: int, **more: Any) -> Brought:
    return Brought("orthogonal", {**OPTIONS, **more}, images, draw, "standard")


def few_shot(images: int, draw: int) -> Brought:
    return Brought("few_shot", {}, images, draw, "standard")


DIRECT = Brought("none", {"tensors": "all"}, mode="standard")


def line(table: pd.DataFrame, aligner: str, images: int | None = None, **more: Any) -> Any:
    found = table[table["aligner"] == aligner]
    found = found[found["images"].isna() if images is None else found["images"] == images]
    for name, value in {"coefficient": "one", **more}.items():
        found = found[found[name] == value]
    (row,) = found.to_dict("records")
    return row


def test_a_line_is_the_mean_over_tasks_and_draws() -> None:
    table = World(
        {
            "direct": (DIRECT, 0.2, 0.35),
            "o-4-0": (orthogonal(4, 0), 0.5, 0.55),
            "o-4-1": (orthogonal(4, 1), 0.6, 0.65),
            "o-16-0": (orthogonal(16, 0), 0.7, 0.7),
            "f-4-0": (few_shot(4, 0), 0.45, 0.45),
            "f-4-1": (few_shot(4, 1), 0.65, 0.65),
        }
    ).table()
    assert len(table) == 8 and set(table["tasks"]) == {"a+b"}
    four = line(table, "orthogonal", 4)
    assert (four["repeats"], four["options"]) == (2, '{"orthogonality":"hard"}')
    assert four["accuracy"] == pytest.approx(0.55)
    assert line(table, "orthogonal", 4, coefficient="chosen")["accuracy"] == pytest.approx(0.6)
    assert line(table, "none")["accuracy"] == 0.2 and line(table, "none")["repeats"] == 1
    # Between 0.3 of the base and 0.9 of its own experts.
    assert (four["zeroshot"], four["ceiling"]) == pytest.approx((0.3, 0.9))
    assert four["recovered"] == pytest.approx(0.25 / 0.6)
    assert line(table, "none")["recovered"] == pytest.approx(-0.1 / 0.6)
    assert four["over_direct"] == pytest.approx(0.35)
    assert four["over_few_shot"] == pytest.approx(0.0)
    # The first draw is better by 0.05, the second worse by as much: the interval is that of two draws, and
    # not the one of two means, which are equal.
    assert four["over_few_shot_low"] < -0.04 and four["over_few_shot_high"] > 0.04
    # There is no fine-tuning with 16 images, and no direct transfer beside itself.
    assert np.isnan(line(table, "orthogonal", 16)["over_few_shot"])
    assert np.isnan(line(table, "none")["over_direct"])
    assert np.isnan(line(table, "few_shot", 4)["over_few_shot"])
    assert line(table, "few_shot", 4)["over_direct"] == pytest.approx(0.35)


def test_models_that_were_carried_whole_are_no_lines() -> None:
    whole = Brought("none", {"tensors": "all"}, mode="standard", carry="model")
    with_whole = World({"direct": (DIRECT, 0.2, 0.35), "whole": (whole, 0.9, 0.9)}).table()
    assert with_whole.equals(World({"direct": (DIRECT, 0.2, 0.35)}).table())


def test_draws_are_paired_with_the_same_draws() -> None:
    given = {
        "o-4-0": (orthogonal(4, 0), 0.5, None),
        "o-4-1": (orthogonal(4, 1), 0.7, None),
        "f-4-1": (few_shot(4, 1), 0.6, None),
    }
    table = World(given).table()
    assert line(table, "orthogonal", 4)["over_few_shot"] == pytest.approx(0.1)
    apart = World({**given, "f-4-1": (few_shot(4, 2), 0.6, None)}).table()
    assert np.isnan(line(apart, "orthogonal", 4)["over_few_shot"])


def test_options_tell_lines_apart() -> None:
    table = World(
        {
            "hard": (orthogonal(4, 0), 0.5, None),
            "soft": (orthogonal(4, 0, orthogonality="soft"), 0.6, None),
        }
    ).table()
    assert line(table, "orthogonal", 4, options='{"orthogonality":"soft"}')["accuracy"] == 0.6
    assert set(table["coefficient"]) == {"one"}


def test_the_ceiling_can_be_another_mode_and_may_be_missing() -> None:
    given = {"o": (orthogonal(4, 0), 0.5, None)}
    assert World(given).table(ceiling="lora")["ceiling"].item() == pytest.approx(0.95)
    missing = World(given).table(ceiling="linear")
    assert missing[["ceiling", "recovered"]].isna().all(axis=None)
    # A brought mode is no ceiling, whatever its own run calls it.
    own = World({"standard-there": (Brought("none", mode="standard-there"), 0.5, None)}).table()
    assert own["ceiling"].isna().all()


def test_without_experts_of_another_base_there_is_no_row() -> None:
    assert World({}).table().empty


def test_an_outcome_that_is_gone_is_told() -> None:
    world = World({"direct": (DIRECT, 0.2, None)})
    world.outcomes.clear()
    with pytest.raises(ArtifactError, match="2 outcomes behind transported experts"):
        world.table()


def test_an_interval_resamples_draws_and_images_of_each_task() -> None:
    random = np.random.default_rng(3)
    parts = [(random.random((3, 60)) < rate).astype(float) for rate in (0.5, 0.8)]
    found = interval_over_draws(parts, 20_000, 1)
    # The same by brute force, index by index.
    means = np.zeros(20_000)
    for part in parts:
        draws = random.integers(0, 3, (20_000, 3))
        for at in range(20_000):
            images = random.integers(0, 60, 60)
            means[at] += part[draws[at]][:, images].mean() / 2
    low, high = np.quantile(means, (0.025, 0.975))
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.006)


def test_draws_that_differ_widen_the_interval() -> None:
    same = np.tile(np.arange(400) < 200, (4, 1)).astype(float)
    apart = np.stack([np.arange(400) < count for count in (100, 180, 220, 300)]).astype(float)
    narrow, wide = (interval_over_draws([part], 4000, 0) for part in (same, apart))
    # Alone, 400 images of which half are right: 0.5 +- 1.96 * 0.5 / 20.
    assert (narrow.low, narrow.high) == pytest.approx((0.451, 0.549), abs=0.006)
    assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)
