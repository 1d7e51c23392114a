"""Whether a figure can be read: no two texts overlap, none leaves the page, none is too small."""

from __future__ import annotations

import itertools

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text


def drawn_texts(figure: Figure) -> list[Text]:
    """Return the texts that are seen."""
    hidden = hidden_labels(figure)
    return [
        text
        for text in figure.findobj(Text)
        if text.get_visible() and text.get_text().strip() and text not in hidden
    ]


def overlapping(figure: Figure) -> list[tuple[str, str]]:
    """Return the pairs of visible texts that overlap, and texts that leave the page."""
    canvas = FigureCanvasAgg(figure)
    figure.draw_without_rendering()  # as when saving, square cells settle in a second pass
    figure.draw_without_rendering()
    renderer = canvas.get_renderer()
    drawn = drawn_texts(figure)
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


def hidden_labels(figure: Figure) -> set[Text]:
    """Return the labels of ticks outside the limits of their axis, which are never drawn."""
    found = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            slack = 1e-9 * max(abs(low), abs(high), 1.0)
            for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]:
                if not low - slack <= tick.get_loc() <= high + slack:
                    found |= {tick.label1, tick.label2}
    return found
