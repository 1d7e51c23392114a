"""One line of progress in a terminal; in a file or a log of CI, plain lines now and then."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable
from typing import TextIO

from tqdm import tqdm

_EVERY = 10.0
"""Seconds between two plain lines."""
_STEPS = 1000
_FORM = "{percentage:3.0f}% |{bar:16}| {desc}"


class Display:
    """Shows how far something is, and says what is not progress above or between.

    Args:
        stream: a terminal, or anything else.
        clock: gives seconds.
    """

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._clock = stream, clock
        self._bar: tqdm | None = None
        self._last = clock()

    def say(self, text: str) -> None:
        """Write lines that stay."""
        if self._bar is not None:
            self._bar.clear()
        print(text, file=self._stream, flush=True)
        if self._bar is not None:
            self._bar.refresh()

    def show(self, fraction: float, line: str) -> None:
        """Show how far it is.

        Args:
            fraction: between 0 and 1.
            line: the same in words.
        """
        if self._stream.isatty() and _has_size(self._stream):
            if self._bar is None:
                self._bar = tqdm(
                    total=_STEPS,
                    file=self._stream,
                    bar_format=_FORM,
                    dynamic_ncols=True,
                    leave=False,
                )
            self._bar.n = round(_STEPS * fraction)
            self._bar.set_description_str(line)
        elif self._clock() - self._last >= _EVERY:
            self._last = self._clock()
            self.say(f"{fraction:4.0%}  {line}")

    def close(self) -> None:
        """Take the line of progress away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _has_size(stream: TextIO) -> bool:
    """Return whether a terminal has a size: some of containers say that they have none."""
    try:
        return all(os.get_terminal_size(stream.fileno()))
    except (OSError, io.UnsupportedOperation):
        return True
