"""Where the project lies and how its scripts are called, wherever the working folder is.

Everything is found from this package: a Snakefile of somebody else that uses the project as a module
has its own base folder, and `snakemake -s path/to/Snakefile -d elsewhere` another working folder. An
installed package has in itself what lies around that of a checkout.
"""

from __future__ import annotations

import atexit
import os
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from taskgrid.config import Config, read_config, read_entries
from taskgrid.errors import ConfigError
from taskgrid.provenance import code_closure
from taskgrid.workflow.command import MORE
from taskgrid.workflow.known_code import KnownCode

# Not resolved: a folder of links to a project is that folder, not the project.
PACKAGE = Path(__file__).parents[1]
SOURCE = PACKAGE.parent
ROOT = PACKAGE if (PACKAGE / "Snakefile").exists() else SOURCE.parent
SCRIPTS = ROOT / "scripts"
DEFAULT = ROOT / "config.yaml"
"""The embedded default, the layer below every configuration."""
BLOCK = r"\d{5,12}(-\d{5,12})?"
"""What ``{block}`` may be: five digits, more where a lattice of many tasks is cut into small blocks."""


def check_place(root: Path = ROOT) -> None:
    """Refuse a place of the project whose path Snakemake or Python would take for something else.

    Raises:
        ConfigError: if there is a brace, a line break or the separator of search paths in it.
    """
    for sign in ("{", "}", os.pathsep, "\n"):
        if sign in str(root):
            raise ConfigError(
                f"the project lies in {str(root)!r}, whose {sign!r} means something else to Snakemake or "
                "Python; rename that folder"
            )


def layers(files: Sequence[str | Path], folder: Path = Path()) -> list[Path]:
    """Return the files of a configuration, from bottom to top.

    The embedded default, the working folder's own ``config.yaml`` if it has one, then those that the
    call of Snakemake names.

    Args:
        files: the files that were named.
        folder: the working folder.
    """
    own = folder / "config.yaml"
    found = [DEFAULT, *([own] if own.is_file() else []), *map(Path, files)]
    # In the project's own folder, the default is the working folder's.
    return list({path.resolve(): path for path in found}.values())


def configuration(files: Sequence[str | Path], values: Mapping[str, Any] | None = None) -> Config:
    """Read the configuration of a call: the files of `layers`, then single values.

    Raises:
        ConfigError: if a file cannot be read, or the result is not valid.
    """
    return read_config(*layers(files), values=values)


def call_values(values: Mapping[str, Any], entries: Sequence[str]) -> Mapping[str, Any]:
    """Return the single values of a call (``--config``), numbers within mappings and lists as numbers.

    Args:
        values: how Snakemake read them: of what is within others it keeps the text.
        entries: what stood on the command line. A program that calls Snakemake has given values, of
            which these are but a print.
    """
    return read_entries(entries) if all(map(_is_text, values.values())) else values


def _is_text(value: Any, within: bool = False) -> bool:
    """Say whether nothing within a value is anything but text."""
    if isinstance(value, Mapping):
        return all(_is_text(below, True) for below in value.values())
    if isinstance(value, list):
        return all(_is_text(below, True) for below in value)
    return not within or isinstance(value, str)


def module_configuration(values: Mapping[str, Any]) -> Config:
    """Read the configuration of a module: what its ``config:`` gives, laid over the default.

    Raises:
        ConfigError: if a key is unknown or a value does not fit.
    """
    return read_config(DEFAULT, values=values)


def command(python: str, script: str, threads: int, *options: object) -> str:
    """Return the beginning of a shell command that runs a script with this checkout's library.

    What a rule writes behind it reaches the script by standard input, which has no limit: Linux takes no
    more than 128 kB in an argument, and 2 MB in all of them.

    Args:
        python: the interpreter.
        script: the script's name.
        threads: how many threads the script may have, and torch, BLAS and Arrow in it: the last bits of
            their sums depend on it.
        *options: what follows it.
    """
    words = [python, str(SCRIPTS / script), "--threads", str(threads), *map(str, options), MORE]
    # Behind this checkout's, whatever else the caller has there: plug-ins of other packages.
    path = f'{shlex.quote(str(SOURCE))}"${{PYTHONPATH:+:$PYTHONPATH}}"'
    environment = f"OMP_NUM_THREADS={threads} PYTHONPATH={path}"
    return f"run() {{ printf '%s\\0' \"$@\" | {environment} {shlex.join(words)}; }}; run"


@cache
def code(script: str, *modules: str) -> dict[str, str]:
    """Return the digests of all that computes when a script runs with some plug-ins.

    Of the script itself only the imports count: it reads arguments, calls the library and prints.
    """
    return code_closure(SCRIPTS / script, *modules, read=_known_code().read)


@cache
def _known_code() -> KnownCode:
    found = KnownCode(Path(".snakemake/taskgrid-code.json").absolute())
    atexit.register(found.keep)
    return found


@cache
def rule_names() -> frozenset[str]:
    """Return the names of the workflow's rules, which are targets."""
    files = [ROOT / "Snakefile", *(ROOT / "rules").glob("*.smk")]
    texts = [file.read_text(encoding="utf-8") for file in files]
    return frozenset(name for text in texts for name in re.findall(r"(?m)^rule (\w+):", text))


def one_of(names: Iterable[object]) -> str:
    """Return the pattern of a wildcard that is one of some names; of none, it never matches."""
    return "|".join(re.escape(str(name)) for name in names) or "(?!)"
