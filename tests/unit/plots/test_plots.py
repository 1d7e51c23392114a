"""Figures show what the tables say, are readable, and come out the same every time."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection, QuadMesh
from matplotlib.figure import Figure
from matplotlib.text import Text

from taskgrid import plugins
from taskgrid.errors import ArtifactError, ConfigError
from taskgrid.plots import style
from taskgrid.plots.pages import write_page
from taskgrid.plots.render import draw_figure, read_tables, write_figure
from taskgrid.plugins.cards import figure_card
from taskgrid.store.tables import write_table
from tests.unit.example_tables import Example, all_subsets, example, interpolated, task_names

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


def overlapping(figure: Figure) -> list[tuple[str, str]]:
    """Return the pairs of visible texts that overlap, and texts that leave the page."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # as when saving, square cells settle in a second pass
    canvas.draw()
    renderer = canvas.get_renderer()
    drawn = [
        text
        for text in figure.findobj(Text)
        if text.get_visible() and text.get_text().strip() and not hidden_tick(figure, text)
    ]
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in drawn]
    tilted = {place for place, text in enumerate(drawn) if text.get_rotation() % 90}
    page = figure.bbox
    outside = [
        (name, "page")
        for name, box in boxes
        if box.x0 < page.x0 - 1
        or box.y0 < page.y0 - 1
        or box.x1 > page.x1 + 1
        or box.y1 > page.y1 + 1
    ]
    crossing = [
        (one, other)
        for (i, (one, a)), (j, (other, b)) in itertools.combinations(enumerate(boxes), 2)
        if min(a.x1, b.x1) - max(a.x0, b.x0) > 1
        and min(a.y1, b.y1) - max(a.y0, b.y0) > 1
        # Parallel tilted labels share upright boxes; the distance between their lines counts.
        and not ({i, j} <= tilted and lines_apart(drawn[i], drawn[j]))
    ]
    return outside + crossing


def lines_apart(one: Text, other: Text) -> bool:
    """Return whether two equally tilted, right-aligned labels are a text height apart."""
    angle = np.deg2rad(one.get_rotation())
    shift = one.get_transform().transform(one.get_position()) - other.get_transform().transform(
        other.get_position()
    )
    distance = abs(shift[0] * np.sin(angle) - shift[1] * np.cos(angle))
    return bool(distance > one.get_fontsize() * one.get_figure().dpi / 72)


def hidden_tick(figure: Figure, text: Text) -> bool:
    """Return whether a text is a tick label outside the axis' limits, which is never drawn."""
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]:
                if text in (tick.label1, tick.label2):
                    slack = 1e-9 * max(abs(low), abs(high), 1.0)
                    return not low - slack <= tick.get_loc() <= high + slack
    return False


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


def test_lambda_curve_draws_medians_and_references(five: Example) -> None:
    figure = draw_figure("lambda_curve", five.tables())
    titles = [axes.get_title() for axes in figure.axes]
    place = titles.index("task arithmetic")
    drawn = lines(figure)
    for size in (1, 2, 5):
        x, y = drawn[place, f"size {size}"]
        expected = {}
        for text in five.grid.loc[five.grid["method"] == "task_arithmetic", "point"].unique():
            rows = five.grid.query("method == 'task_arithmetic' and split == 'val' and in_subset")
            rows = rows[(rows["size"] == size) & (rows["point"] == text)]
            expected[float(text)] = 100 * np.median(
                rows.groupby(["seed", "subset"])["accuracy"].mean()
            )
        assert np.allclose(x, list(expected))
        assert np.allclose(y, list(expected.values()))
    zero = five.grid.query("method == 'zeroshot' and split == 'val'")["accuracy"].mean()
    assert np.allclose(drawn[place, "zero-shot"][1], 100 * zero)
    own = five.grid.query("method == 'expert' and split == 'val' and subset == task")
    assert np.allclose(drawn[place, "experts"][1], 100 * own["accuracy"].mean())


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
                100 * np.median(end.groupby(by).mean()) for end in (low, high)
            )
    x, _ = lines(figure)[place, "interpolated, size 2"]
    assert np.allclose(x, list(hollow)) and 0 < len(hollow) < rows["scale"].nunique()
    assert np.allclose(ends[:, :, 1], list(hollow.values()))
    # The largest merge is measured where its lambda was chosen.
    chosen = set(given.selected.query("method == 'task_arithmetic' and size == 5")["scale"])
    x, _ = lines(figure)[place, "interpolated, size 5"]
    assert len(chosen) == 1 and float(chosen.pop()) not in x
    words = {"measured", "interpolated,\nwith its bound"}
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
    assert strip.get_title(loc="left") == "chosen λ"
    dots = {dot.get_label(): dot for dot in strip.collections if isinstance(dot, PathCollection)}
    chosen = five.selected.query("method == 'task_arithmetic' and size == 2")["scale"]
    shares = chosen.value_counts(normalize=True).sort_index()
    pair = dots["chosen, size 2"]
    assert np.allclose(pair.get_offsets()[:, 0], shares.index)
    assert np.allclose((pair.get_sizes() - 3) / 42, shares)


def test_subset_size_draws_every_subset_and_the_mean(five: Example) -> None:
    figure = draw_figure("subset_size", five.tables())
    axes = figure.axes[0]
    rows = five.selected.query("method == 'average'")
    per_subset = rows.groupby(["size", "subset"])["test_normalized"].mean()
    dots = next(c for c in axes.collections if c.get_label() == "average: subsets")
    assert np.allclose(dots.get_offsets()[:, 1], 100 * per_subset)
    assert np.all(np.abs(dots.get_offsets()[:, 0] - per_subset.index.get_level_values(0)) < 0.5)
    x, y = lines(figure)[0, "average: mean"]
    assert np.allclose(y, 100 * per_subset.groupby("size").mean())
    assert np.allclose(np.round(x), [1, 2, 3, 4, 5])
    zero = five.grid.query("method == 'zeroshot' and split == 'test'").set_index("task")["accuracy"]
    own = five.grid.query("method == 'expert' and split == 'test' and subset == task")
    level = 100 * (zero / own.groupby("task")["accuracy"].mean()).mean()
    assert np.allclose(lines(figure)[0, "zero-shot"][1], level)


def test_heatmap_cells_are_the_scores_at_the_chosen_lambda(five: Example) -> None:
    matrix = cells(draw_figure("heatmap", five.tables()))[1]
    tasks = sorted(task_names(5))
    subsets = sorted(all_subsets(tasks), key=lambda subset: (len(subset), "+".join(subset)))
    assert matrix.shape == (31, 6)
    chosen = five.selected.query("method == 'task_arithmetic'").set_index(["seed", "subset"])[
        "point"
    ]
    rows = five.grid.query("method == 'task_arithmetic' and split == 'test'")
    rows = rows.set_index(["seed", "subset", "point", "task"])["normalized_accuracy"]
    for row in (0, 7, 17, 30):
        name = "+".join(subsets[row])
        for column, task in enumerate(tasks):
            if task not in subsets[row]:
                assert np.isnan(matrix[row, column])
                continue
            scores = [rows[seed, name, chosen[seed, name], task] for seed in (0, 1)]
            assert matrix[row, column] == pytest.approx(100 * np.mean(scores))
        assert matrix[row, 5] == pytest.approx(np.nanmean(matrix[row, :5]))


def test_heatmap_of_many_subsets_is_by_size() -> None:
    many = example(tasks=8, seeds=(0,), methods=("task_arithmetic",), lambdas=("0.20", "0.40"))
    figure = draw_figure("heatmap", many.tables())
    (matrix,) = cells(figure)
    assert matrix.shape == (8, 9)
    rows = many.grid.query("method == 'task_arithmetic' and split == 'test' and in_subset")
    rows = rows.merge(many.selected[["subset", "point"]], on=["subset", "point"])
    means = rows.groupby(["size", "task"])["normalized_accuracy"].mean().unstack()
    assert np.allclose(matrix[:, :8], 100 * means)
    assert "2 tasks" in texts(figure)


def test_cross_evaluation_has_zero_shot_first_and_all_experts(five: Example) -> None:
    figure = draw_figure("cross_evaluation", five.tables())
    (matrix,) = cells(figure)
    tasks = sorted(task_names(5))
    rows = five.grid[five.grid["split"] == "test"]
    zero = rows[rows["method"] == "zeroshot"].set_index("task")["accuracy"]
    assert np.allclose(matrix[0], 100 * zero[tasks])
    experts = (
        rows[rows["method"] == "expert"].groupby(["subset", "task"])["accuracy"].mean().unstack()
    )
    assert np.allclose(matrix[1:], 100 * experts.loc[tasks, tasks])
    assert {"zero-shot", *tasks} <= set(texts(figure))


def test_cosine_matrix_blanks_its_diagonal(five: Example) -> None:
    (matrix,) = cells(draw_figure("cosine", five.tables()))
    assert np.all(np.isnan(np.diag(matrix)))
    whole = five.conflicts[five.conflicts["layer"] == "all"]
    upper = whole.groupby(["task_a", "task_b"])["cosine"].mean().unstack()
    table = upper.fillna(upper.T)
    off = ~np.eye(5, dtype=bool)
    assert np.allclose(matrix[off], table.to_numpy()[off])


def test_cosine_near_zero_is_printed_without_a_sign(five: Example) -> None:
    table = five.conflicts.assign(cosine=-1e-9)
    assert "-0.00" not in texts(draw_figure("cosine", {"conflicts": table}))


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
        assert f"{said} alike: {', '.join(pair)}" in texts(figure)
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


def test_training_draws_each_task(five: Example) -> None:
    figure = draw_figure("training", five.tables())
    rows = five.history.query("task == 'signs' and metric == 'val/accuracy'")
    expected = rows.groupby("step")["value"].mean()
    x, y = lines(figure)[2, "signs"]
    assert np.allclose(x, expected.index)
    assert np.allclose(y, 100 * expected)
    loss = five.history.query("task == 'signs' and metric == 'train/loss'")
    _, raw = lines(figure)[0, "signs: steps"]
    assert np.allclose(raw, loss.groupby("step")["value"].mean())


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
    order = list(five.values.groupby("task")["value"].mean().sort_values(ascending=False).index)
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
    drops = five.targets.groupby("task")["drop"].mean().sort_values(ascending=False)
    order = list(drops.index)
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
    gains = five.quadruples.groupby("task")["gain"].mean().sort_values(ascending=False)
    order = list(gains.index)
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
    assert drawn == ["tsv m", "emr", "average", "ties", "task arithmetic"]
    marks = [line for line in forest.lines if line.get_marker() in ("o", "s")]
    assert [line.get_xdata()[0] for line in marks] == pytest.approx([90, 80, 70, 60, 50])
    # The fourth and the first are tied with the best; the fifth has a model for each task.
    assert [line.get_markerfacecolor() != "white" for line in marks] == [
        True,
        False,
        False,
        False,
        True,
    ]
    assert [line.get_marker() for line in marks] == ["o", "s", "o", "o", "o"]
    # Of the fourth nobody knows the seconds.
    assert len(seconds.lines) == 4 and len(kept.lines) == 5
    # Nothing that is as cheap is better than these; what is named twice is not named for being dear.
    assert {"task arithmetic", "average", "emr"} == {text.get_text() for text in seconds.texts}
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


def test_similarity_is_a_symmetric_matrix_of_each_layer(five: Example) -> None:
    found = cells(draw_figure("feature_similarity", five.tables()))
    assert len(found) == 3
    for depth, matrix in enumerate(found, start=1):
        # Base, expert, average, task arithmetic: the last two are the other way round in the table.
        places = np.array([0, 1, 3, 2])
        assert np.allclose(matrix, 1 - 0.04 * depth * np.abs(places[:, None] - places))


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
            "tasks merged",
            "experts",
        },
        "subset_size": {"tasks merged", "normalised accuracy on test [%]", "task arithmetic"},
        "heatmap": {"normalised accuracy\non test [%]", "average", "task arithmetic", "5 tasks"},
        "cross_evaluation": {"accuracy on test [%]", "expert"},
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
        "weight_norms": {"|θ − θ₀| by |θ₀| [%]", "λ", "a task vector", "average"},
        "transfer": {"accuracy on test [%]", "labelled images per task", "direct", "few-shot"},
        "barriers": {"barrier on test [points]", "task arithmetic", "digits + glyphs"},
    }
    assert tuple(wanted) == FIGURES
    for name, words in wanted.items():
        assert words <= set(texts(draw_figure(name, five.tables()))), name


@pytest.mark.parametrize("tasks", [5, 8])
@pytest.mark.parametrize("name", FIGURES)
def test_no_text_overlaps(name: str, tasks: int) -> None:
    tables = cached(tasks=tasks, lambdas=("0.00", "0.50", "1.00"), steps=60).tables()
    assert overlapping(draw_figure(name, tables)) == []


@pytest.mark.parametrize("name", FIGURES)
def test_several_models_modes_and_methods_fit(name: str) -> None:
    tables = cached(
        tasks=3,
        models=("small-clip", "ViT-B-32"),
        modes=("standard", "linear"),
        methods=("task_arithmetic", "average", "ties"),
        lambdas=("0.00", "0.50", "1.00"),
        steps=20,
    ).tables()
    figure = draw_figure(name, tables)
    assert overlapping(figure) == []
    of_modes = any("mode" in tables[table] for table in figure_card(name).tables)
    named = "ViT-B-32 · linear" if of_modes else "ViT-B-32"
    assert any(named in text for text in texts(figure))


@pytest.mark.parametrize("name", FIGURES)
def test_the_smallest_and_a_wide_experiment(name: str, tmp_path: Path) -> None:
    one = cached(tasks=1, seeds=(0,), methods=("task_arithmetic",), lambdas=("1.00",), steps=5)
    names = task_names(20)
    nested = tuple(names[:size] for size in range(1, 21))
    wide = cached(
        tasks=20, seeds=(0,), methods=("ties",), subsets=nested, lambdas=("0.00", "0.30"), steps=10
    )
    marked = interpolated(wide, every=2).tables()
    for label, tables in (("one", one.tables()), ("wide", wide.tables()), ("marked", marked)):
        figure = draw_figure(name, tables)
        assert overlapping(figure) == [], label
        write_figure(name, tables, tmp_path / f"{label}.pdf", tmp_path / f"{label}.png")


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
        "out = Path(sys.argv[1]); tables = example(tasks=3, lambdas=('0.00', '1.00'), steps=9).tables()\n"
        "[write_figure(n, tables, out / f'{n}.pdf', out / f'{n}.png') for n in plugins.names('figure')]"
    )
    env = environment() | {"PYTHONHASHSEED": "7"}
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a")], check=True, env=env)
    shuffled = {
        name: table.sample(frac=1, random_state=0).reset_index(drop=True)
        for name, table in cached(tasks=3, lambdas=("0.00", "1.00"), steps=9).tables().items()
    }
    for name in FIGURES:
        write_figure(name, shuffled, tmp_path / f"b/{name}.pdf", tmp_path / f"b/{name}.png")
        for suffix in ("pdf", "png"):
            first, second = (tmp_path / side / f"{name}.{suffix}" for side in "ab")
            assert first.read_bytes() == second.read_bytes(), second.name


def test_pdf_embeds_truetype_and_no_date(five: Example, tmp_path: Path) -> None:
    write_figure("cosine", five.tables(), tmp_path / "a.pdf", tmp_path / "a.png")
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


def test_page_shows_a_table_in_percent(tmp_path: Path) -> None:
    table = pd.DataFrame(
        {
            "model": ["m<1>", "m<1>"],
            "row": ["zeroshot", "all"],
            "subsets": [None, 5],
            "point": [None, "0.30"],
            "scale": [None, 0.3],
            "accuracy": [0.28749, 0.5],
            "empty": [None, None],
        }
    )
    table.to_csv(tmp_path / "summary.csv", index=False)
    write_page(tmp_path / "summary.csv", tmp_path / "summary.html", "summary")
    page = (tmp_path / "summary.html").read_text(encoding="utf-8")
    assert "<p>model: m&lt;1&gt;</p>" in page and "m<1>" not in page
    assert '<th class="number">accuracy [%]</th>' in page and "empty" not in page
    assert '<td class="number" data-key="0.287490">28.7</td>' in page
    assert '<td class="number" data-key=""></td>' in page  # no "nan", and counts stay whole
    assert '<td class="number">5</td>' in page and "<td>0.30</td>" in page
    write_page(tmp_path / "summary.csv", tmp_path / "again.html", "summary")
    assert (tmp_path / "again.html").read_text(encoding="utf-8") == page


def environment() -> dict[str, str]:
    here = Path(__file__).resolve()
    paths = [str(here.parents[3] / "src"), str(here.parents[3])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
