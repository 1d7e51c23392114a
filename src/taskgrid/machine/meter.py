"""How work says how far it is, to whoever listens."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol, TypeAlias


class Tally(Protocol):
    """Whoever wants to know how far the work is (`taskgrid.machine.progress.Progress` fits)."""

    def advance(self, count: int = 1) -> None:
        """Take note of ``count`` more units; less than none where a download starts again."""


Meter: TypeAlias = Callable[[int], AbstractContextManager[Tally]]
"""Called once with the number of units, bytes or images (0: not known); what it returns is entered
and told of them."""


OpenTally: TypeAlias = Callable[[str, int], AbstractContextManager[Tally]]
"""Called with a label and a number of units; what it returns is entered and told of them."""


class Silent:
    """A counter that nobody looks at, and its own context."""

    def __enter__(self) -> Silent:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def advance(self, count: int = 1) -> None:
        """Say nothing."""


def silent(_total: int) -> AbstractContextManager[Tally]:
    """Return a counter that says nothing."""
    return Silent()
