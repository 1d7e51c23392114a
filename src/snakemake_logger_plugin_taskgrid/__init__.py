"""Snakemake's log for people: ``snakemake --logger taskgrid``; ``-n`` shows the plan, or how all stands.

Snakemake finds plug-ins by the name of their package. It imports this one in every call, so nothing heavy is
imported here; and the library is that of the Snakefile, which is known once it was read.
"""

# No lazy annotations: Snakemake reads the type of a setting from its field.
import io
import logging
import os
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TextIO, cast

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.settings import LogHandlerSettingsBase

if TYPE_CHECKING:
    from taskgrid.workflow.terminal.screen import Screen


@dataclass
class LogHandlerSettings(LogHandlerSettingsBase):
    """Settings of a call.

    Attributes:
        show: what a dry run shows.
    """

    show: str = field(
        default="plan",
        metadata={
            "help": "what a dry run shows: the plan, or how all stands",
            "choices": ["plan", "status"],
        },
    )


class LogHandler(LogHandlerBase):
    """Shows what a person wants to see of a call, and keeps the rest in results/logs/run.log."""

    def __post_init__(self) -> None:
        """Keep the terminal: jobs write elsewhere from the start of the workflow on."""
        answers = self.common_settings.stdout or self.common_settings.dryrun
        common = sys.stdout if answers else sys.stderr
        try:
            self._stream: TextIO = os.fdopen(os.dup(common.fileno()), "w", errors="replace")
        except io.UnsupportedOperation:
            self._stream = common
        self._screen: Screen | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Show a record, if a person wants to see it."""
        try:
            text = self.format(record)
            said = getattr(record, "taskgrid", None)
            if self._screen is None and isinstance(said, dict):
                from taskgrid.workflow.terminal.screen import Screen

                show = cast(Literal["plan", "status"], getattr(self.settings, "show", "plan"))
                self._screen = Screen(
                    **said, stream=self._stream, dry=self.common_settings.dryrun, show=show
                )
            elif self._screen is not None:
                self._screen.emit(record, text)
            elif record.levelno >= logging.WARNING:
                print(text, file=self._stream, flush=True)
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        """Say how it ended."""
        if self._screen is not None:
            self._screen.close()
        super().close()

    @property
    def writes_to_stream(self) -> bool:
        """This is what the terminal shows."""
        return True

    @property
    def writes_to_file(self) -> bool:
        """No log file of Snakemake's."""
        return False

    @property
    def has_filter(self) -> bool:
        """Snakemake's own filter does."""
        return False

    @property
    def has_formatter(self) -> bool:
        """Snakemake's own formatter does."""
        return False

    @property
    def needs_rulegraph(self) -> bool:
        """No graph is drawn."""
        return False
