"""Progress of long work: a bar in a terminal, plain lines in a log file."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self, TextIO

from tqdm import tqdm

_LINE_SECONDS = 10.0

Point = tuple[int, str, float]
"""``(step, curve, value)``, as in a training's history."""
Listener = Callable[[Sequence[Point]], None]


class Progress:
    """Counts ``total`` units of work and says the rate and the time that is left.

    Args:
        label: what is being done, e.g. ``finetune digits``.
        total: units of work in all.
        unit: name of a unit, e.g. ``img`` or ``point``.
        stream: where to write; a terminal gets a bar, anything else a line every ten seconds.
        listen: called with the newest points of curves; must neither wait nor raise.
    """

    def __init__(
        self,
        label: str,
        total: int,
        unit: str = "img",
        stream: TextIO | None = None,
        listen: Listener = lambda _: None,
    ) -> None:
        self._label = label
        self._total = total
        self._unit = unit
        self._stream = stream if stream is not None else sys.stderr
        self._listen = listen
        self._done = 0
        self._note = ""
        self._bar: tqdm | None = None
        self._started = self._last = time.monotonic()

    @classmethod
    def of(cls, whose: str) -> Callable[[str, int], Progress]:
        """Return what opens counters of labels and totals, for work of a name.

        Args:
            whose: whose work it is, e.g. the label of a merge method.
        """
        return lambda label, total: cls(f"{whose}, {label}", total)

    def __enter__(self) -> Self:
        if self._stream.isatty():
            self._bar = tqdm(
                total=self._total,
                desc=self._label,
                unit=self._unit,
                file=self._stream,
                dynamic_ncols=True,
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        elif kind is None:
            self._line()

    def advance(self, count: int = 1) -> None:
        """Report ``count`` more units as done."""
        self._done += count
        if self._bar is not None:
            self._bar.update(count)
        elif time.monotonic() - self._last >= _LINE_SECONDS:
            self._line()

    def note(self, **values: float | str) -> None:
        """Show current values (a loss, a learning rate) beside the count."""
        self._note = " ".join(
            f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}"
            for key, value in values.items()
        )
        if self._bar is not None:
            self._bar.set_postfix_str(self._note, refresh=False)

    def points(self, newest: Sequence[Point]) -> None:
        """Show the newest points of curves beside the count, and hand them on."""
        self.note(**{name.rpartition("/")[2]: value for _, name, value in newest})
        self._listen(newest)

    def _line(self) -> None:
        self._last = time.monotonic()
        rate = self._done / max(self._last - self._started, 1e-9)
        parts = [
            f"{self._label}: {self._done}/{self._total} {self._unit}, {rate:.1f} {self._unit}/s"
        ]
        if rate > 0 and self._done < self._total:
            parts.append(f"{(self._total - self._done) / rate:.0f} s left")
        if self._note:
            parts.append(self._note)
        print(", ".join(parts), file=self._stream, flush=True)
