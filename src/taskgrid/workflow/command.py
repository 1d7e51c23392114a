"""The rim shared by all scripts: arguments, and errors as one sentence."""

from __future__ import annotations

import argparse
import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from taskgrid.errors import TaskgridError
from taskgrid.machine.faults import explain_fault
from taskgrid.sentences import without_secrets
from taskgrid.store.atomic import explain_os_error

MORE = "-"
"""The last word of a command line that goes on in standard input."""


def parse(
    description: str | None,
    paths: Sequence[str],
    lists: Sequence[str] = (),
    optional: Sequence[str] = (),
) -> argparse.Namespace:
    """Parse a script's command line: ``--name PATH`` for files, ``--settings JSON`` for the rest.

    Files of which there is one per task, run or block come in ``--listing JSON``. Where the last word
    is ``-``, more words follow on standard input, a zero byte behind each.

    Args:
        description: the script's docstring.
        paths: names of options that take one path.
        lists: names of options that take several paths.
        optional: names of options that take one path and may be left out.

    Returns:
        The options; ``settings`` and ``listing`` are decoded JSON values.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--settings", type=json.loads, default={}, metavar="JSON")
    parser.add_argument("--listing", type=json.loads, default={}, metavar="JSON")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=1, help="images decoded at a time")
    parser.add_argument("--checkpoint-seconds", type=float, default=60.0)
    parser.add_argument("--tracking", type=json.loads, default=None, metavar="JSON")
    for name in paths:
        parser.add_argument(f"--{name}", required=True, metavar="PATH")
    for name in optional:
        parser.add_argument(f"--{name}", default=None, metavar="PATH")
    for name in lists:
        parser.add_argument(f"--{name}", required=True, nargs="*", metavar="PATH")
    return parser.parse_args(_words())


def _words() -> list[str]:
    *words, last = sys.argv[1:] or [""]
    if last != MORE:
        return sys.argv[1:]
    more = os.fsdecode(sys.stdin.buffer.read()).split("\0")[:-1]
    # `printf` without anything to print prints one empty word.
    return [*words, *(more if more != [""] else [])]


def run(main: Callable[[], Any]) -> None:
    """Run a script; what goes wrong for a known reason ends in one sentence and exit code 1.

    Set ``TASKGRID_DEBUG=1`` to see the traceback.
    """
    try:
        main()
    except TaskgridError as error:
        _fail(f"error: {error}")
    except OSError as error:
        known = error.errno is not None
        _fail(
            f"error: {explain_os_error(error, error.filename or 'its output')}" if known else None
        )
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        fault = explain_fault(error)
        _fail(f"error: {fault}" if fault else None)


def _fail(sentence: str | None) -> None:
    """End with a sentence, or with the traceback: of what nobody thought of, or where it is asked for."""
    if sentence is None or os.environ.get("TASKGRID_DEBUG"):
        sentence = traceback.format_exc()
    # Libraries quote addresses, and an address may hold a password.
    print(without_secrets(sentence), file=sys.stderr, flush=True)
    sys.exit(1)
