"""Figures show what the tables say, are readable, and come out the same every time."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from matplotlib.collections import PathCollection, QuadMesh
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text

from taskgrid import plugins
from taskgrid.errors import ArtifactError, ConfigError
from taskgrid.plots import style
from taskgrid.plots.render import draw_figure, read_tables, write_figure
from taskgrid.plots.sheet import PAGE, Sheet
from taskgrid.plugins.cards import figure_card
from taskgrid.store.tables import write_table
from tests.unit.example_tables import Example, all_subsets, example, interpolated, task_names
from tests.unit.plots.readable import overlapping

FIGURES = plugins.names("figure")

cached = cache(example)


@pytest.fixture(scope="module")
def five() -> Example:
    return example(tasks=5)


def lines(figure: Figure) -> dict[tuple[int, str], tuple[np.ndarray, np.ndarray]]:
    """Return every labelled line: (number of its axes, label) -> (x, y)."""
    return {
        (place, str(line.get_label())): (np.asarray(line.get_xdata()), np.asarray(line.get_ydata()))
        for place, axes in enumerate(figure.axes)
        for line in axes.lines
    }


def cells(figure: Figure) -> list[np.ndarray]:
    """Return the matrices drawn, blank cells as NaN (colour bars left out)."""
    meshes = [
        collection
        for axes in figure.axes
        for collection in axes.collections
        if isinstance(collection, QuadMesh) and axes.get_label() != "<colorbar>"
    ]
    return [np.ma.filled(mesh.get_array().astype(float), np.nan) for mesh in meshes]


def texts(figure: Figure) -> list[str]:
    figure.draw_without_rendering()
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def legend_of(figure: Figure) -> list[tuple[Text, Line2D]]:
    (legend,) = figure.legends
    return list(zip(legend.get_texts(), legend.get_lines(), strict=True))


def test_every_figure_says_what_it_is(five: Example) -> None:
    for name in FIGURES:
        card = figure_card(name)
        assert card == plugins.load("figure", name).CARD
        assert card.title and card.category
        assert set(card.tables) <= set(five.tables())
        # One paragraph of words that names its split, or says that there is none.
        assert "\n" not in card.caption and len(card.caption) > 100
        assert any(word in card.caption for word in ("**validation**", "**test**", "no data split"))


def test_cards_are_read_without_matplotlib() -> None:
    code = (
        "import sys; from taskgrid import plugins; from taskgrid.plugins.cards import figure_card\n"
        "[figure_card(name) for name in plugins.names('figure')]\n"
        "heavy = {'matplotlib', 'seaborn', 'pandas', 'numpy', 'torch'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=environment())


def test_drawing_needs_no_torch() -> None:
    code = (
        "import sys; from taskgrid import plugins\n"
        "[plugins.load('figure', name) for name in plugins.names('figure')]\n"
        "assert 'torch' not in sys.modules and 'mlflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=environment())


def test_unknown_figure_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="unknown figure 'piechart'; there are: lambda_curve"):
        figure_card("piechart")


def test_missing_table_is_named() -> None:
    with pytest.raises(ArtifactError, match="figure 'cosine' needs the table 'conflicts'"):
        draw_figure("cosine", {})


def test_lambda_curves_go_from_zero_shot_to_the_experts(five: Example) -> None:
    figure = draw_figure("lambda_curve", five.tables())
    titles = [axes.get_title() for axes in figure.axes]
    place = titles.index("task arithmetic")
    drawn = lines(figure)
    (zero,) = set(np.asarray(drawn[place, "zero-shot"][1]))
    (own,) = set(np.asarray(drawn[place, "experts"][1]))
    rows = five.grid.query("method == 'task_arithmetic' and split == 'val' and in_subset")
    for size in (1, 2, 5):
        x, y = drawn[place, f"size {size}"]
        means = rows[rows["size"] == size].groupby(["scale", "seed", "subset"])["accuracy"].mean()
        expected = 100 * means.groupby("scale").mean()
        assert np.allclose(x, expected.index)
        assert np.allclose(y, expected)
        assert x[0] == 0 and y[0] == pytest.approx(zero)
    x, y = drawn[place, "size 1"]
    assert x[-1] == 1 and y[-1] == pytest.approx(own)
    measured = five.grid.query("method == 'zeroshot' and split == 'val'")["accuracy"].mean()
    assert zero == pytest.approx(100 * measured)
    alone = five.grid.query("method == 'expert' and split == 'val' and subset == task")
    assert own == pytest.approx(100 * alone["accuracy"].mean())


def test_lambda_curve_tells_interpolated_points_apart(five: Example) -> None:
    given = interpolated(five, bound=0.02)
    figure = draw_figure("lambda_curve", given.tables())
    place = [axes.get_title() for axes in figure.axes].index("task arithmetic")
    rows = given.grid.query("method == 'task_arithmetic' and split == 'val' and in_subset")
    wide = next(c for c in figure.axes[place].collections if c.get_label() == "bounds, size 2")
    ends = np.array(wide.get_segments())
    hollow: dict[float, tuple[float, float]] = {}
    for text, here in rows[rows["size"] == 2].groupby("scale"):
        if here["interpolated"].any():
            low = here["accuracy"] - here["bound"].fillna(0)
            high = here["accuracy"] + here["bound"].fillna(0)
            by = [here["seed"], here["subset"]]
            hollow[float(text)] = tuple(
                100 * np.mean(end.groupby(by).mean()) for end in (low, high)
            )
    x, _ = lines(figure)[place, "interpolated, size 2"]
    assert np.allclose(x, list(hollow)) and 0 < len(hollow) < rows["scale"].nunique()
    assert np.allclose(ends[:, :, 1], list(hollow.values()))
    # The largest merge is measured where its lambda was chosen.
    chosen = set(given.selected.query("method == 'task_arithmetic' and size == 5")["scale"])
    x, _ = lines(figure)[place, "interpolated, size 5"]
    assert len(chosen) == 1 and float(chosen.pop()) not in x
    words = {"measured", "interpolated, with its bound"}
    assert words <= set(texts(figure)) and overlapping(figure) == []
    plain = draw_figure("lambda_curve", five.tables())
    assert not words & set(texts(plain))
    assert not any("interpolated" in label for _, label in lines(plain))


def test_lambda_curve_of_a_fine_sweep_marks_the_measured_points() -> None:
    fine = tuple(f"{step / 50:.2f}" for step in range(51))
    given = example(tasks=2, methods=("task_arithmetic",), seeds=(0,), lambdas=fine, steps=5)
    figure = draw_figure("lambda_curve", interpolated(given, every=10).tables())
    drawn = lines(figure)
    assert drawn[0, "size 2"][0].size == 51
    (chosen,) = given.selected.query("size == 2")["scale"]
    assert set(drawn[0, "measured, size 2"][0]) == {0, 0.2, 0.4, 0.6, 0.8, 1, float(chosen)}
    assert not any(
        "measured" in label for _, label in lines(draw_figure("lambda_curve", given.tables()))
    )


def test_lambda_curve_strip_counts_chosen_lambdas(five: Example) -> None:
    figure = draw_figure("lambda_curve", five.tables())
    titles = [axes.get_title() for axes in figure.axes]
    strip = figure.axes[titles.index("task arithmetic") + 2]
    dots = {dot.get_label(): dot for dot in strip.collections if isinstance(dot, PathCollection)}
    chosen = five.selected.query("method == 'task_arithmetic' and size == 2")["scale"]
    shares = chosen.value_counts(normalize=True).sort_index()
    pair = dots["chosen, size 2"]
    assert np.allclose(pair.get_offsets()[:, 0], shares.index)
    # The legend's dots say how large a share is.
    legend = {text.get_text(): mark for text, mark in legend_of(figure)}
    areas = [
        legend[f"chosen for {share} % of subsets"].get_markersize() ** 2 for share in (20, 100)
    ]
    slope = (areas[1] - areas[0]) / 0.8
    assert np.allclose(pair.get_sizes(), areas[0] + slope * (shares - 0.2))


def test_subset_size_draws_every_subset_with_its_interval_and_the_mean(five: Example) -> None:
    figure = draw_figure("subset_size", five.tables())
    rows = five.selected.query("method == 'average'").groupby(["size", "subset"])
    points = rows.agg(
        mean=("test_normalized", "mean"),
        low=("test_normalized_low", "min"),
        high=("test_normalized_high", "max"),
        at_edge=("at_edge", "any"),
    )
    drawn = lines(figure)
    assert 0 < points["at_edge"].sum() < len(points)
    for at_edge, words in ((False, "subsets"), (True, "at the edge")):
        own = points[points["at_edge"] == at_edge]
        x, y = drawn[0, f"average: {words}"]
        assert np.allclose(y, 100 * own["mean"])
        assert np.all(np.abs(x - own.index.get_level_values("size")) < 0.3)
    marks = {line.get_label(): line for line in figure.axes[0].lines}
    assert marks["average: at the edge"].get_markerfacecolor() == "white"
    assert marks["average: subsets"].get_markerfacecolor() != "white"
    bars = [np.array(each.get_segments()) for each in figure.axes[0].collections]
    ends = 100 * points[["low", "high"]].to_numpy()
    assert any(len(bar) == len(ends) and np.allclose(bar[:, :, 1], ends) for bar in bars)
    x, y = drawn[0, "average: mean"]
    assert np.allclose(y, 100 * points["mean"].groupby("size").mean())
    assert np.allclose(np.round(x), [1, 2, 3, 4, 5])
    zero = five.grid.query("method == 'zeroshot' and split == 'test'").set_index("task")["accuracy"]
    own = five.grid.query("method == 'expert' and split == 'test' and subset == task")
    level = 100 * (zero / own.groupby("task")["accuracy"].mean()).mean()
    assert np.allclose(drawn[0, "zero-shot"][1], level)


def test_heatmap_cells_are_the_scores_at_the_chosen_lambda(five: Example) -> None:
    figure = draw_figure("heatmap", five.tables())
    zero, *matrix = cells(figure)[1]
    tasks = sorted(task_names(5))
    rows = five.grid[five.grid["split"] == "test"]
    base = rows[rows["method"] == "zeroshot"].set_index("task")["accuracy"]
    own = rows[(rows["method"] == "expert") & (rows["subset"] == rows["task"])]
    assert np.allclose(zero[:5], 100 * (base / own.groupby("task")["accuracy"].mean())[tasks])
    subsets = sorted(all_subsets(tasks), key=lambda subset: (len(subset), subset))
    assert np.shape(matrix) == (31, 6)
    rows = rows[rows["method"] == "task_arithmetic"]
    chosen = five.selected.query("method == 'task_arithmetic'").set_index(["seed", "subset"])
    scores = rows.set_index(["seed", "subset", "point", "task"])["normalized_accuracy"]
    named = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert named[0] == "zero-shot" and named[-1] == "all"
    for row in (5, 12, 22, 29):
        name = "+".join(subsets[row])
        others = ", ".join(task for task in tasks if task not in subsets[row])
        few = len(subsets[row]) < 3
        assert named[row + 1] == (", ".join(subsets[row]) if few else f"all but {others}")
        for column, task in enumerate(tasks):
            if task not in subsets[row]:
                assert np.isnan(matrix[row][column])
                continue
            both = [scores[seed, name, chosen["point"][seed, name], task] for seed in (0, 1)]
            assert matrix[row][column] == pytest.approx(100 * np.mean(both))
        assert matrix[row][5] == pytest.approx(np.nanmean(matrix[row][:5]))
    scales = sorted({chosen["scale"][seed, "+".join(subsets[-1])] for seed in (0, 1)})
    said = "–".join(f"{scale:g}" for scale in scales)
    assert said in [text.get_text() for text in figure.axes[1].texts]


def test_heatmap_prints_no_hundred_for_a_merge_that_is_its_expert(five: Example) -> None:
    alone = five.grid["size"] == 1
    scores = five.grid["normalized_accuracy"].where(~alone, 1.0)
    same = {**five.tables(), "grid": five.grid.assign(normalized_accuracy=scores)}
    # Where all merges of one task are their experts they have no rows.
    assert {len(matrix) for matrix in cells(draw_figure("heatmap", same))} == {1 + 26}
    scores = scores.where(~alone | (five.grid["method"] != "average"), 0.97)
    apart = {**five.tables(), "grid": five.grid.assign(normalized_accuracy=scores)}
    first, second = draw_figure("heatmap", apart).axes[:2]
    for axes, equal in ((first, 0), (second, 5)):
        said = [text.get_text() for text in axes.texts]
        assert said.count("=") == equal and not {"100", "100.0"} & set(said)


def test_heatmap_numbers_tasks_whose_names_are_too_long(five: Example) -> None:
    figure = draw_figure("heatmap", five.tables(), Sheet("page", task_names(5)))
    assert "digits, glyphs" in texts(figure)
    long = {task: f"a_rather_long_name_of_{task}" for task in task_names(5)}
    grid, selected = (
        table.assign(subset=[renamed(name, long) for name in table["subset"]])
        for table in (five.grid, five.selected)
    )
    tables = {"grid": grid.assign(task=grid["task"].map(long)), "selected": selected}
    said = texts(draw_figure("heatmap", tables, Sheet("page", tuple(long.values()))))
    assert {"1 2", "all but 5", f"1 {style.label(long['digits'])}"} <= set(said)


def renamed(subset: str, names: dict[str, str]) -> str:
    return "+".join(sorted(names[task] for task in subset.split("+"))) if subset else subset


def test_heatmap_of_many_subsets_is_by_size() -> None:
    many = example(tasks=8, seeds=(0,), methods=("task_arithmetic",), lambdas=("0.20", "0.40"))
    figure = draw_figure("heatmap", many.tables())
    (matrix,) = cells(figure)
    assert matrix.shape == (9, 9)
    rows = many.grid.query("method == 'task_arithmetic' and split == 'test' and in_subset")
    rows = rows.merge(many.selected[["subset", "point"]], on=["subset", "point"])
    means = rows.groupby(["size", "task"])["normalized_accuracy"].mean().unstack()
    assert np.allclose(matrix[1:, :8], 100 * means)
    assert {"2 tasks", "0.4"} <= set(texts(figure))


def test_cross_evaluation_shows_levels_and_changes_from_zero_shot(five: Example) -> None:
    figure = draw_figure("cross_evaluation", five.tables())
    level, change = cells(figure)
    tasks = sorted(task_names(5))
    rows = five.grid[five.grid["split"] == "test"]
    zero = rows[rows["method"] == "zeroshot"].set_index("task")["accuracy"]
    assert np.allclose(level[0], 100 * zero[tasks])
    experts = (
        rows[rows["method"] == "expert"].groupby(["subset", "task"])["accuracy"].mean().unstack()
    )
    assert np.allclose(level[1:], 100 * experts.loc[tasks, tasks])
    assert np.all(np.isnan(change[0])) and np.allclose(change[1:], level[1:] - level[0])
    said = texts(figure)
    assert {"zero-shot", *tasks} <= set(said)
    # The colours of changes tell those of other tasks apart, and do as much up as down.
    low, high = figure.axes[1].collections[0].get_clim()
    others = np.abs(change[1:][~np.eye(5, dtype=bool)]).max()
    assert low == -high and others <= high < others + 5
    assert any(text.startswith("+") for text in said)
    assert any(text.startswith("\N{MINUS SIGN}") for text in said)


def test_cosines_of_every_pair_stand_once(five: Example) -> None:
    (matrix,) = cells(draw_figure("cosine", five.tables()))
    whole = five.conflicts[five.conflicts["layer"] == "all"]
    upper = whole.groupby(["task_a", "task_b"])["cosine"].mean().unstack()
    below = np.tri(5, k=-1, dtype=bool)
    assert np.allclose(matrix[below[1:, :-1]], upper.T.to_numpy()[below])
    assert np.isfinite(matrix).sum() == 10


@pytest.mark.parametrize(
    ("cosine", "printed"),
    [(-1e-9, "0.0000"), (-0.0123, "\N{MINUS SIGN}0.012"), (0.456, "0.46")],
)
def test_cosines_are_printed_with_decimals_that_show_something(
    cosine: float, printed: str, five: Example
) -> None:
    said = texts(draw_figure("cosine", {"conflicts": five.conflicts.assign(cosine=cosine)}))
    assert said.count(printed) == 10 and not any("-" in text for text in said)


def test_conflicts_draw_every_pair_its_median_and_the_extremes(five: Example) -> None:
    figure = draw_figure("conflicts", five.tables())
    table = five.conflicts[five.conflicts["task_a"] != five.conflicts["task_b"]]
    layers = table[table["layer"] != "all"]
    factors = {"cosine": 1, "sign_agreement": 100, "overlap": 100}
    for axes, (column, factor) in zip(figure.axes, factors.items(), strict=False):
        wanted = layers.pivot_table(index="depth", columns=["task_a", "task_b"], values=column)
        drawn = [np.asarray(line.get_ydata()) for line in axes.lines if len(line.get_xdata()) > 2]
        assert len(drawn) == 10 + 2 + 1
        for values in (*wanted.to_numpy().T, wanted.median(axis=1)):
            assert any(np.allclose(factor * values, line) for line in drawn), column
    whole = table[table["layer"] == "all"].groupby(["task_a", "task_b"])["cosine"].mean()
    for said, pair in (("most", whole.idxmax()), ("least", whole.idxmin())):
        assert f"{said} alike: {' and '.join(sorted(pair))}" in texts(figure)
    assert {"embedding", "block 0", "output"} <= set(texts(figure))


def test_the_ratio_of_norms_does_not_depend_on_which_is_first(five: Example) -> None:
    table = five.conflicts
    other = table.assign(norm_ratio=1 / table["norm_ratio"])
    heights = [
        [line.get_ydata() for line in draw_figure("conflicts", {"conflicts": each}).axes[3].lines]
        for each in (table, other)
    ]
    for one, mirrored in zip(*heights, strict=True):
        np.testing.assert_allclose(one, mirrored)
        assert np.min(one) >= 1


def test_training_draws_each_task_and_a_shared_schedule_once(five: Example) -> None:
    figure = draw_figure("training", five.tables())
    loss, accuracy, rate = figure.axes
    assert len(loss.lines) == len(accuracy.lines) == 5 and len(rate.lines) == 1
    rows = five.history.query("task == 'signs' and metric == 'val/accuracy'")
    expected = rows.groupby("step")["value"].mean()
    x, y = lines(figure)[1, "signs"]
    assert np.allclose(x, expected.index)
    assert np.allclose(y, 100 * expected)
    rows = five.history.query("task == 'signs' and metric == 'train/loss'")
    seeds = rows.pivot_table(index="step", columns="seed", values="value")
    smooth = seeds.rolling(10, center=True, min_periods=1).median().mean(axis=1)
    assert np.allclose(lines(figure)[0, "signs"][1], smooth)
    other = (five.history["metric"] == "train/lr") & (five.history["task"] == "signs")
    history = five.history.assign(value=five.history["value"].where(~other, 0.5))
    rates = draw_figure("training", {"history": history}).axes[2].lines
    names = sorted(task_names(5))
    alike = " = ".join(name for name in names if name != "signs")
    assert {line.get_label() for line in rates} == {alike, "signs"}


def test_published_numbers_stand_beside_the_run(five: Example) -> None:
    figure = draw_figure("published", five.tables())
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["zero-shot", "experts", "average", "task arithmetic"]
    drawn = lines(figure)
    rows = five.published.query("method == 'expert' and task == 'signs'")
    place = titles.index("experts")
    x, _ = drawn[place, "run: signs"]
    assert np.allclose(x, 100 * rows.drop_duplicates("seed")["run"].mean())
    x, _ = drawn[place, "paper: signs"]  # two sources, once each whatever the seeds
    paper = rows[rows["lineage"] == "paper"]["published"]
    assert np.allclose(x, 100 * np.sort(paper.unique()))
    # Tasks by name from top to bottom, the mean last; each row holds its own marks.
    ticks = figure.axes[0].get_yticklabels()
    assert [text.get_text() for text in ticks] == [*sorted(task_names(5)), "mean of 5"]
    _, y = drawn[place, "tall_masks: mean of 5"]
    assert np.all(np.abs(y - 5) < 0.5)
    # The planted lineage problem is ringed, and nothing else.
    rings = {key for key, (x, _) in drawn.items() if "problem" in key[1] and len(x)}
    assert rings == {(0, f"problem: {sorted(task_names(5))[0]}")}
    calm = five.published.assign(problem=False)
    assert "lineage problem" in texts(figure)
    assert "lineage problem" not in texts(draw_figure("published", {"published": calm}))


def test_published_numbers_of_other_tasks_or_lambdas_have_panels_of_their_own() -> None:
    table = example(tasks=3, seeds=(0,), lambdas=("0.00", "1.00"), steps=5).published
    merged = table[(table["method"] == "average") & (table["lineage"] == "paper")]
    smaller = merged[merged["task"] != "signs"].assign(subset="digits+glyphs", run=0.5)
    fixed = merged.assign(lambda_rule="0.30", run=0.25)
    unstated = merged.assign(lambda_rule="unstated", published=0.75)
    both = pd.concat([table, smaller, fixed, unstated], ignore_index=True)
    figure = draw_figure("published", {"published": both})
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    wanted = ["average\n2 tasks", "average\n3 tasks", "average\n3 tasks, λ = 0.30"]
    assert titles[2:5] == wanted
    # Each holds one number of the run per task; how a source chose lambda may be unknown.
    drawn = lines(figure)
    assert drawn[2, "run: digits"][0] == 50 and drawn[4, "run: digits"][0] == 25
    own = merged.loc[merged["task"] == "digits", "run"].iloc[0]
    assert drawn[3, "run: digits"][0] == pytest.approx(100 * own)
    assert 75 in drawn[3, "paper: digits"][0]
    names = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert names[-2:] == ["mean of 2", "mean of 3"]
    assert overlapping(figure) == []


def test_published_numbers_of_zero_shot_alone_are_drawn(five: Example) -> None:
    alone = five.published.query("method == 'zeroshot'")
    figure = draw_figure("published", {"published": alone})
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["zero-shot"]


def test_shapley_draws_values_intervals_and_gains_alone(five: Example) -> None:
    figure = draw_figure("shapley", five.tables())
    mean = (
        five.values[five.values["method"] == "task_arithmetic"]
        .groupby("task")
        .mean(numeric_only=True)
    )
    order = sorted(task_names(5))
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == order
    for label, column in (("values", "value"), ("alone", "alone")):
        x, y = lines(figure)[0, f"task arithmetic: {label}"]
        assert np.allclose(x, 100 * mean.loc[order, column])
        assert np.allclose(np.round(y), range(5)) and axes.yaxis_inverted()
    spans = five.values[five.values["method"] == "task_arithmetic"].groupby("task")
    bars = [np.array(each.get_segments()) for each in axes.collections]
    low, high = spans["low"].min()[order], spans["high"].max()[order]
    assert any(np.allclose(bar[:, :, 0], 100 * np.stack([low, high], axis=1)) for bar in bars)


def test_negation_draws_targets_and_control_from_zero_shot_to_negated(five: Example) -> None:
    figure = draw_figure("negation", five.tables())
    rows = five.targets[five.targets["method"] == "task_arithmetic"]
    mean = rows.groupby("task").mean(numeric_only=True)
    order = sorted(task_names(5))
    left, right = figure.axes
    assert [label.get_text() for label in left.get_yticklabels()] == order
    assert left.yaxis_inverted() and not any(t.get_text() for t in right.get_yticklabels())
    assert np.allclose(lines(figure)[1, "to be kept"][0], 95 * 0.62)
    met = [task for task in order if rows[rows["task"] == task]["met"].all()]
    unmet = [task for task in order if task not in met]
    assert len(unmet) == 1
    for place, prefix in ((0, ""), (1, "control_")):
        for label, column, tasks in (
            ("zero-shot", "zeroshot", order),
            ("chosen", "accuracy", met),
            ("not met", "accuracy", unmet),
        ):
            x, y = lines(figure)[place, f"task arithmetic: {label}"]
            assert np.allclose(x, 100 * mean.loc[tasks, prefix + column])
            assert np.allclose(np.round(y), [order.index(task) for task in tasks])
    bars = [np.array(each.get_segments()) for each in left.collections]
    spans = rows.groupby("task")
    ends = [mean["zeroshot"] - spans["high"].max(), mean["zeroshot"] - spans["low"].min()]
    span = 100 * np.stack([end[order] for end in ends], axis=1)
    assert any(np.allclose(bar[:, :, 0], span) for bar in bars)


def test_analogy_draws_gains_beside_the_experts_that_there_are(five: Example) -> None:
    figure = draw_figure("analogy", five.tables())
    rows = five.quadruples[five.quadruples["method"] == "task_arithmetic"]
    mean = rows.groupby("task").mean(numeric_only=True)
    order = sorted(set(five.quadruples["task"]))
    (axes,) = figure.axes
    named = [label.get_text().split(" : ")[-1] for label in axes.get_yticklabels()]
    assert named == [style.label(task) for task in order]
    assert any(" : " in text and "\n:: " in text for text in texts(figure))
    met = [task for task in order if rows[rows["task"] == task]["met"].all()]
    drawn = lines(figure)
    assert sorted(drawn[0, "task arithmetic: zero-shot"][0]) == sorted(100 * mean["zeroshot"])
    assert len(met) == 3
    assert np.allclose(
        sorted(drawn[0, "task arithmetic: chosen"][0]), sorted(100 * mean.loc[met, "accuracy"])
    )
    assert np.allclose(sorted(drawn[0, "best of A, B, C"][0]), sorted(100 * mean["others"]))
    assert len(drawn[0, "expert of D"][0]) == 3
    without = five.quadruples.assign(expert=None)
    alone = draw_figure("analogy", {"analogy/quadruples": without})
    assert "expert of D" not in texts(alone)


def test_methods_are_sorted_and_tell_who_is_tied_and_who_keeps_more() -> None:
    names = ("task_arithmetic", "average", "ties", "tsv_m", "emr")
    given = cached(tasks=3, methods=names, seeds=(0,), lambdas=("0.50", "1.00"), steps=5)
    compared = given.compared.assign(accuracy=[0.5, 0.7, 0.6, 0.9, 0.8])
    figure = draw_figure("methods", {**given.tables(), "comparison/methods": compared})
    forest, seconds, kept = figure.axes
    drawn = [label.get_text() for label in forest.get_yticklabels()]
    assert drawn == ["tsv m", "emr ‡", "average", "ties", "task arithmetic"]
    marks = [line for line in forest.lines if line.get_marker() not in ("", "None", None)]
    assert [line.get_xdata()[0] for line in marks] == pytest.approx([90, 80, 70, 60, 50])
    # The fourth and the first are tied with the best.
    assert [line.get_markerfacecolor() != "white" for line in marks] == [
        True,
        False,
        False,
        False,
        True,
    ]
    # Weights alone, unlabelled images, labelled ones.
    assert [line.get_marker() for line in marks] == ["o", "s", "s", "^", "o"]
    # Of the fourth nobody knows the seconds.
    assert len(seconds.lines) == 4 and len(kept.lines) == 5
    # Nothing that is as cheap is better than these; what is named twice is not named for being dear.
    assert {"task arithmetic", "average", "emr ‡"} == {text.get_text() for text in seconds.texts}
    assert {"tsv m"} == {text.get_text() for text in kept.texts}


def test_maps_are_those_of_the_first_image_of_the_smallest_seed(five: Example) -> None:
    figure = draw_figure("feature_maps", five.tables())
    norms = five.watched["norms"].query(
        "part == 'block' and layer == 'block 1' and token > 0 and seed == 0"
    )
    grids = [axes.images[0].get_array() for axes in figure.axes]
    # An image, the base, the expert and two merges for each task.
    assert len(grids) == 5 * 5 and grids[0].shape == (4, 4, 3)
    task = norms[norms["task"] == sorted(task_names(5))[1]]
    for place, (method, column) in enumerate(
        [("expert", "sample_base"), ("expert", "sample_delta"), ("average", "sample_delta")]
    ):
        wanted = task[task["method"] == method].sort_values("token")[column].to_numpy()
        assert np.array_equal(grids[5 + 1 + place].ravel(), wanted), column
    # Differences in a row share one scale.
    assert len({axes.images[0].get_clim() for axes in figure.axes[7:10]}) == 1


def test_a_merge_that_a_row_lacks_leaves_its_column_empty(five: Example) -> None:
    norms = five.watched["norms"]
    task = sorted(task_names(5))[1]
    lacking = norms[(norms["task"] != task) | (norms["method"] != "average")]
    figure = draw_figure("feature_maps", {**five.tables(), "features/norms": lacking})
    second = figure.axes[5:10]
    assert [axes.get_title().split() for axes in figure.axes[3:5]] == [
        ["average"],
        ["task", "arithmetic"],
    ]
    assert [len(axes.images) for axes in second] == [1, 1, 1, 0, 1]
    whole = draw_figure("feature_maps", five.tables()).axes[9]
    assert np.array_equal(second[4].images[0].get_array(), whole.images[0].get_array())


def test_depth_draws_shares_of_the_bases_norm(five: Example) -> None:
    figure = draw_figure("feature_depth", five.tables())
    rows = five.watched["norms"].query("token == 0 and part == 'block' and method == 'average'")
    shares = 100 * rows["norm_delta"] / rows["norm_base"]
    wanted = shares.groupby(rows["depth"]).mean()
    drawn = [np.asarray(line.get_ydata()) for line in figure.axes[5].lines]
    assert any(np.allclose(line, wanted) for line in drawn if len(line) == 4)
    assert {len(line) for line in drawn} == {4} and len(drawn) == 3


def test_points_that_no_study_chose_are_not_drawn(five: Example) -> None:
    more = {
        name: pd.concat(
            [table, table.assign(point="0.90", chosen=False, norm_delta=99.0, l1=99.0, cka=0.0)]
        )
        for name, table in five.watched.items()
        if "chosen" in table
    }
    for name in ("feature_depth", "feature_maps", "representation_bias", "feature_similarity"):
        added = five.tables() | {f"features/{table}": frame for table, frame in more.items()}
        one, other = (texts(draw_figure(name, tables)) for tables in (five.tables(), added))
        assert one == other, name


def test_similarity_is_half_a_matrix_of_each_layer(five: Example) -> None:
    found = cells(draw_figure("feature_similarity", five.tables()))
    assert len(found) == 3
    for depth, matrix in enumerate(found, start=1):
        # Base, expert, average, task arithmetic: the last two are the other way round in the table.
        places = np.array([0, 1, 3, 2])
        whole = 1 - 0.04 * depth * np.abs(places[:, None] - places)
        below = np.tri(4, k=-1, dtype=bool)
        assert np.allclose(matrix[below[1:, :-1]], whole[below]) and np.isfinite(matrix).sum() == 6


def test_bias_is_drawn_with_what_is_left(five: Example) -> None:
    (axes,) = draw_figure("representation_bias", five.tables()).axes
    rows = five.watched["bias"].query("method == 'task_arithmetic'")
    means = [float(line.get_xdata()[0]) for line in axes.lines if len(line.get_xdata()) == 1]
    # The base and two merges, and what the one that mends features leaves.
    assert len(means) == 4
    for column in ("l1", "l1_left"):
        assert any(np.isclose(rows[column].mean(), mean) for mean in means), column


def test_weights_are_drawn_over_lambda(five: Example) -> None:
    moved, long = draw_figure("weight_norms", five.tables()).axes
    curves = [np.asarray(line.get_ydata()) for line in moved.lines]
    assert len(curves) == 5 + 2 and any(np.allclose(curve, [0, 3, 6]) for curve in curves)
    assert all(np.isclose(line.get_ydata()[0], 100) for line in long.lines)


def test_transfer_draws_curves_over_images_and_what_sees_none_across(five: Example) -> None:
    figure = draw_figure("transfer", five.tables())
    rows, drawn = five.curves, lines(figure)
    for place, coefficient in enumerate(("one", "chosen")):
        own = rows[rows["coefficient"] == coefficient]
        for aligner, title in (("orthogonal", "orthogonal"), ("few_shot", "few-shot")):
            x, y = drawn[place, f"{title}: curve"]
            mean = own[own["aligner"] == aligner].groupby("images")["accuracy"].mean()
            assert np.allclose(y, 100 * mean)
            # Lines stand side by side, near the number that they are at.
            assert np.allclose(x / mean.index, x[0] / mean.index[0]) and np.all(
                np.abs(np.log(x / mean.index)) < 0.2
            )
        direct = own[own["aligner"] == "none"]["accuracy"].mean()
        assert np.allclose(drawn[place, "direct: across"][1], 100 * direct)
        assert np.allclose(drawn[place, "experts"][1], 100 * own["ceiling"].mean())
    bars = [np.array(each.get_segments()) for each in figure.axes[0].collections[:3]]
    one = rows[(rows["coefficient"] == "one") & (rows["aligner"] == "orthogonal")]
    ends = one.groupby("images").agg(low=("accuracy_low", "min"), high=("accuracy_high", "max"))
    assert any(np.allclose(bar[:, :, 1], 100 * ends) for bar in bars if len(bar) == 4)


def test_barriers_are_sorted_beside_the_paths_that_they_are_the_height_of(five: Example) -> None:
    figure = draw_figure("barriers", five.tables())
    left, right = figure.axes
    means = five.joined.groupby("subset")["barrier"].mean().sort_values(ascending=False)
    order = list(means.index)
    named = [label.get_text() for label in right.get_yticklabels()]
    assert named == [subset.replace("+", " + ") for subset in order]
    assert right.yaxis_inverted() and not left.yaxis_inverted()
    own = five.joined[five.joined["method"] == "task_arithmetic"].groupby("subset")
    x, y = lines(figure)[1, "task arithmetic"]
    assert np.allclose(x, 100 * own["barrier"].mean()[order])
    assert np.allclose(np.round(y), range(10))
    ends = np.stack([own[end].agg(how)[order] for end, how in (("low", "min"), ("high", "max"))])
    bars = [np.array(each.get_segments()) for each in right.collections]
    assert any(np.allclose(bar[:, :, 0], 100 * ends.T) for bar in bars)
    # Ten pairs of two methods, both means, and the line that they lie over.
    assert len(left.lines) == 2 * 11 + 1
    rows = five.paths[five.paths["method"] == "task_arithmetic"]
    x, y = lines(figure)[0, "task arithmetic"]
    assert np.allclose(y, 100 * rows.groupby("t")["excess"].mean()) and x[0] == 0 and x[-1] == 1


def test_axes_say_what_they_measure(five: Example) -> None:
    wanted = {
        "lambda_curve": {
            style.LAMBDA_LABEL,
            "accuracy on validation [%]",
            "2 tasks",
            "chosen for 100 % of subsets",
            "experts",
        },
        "subset_size": {"tasks merged", "normalised accuracy on test [%]", "task arithmetic"},
        "heatmap": {"normalised accuracy on test [%]", "average", "task arithmetic", "chosen λ"},
        "cross_evaluation": {
            "accuracy on test [%]",
            "change from zero-shot [points]",
            "expert",
            "evaluated on",
        },
        "cosine": {"cosine similarity"},
        "conflicts": {"cosine", "equal signs [%]", "ratio of norms", "median of pairs"},
        "training": {"training step", "training loss [nats]", "learning rate", "signs"},
        "published": {"accuracy on test [%]", "zero-shot", "mean of 5", "this run", "tall masks"},
        "negation": {
            "target accuracy [%]",
            "control accuracy [%]",
            "zero-shot",
            "not met",
            "average",
        },
        "analogy": {"accuracy on D [%]", "best of A, B, C", "expert of D", "zero-shot", "not met"},
        "shapley": {"Shapley value on test [points]", "signs", "task arithmetic", "alone"},
        "methods": {"accuracy on test [%]", "seconds before λ", "average", "best or tied"},
        "feature_maps": {"image", "base", "expert", "average", "signs"},
        "feature_depth": {"queries [%]", "stream [%]", "expert", "task arithmetic", "block 1"},
        "feature_similarity": {"linear CKA", "base", "expert", "average", "output"},
        "representation_bias": {"distance from the expert's features", "zero-shot", "left"},
        "weight_norms": {
            "|θ − θ₀| by |θ₀| [%]",
            style.LAMBDA_LABEL,
            "a task vector",
            "average",
        },
        "transfer": {"accuracy on test [%]", "labelled images per task", "direct", "few-shot"},
        "barriers": {"barrier on test [points]", "task arithmetic", "digits + glyphs"},
    }
    assert tuple(wanted) == FIGURES
    for name, words in wanted.items():
        assert words <= set(texts(draw_figure(name, five.tables()))), name


@pytest.mark.parametrize("name", FIGURES)
def test_empty_tables_give_a_sentence(name: str, five: Example) -> None:
    empty = {table: frame.iloc[:0] for table, frame in five.tables().items()}
    (sentence,) = texts(draw_figure(name, empty))
    assert len(sentence.split()) > 4


def test_a_table_without_the_study_still_draws_curves(five: Example) -> None:
    tables = {**five.tables(), "selected": five.selected.assign(study="negation")}
    assert "none chosen yet" in texts(draw_figure("lambda_curve", tables))
    assert "no scaling coefficient was chosen yet" in texts(draw_figure("heatmap", tables))


def test_options_tell_one_method_apart() -> None:
    tables = example(
        tasks=2,
        methods=("ties",),
        options=('{"density": 0.1, "sign": "mass"}', '{"density": 0.2, "sign": "mass"}'),
        lambdas=("0.00", "1.00"),
        steps=5,
    ).tables()
    assert {"ties, density=0.1", "ties, density=0.2"} <= set(
        texts(draw_figure("subset_size", tables))
    )


def test_bytes_do_not_depend_on_process_hash_seed_or_row_order(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tests.unit.example_tables import example\n"
        "from taskgrid import plugins; from taskgrid.plots.render import write_figure\n"
        "from taskgrid.plots.sheet import PAGE\n"
        "out = Path(sys.argv[1]); tables = example(tasks=3, lambdas=('0.00', '1.00'), steps=9).tables()\n"
        "[write_figure(n, tables, PAGE, out / f'{n}.pdf', out / f'{n}.png') for n in plugins.names('figure')]"
    )
    env = environment() | {"PYTHONHASHSEED": "7"}
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a")], check=True, env=env)
    shuffled = {
        name: table.sample(frac=1, random_state=0).reset_index(drop=True)
        for name, table in cached(tasks=3, lambdas=("0.00", "1.00"), steps=9).tables().items()
    }
    for name in FIGURES:
        write_figure(name, shuffled, PAGE, tmp_path / f"b/{name}.pdf", tmp_path / f"b/{name}.png")
        for suffix in ("pdf", "png"):
            first, second = (tmp_path / side / f"{name}.{suffix}" for side in "ab")
            assert first.read_bytes() == second.read_bytes(), second.name


def test_pdf_embeds_truetype_and_no_date(five: Example, tmp_path: Path) -> None:
    write_figure("cosine", five.tables(), PAGE, tmp_path / "a.pdf", tmp_path / "a.png")
    data = (tmp_path / "a.pdf").read_bytes()
    assert b"/FontFile2" in data and b"/Type3" not in data
    assert b"CreationDate" not in data


def test_tables_are_read_with_their_labels(five: Example, tmp_path: Path) -> None:
    write_table(tmp_path / "grid.parquet", pa.Table.from_pandas(five.grid))
    listing: dict[str, list[dict[str, object]]] = {
        "grid": [{"labels": {}, "path": tmp_path / "grid.parquet"}],
        "history": [],
    }
    seeds = [{"model": "small-clip", "mode": "standard", "seed": seed} for seed in (0, 1)]
    for labels in seeds:
        part = five.history[five.history["seed"] == labels["seed"]]
        path = tmp_path / f"{labels['seed']}.csv"
        part[["task", "step", "metric", "value"]].to_csv(path, index=False)
        listing["history"].append({"labels": labels, "path": path})
    tables = read_tables(listing)
    pd.testing.assert_frame_equal(tables["grid"], five.grid.astype({"seed": "Int64"}))
    pd.testing.assert_frame_equal(
        tables["history"],
        five.history.sort_values("seed", kind="stable", ignore_index=True),
        check_like=True,
        check_dtype=False,
    )


def test_damaged_table_is_named(tmp_path: Path) -> None:
    (tmp_path / "grid.parquet").write_bytes(b"PAR1 but not really")
    for name, words in (("grid.parquet", "is damaged"), ("missing.csv", "is missing")):
        with pytest.raises(ArtifactError, match=f"{name} {words}"):
            read_tables({"grid": [{"labels": {}, "path": tmp_path / name}]})


def environment() -> dict[str, str]:
    here = Path(__file__).resolve()
    paths = [str(here.parents[3] / "src"), str(here.parents[3])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
