"""What a figure is drawn on: the width that it has in print, and the order of tasks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from matplotlib.figure import Figure
from numpy import array_split

from taskgrid.plots import style

Width = Literal["column", "page"]

WIDTHS: dict[Width, float] = {"column": 3.3, "page": 6.9}
"""Width in inches of one column of a two-column paper, and of its whole page."""

TALLEST = 9.2
"""Height in inches of such a page."""

_LINE = 0.135
"""Height in inches of a line of a legend."""


@dataclass(frozen=True)
class Sheet:
    """Where a figure stands; what is drawn on it is not scaled in print.

    Attributes:
        width: ``column`` or ``page``.
        tasks: the configured tasks, in order.
    """

    width: Width = "page"
    tasks: tuple[str, ...] = ()

    @property
    def inches(self) -> float:
        """The width in inches."""
        return WIDTHS[self.width]

    @property
    def narrow(self) -> bool:
        """Whether the figure stands in a column."""
        return self.width == "column"

    def ordered(self, names: Iterable[str]) -> list[str]:
        """Return distinct tasks in the configured order; what is not configured comes last, by name."""
        place = {task: at for at, task in enumerate(self.tasks)}
        return sorted({*map(str, names)}, key=lambda name: (place.get(name, len(place)), name))

    def subsets(self, names: Iterable[str]) -> list[tuple[str, ...]]:
        """Return distinct subsets (``a+b``) as ordered tasks: by size, then in the order of their tasks."""
        members = {tuple(self.ordered(name.split("+"))) for name in names}
        place = {task: at for at, task in enumerate(self.ordered(sum(members, ())))}
        return sorted(members, key=lambda subset: (len(subset), [place[task] for task in subset]))

    def across(self, panels: int, kinds: int = 1, least: float = 1.9, beside: float = 0.0) -> int:
        """Return how many panels to put side by side.

        Args:
            panels: how many there are.
            kinds: how many methods each model and mode has; they make a row where they fit.
            least: inches that a panel takes.
            beside: inches that are taken by what stands to the left of all.
        """
        most = max(1, int((self.inches - beside) / least))
        if 1 < kinds <= most:
            return kinds
        rows = -(-panels // most)
        return -(-panels // rows)

    def figure(self, height: float, legend: Sequence[Any] = ()) -> Figure:
        """Return an empty figure, laid out so that nothing overlaps.

        It does not belong to pyplot: no global state, no window, nothing to close.

        Args:
            height: of all that is drawn, in inches.
            legend: handles of the legend that stands below it, in as many columns as there is room for.
        """
        columns = self._columns([str(one.get_label()) for one in legend])
        lines = -(-len(legend) // columns)
        figure = Figure(figsize=(self.inches, height + lines * _LINE + 0.05), layout="constrained")
        if legend:
            figure.legend(
                handles=list(legend),
                loc="outside lower center",
                ncols=columns,
                handlelength=2.4,
                handletextpad=0.5,
                columnspacing=1.2,
                labelspacing=0.3,
                borderpad=0.1,
                borderaxespad=0.2,
            )
        return figure

    def _columns(self, labels: Sequence[str]) -> int:
        """Return how many columns of a legend there is room for."""
        widths = [0.5 + style.text_width(label, style.SMALL) for label in labels]
        fitting = (
            columns
            for columns in range(len(widths), 1, -1)
            if sum(map(max, array_split(widths, columns))) <= self.inches
        )
        return next(fitting, 1)

    def message(self, text: str) -> Figure:
        """Return a figure that says in one sentence why there is nothing to draw."""
        figure = self.figure(0.8)
        words = style.wrapped(text, self.inches - 0.6)
        figure.text(0.5, 0.5, words, ha="center", va="center")
        return figure


PAGE = Sheet()
"""A whole page, on which tasks stand by name."""


def sheet_from(settings: Mapping[str, Any]) -> Sheet:
    """Return the sheet that settings describe."""
    return Sheet(width=settings["width"], tasks=tuple(settings["tasks"]))
