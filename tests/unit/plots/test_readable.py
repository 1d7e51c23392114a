"""Laws of all figures in print: as wide as they are said to be, no text too small, all of it told apart."""

from __future__ import annotations

import colorsys
import itertools
from functools import cache

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from taskgrid import plugins
from taskgrid.plots import style
from taskgrid.plots.render import draw_figure
from taskgrid.plots.sheet import PAGE, TALLEST, WIDTHS, Sheet, Width, sheet_from
from taskgrid.plugins.cards import figure_card
from tests.unit.example_tables import Example, example, interpolated, task_names
from tests.unit.plots.readable import drawn_texts, overlapping

FIGURES = plugins.names("figure")
LAMBDAS = ("0.00", "0.50", "1.00")
NESTED = tuple(task_names(20)[:size] for size in range(1, 21))


@cache
def given(name: str) -> Example:
    """Return experiments of the shapes that people have."""
    if name == "default":
        return example(tasks=5, lambdas=LAMBDAS, steps=60)
    if name == "eight tasks":
        return example(tasks=8, lambdas=LAMBDAS, steps=60)
    if name == "one task":
        return example(
            tasks=1, seeds=(0,), methods=("task_arithmetic",), lambdas=("1.00",), steps=5
        )
    if name == "twenty tasks":
        methods, lambdas = ("ties",), ("0.00", "0.30")
        wide = example(20, methods, (0,), subsets=NESTED, lambdas=lambdas, steps=10)
        return interpolated(wide, every=2)
    assert name == "several runs"
    return example(
        tasks=3,
        models=("small-clip", "ViT-B-32"),
        modes=("standard", "linear"),
        methods=("task_arithmetic", "average", "ties"),
        lambdas=LAMBDAS,
        steps=20,
    )


PRINTED: list[tuple[Width, str]] = [
    *(("page", name) for name in ("eight tasks", "several runs")),
    *(("column", name) for name in ("one task", "twenty tasks", "several runs")),
]
"""Where there is more room, what is larger."""


@pytest.mark.parametrize(("width", "experiment"), PRINTED)
@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_can_be_read_in_print(name: str, width: Width, experiment: str) -> None:
    tables = given(experiment).tables()
    figure = draw_figure(name, tables, Sheet(width, task_names(20)[::-1]))
    # What is saved is drawn as it is, so that points of text are points on paper.
    assert figure.get_figwidth() == WIDTHS[width]
    # Panels of several runs go on below the page, and so do two columns of twenty published tasks.
    if experiment != "several runs" and (name, experiment) != ("published", "twenty tasks"):
        assert figure.get_figheight() <= TALLEST
    assert overlapping(figure) == []
    said = drawn_texts(figure)
    assert min(text.get_fontsize() for text in said) >= style.SMALLEST == 6
    words = [text.get_text() for text in said]
    # Raised and lowered letters are smaller than their text; there is one minus, and one spelling.
    for text in words:
        assert "$" not in text and "normaliz" not in text, text
        assert "zeroshot" not in text and "zero shot" not in text, text
        assert not (text[0] == "-" and text[1:2].isdigit()), text
    if experiment == "several runs":
        of_modes = any("mode" in tables[table] for table in figure_card(name).tables)
        named = "ViT-B-32 · linear" if of_modes else "ViT-B-32"
        assert any(
            named in " ".join(text.split()).replace("32 linear", "32 · linear") for text in words
        )


@pytest.mark.parametrize("name", FIGURES)
def test_tasks_stand_in_the_configured_order(name: str) -> None:
    order = ("signs", "textures", "digits", "street", "glyphs")
    tables = given("default").tables()
    figure = draw_figure(name, tables, Sheet("page", order))
    figure.draw_without_rendering()
    lists = [
        [text.get_text() for text in labels if text.get_text() in order]
        for axes in figure.axes
        for labels in (axes.get_xticklabels(), axes.get_yticklabels())
    ]
    legends = [[text.get_text() for text in legend.get_texts()] for legend in figure.legends]
    lists += [[text for text in legend if text in order] for legend in legends]
    for found in lists:
        assert found == [task for task in order if task in found]
    if name in ("heatmap", "cross_evaluation", "training", "published", "negation", "shapley"):
        assert list(order) in lists


def told_by_colour_alone(figure: Figure) -> list[tuple[str, str]]:
    """Return lines of one panel that neither marks nor dashes nor their lightness tell apart."""
    found = []
    for axes in figure.axes:
        lines = {
            (line.get_color(), line.get_marker(), str(line.get_linestyle()), dashes_of(line)): line
            for line in axes.lines
            # Thin lines are many of a kind; a cross is read in its lane.
            if line.get_linewidth() > 0.7 and line.get_marker() != "X"
        }
        for (one, *look), (other, *another) in itertools.combinations(lines, 2):
            if one != other and look == another and abs(light(one) - light(other)) < 0.05:
                found.append((str(one), str(other)))
    return found


def dashes_of(line: Line2D) -> tuple[float, ...]:
    return tuple(line._unscaled_dash_pattern[1] or ())  # type: ignore[attr-defined]


def light(colour: object) -> float:
    """Return the relative luminance of a colour, which is what grey leaves of it."""
    linear = [
        value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
        for value in to_rgb(colour)  # type: ignore[arg-type]
    ]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


# There, lines of a name each tell methods apart.
@pytest.mark.parametrize("name", [name for name in FIGURES if name != "representation_bias"])
@pytest.mark.parametrize("experiment", ["default", "several runs"])
def test_colour_is_never_all_that_tells_lines_apart(name: str, experiment: str) -> None:
    assert told_by_colour_alone(draw_figure(name, given(experiment).tables())) == []


def test_looks_differ_in_grey_and_are_seen_on_white_paper() -> None:
    looks = list(style.looks([str(number) for number in range(36)]).values())
    assert len({(look.marker, look.dashes) for look in looks}) == 36
    for look in looks:
        assert 1.05 / (light(look.colour) + 0.05) > 2
        assert colorsys.rgb_to_hsv(*look.colour)[2] < 1
    shades = [light(shade) for shade in style.ordered_colours(range(1, 9)).values()]
    assert np.all(np.diff(shades) > 0.02) and shades[-1] < 0.6


def test_text_is_measured_as_it_is_drawn() -> None:
    figure = Figure(dpi=600)
    text = figure.text(0, 0, "task arithmetic", fontsize=style.SMALL, family=style.FAMILY)
    figure.draw_without_rendering()
    width = text.get_window_extent().width / 600
    assert style.text_width("task arithmetic", style.SMALL) == pytest.approx(width, rel=0.05)
    wrapped = style.wrapped("task arithmetic of many", 1.05 * width, style.SMALL)
    assert wrapped.split("\n") == ["task arithmetic", "of many"]
    assert style.wrapped("unbreakable", 0.1) == "unbreakable"


def test_a_sheet_orders_tasks_and_subsets() -> None:
    sheet = sheet_from({"width": "column", "tasks": ["c", "a", "b"]})
    assert sheet.narrow and sheet.inches == WIDTHS["column"] and PAGE.inches == WIDTHS["page"]
    assert sheet.ordered(["b", "new", "a", "c", "a"]) == ["c", "a", "b", "new"]
    assert sheet.subsets(["a+b", "b+c", "a", "c", "a+b+c", "a"]) == [
        ("c",),
        ("a",),
        ("c", "b"),
        ("a", "b"),
        ("c", "a", "b"),
    ]


def test_panels_stand_in_rows_that_are_as_full_as_they_can_be() -> None:
    assert PAGE.across(1) == 1 and PAGE.across(4) == 2 and PAGE.across(6) == 3
    # The methods of a run make a row where they fit.
    assert PAGE.across(6, kinds=2) == 2 and PAGE.across(12, kinds=6) == 3
    assert Sheet("column").across(6) == 1 and Sheet("column").across(6, least=1.0) == 3


def test_a_sentence_fits_into_a_column() -> None:
    with style.paper_style():
        figure = Sheet("column").message("no merged point was evaluated on validation yet, " * 2)
        assert overlapping(figure) == [] and len(drawn_texts(figure)) == 1
