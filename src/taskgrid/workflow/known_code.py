"""What texts of modules say, kept between calls of Snakemake: to read 300 of them is a third of its start."""

from __future__ import annotations

import dataclasses
import inspect
import platform
from contextlib import suppress
from functools import cached_property
from pathlib import Path

from taskgrid.errors import ArtifactError
from taskgrid.provenance import code, digest_bytes
from taskgrid.provenance.code import ModuleText, read_module
from taskgrid.store.atomic import read_json, write_json


class KnownCode:
    """Reads texts of modules, and none twice.

    What is known is found by the text itself, never by the time of a file.

    Args:
        path: where it is kept; nowhere, as long as there is no such folder.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._grown = False

    def read(self, text: bytes, name: str, is_package: bool) -> ModuleText:
        """Return what ``read_module`` does."""
        key = digest_bytes(b"\0".join([name.encode(), b"%d" % is_package, text]))
        if key not in self._known:
            self._known[key], self._grown = read_module(text, name, is_package), True
        return self._known[key]

    def keep(self) -> None:
        """Write what is new to what was known; where that is refused, it is read again next time."""
        if self._grown and self._path.parent.is_dir():
            texts = {key: dataclasses.asdict(text) for key, text in self._known.items()}
            with suppress(ArtifactError):
                write_json(self._path, {"reader": _reader(), "texts": texts}, indent=None)

    @cached_property
    def _known(self) -> dict[str, ModuleText]:
        try:
            kept = read_json(self._path)
        except ArtifactError:
            return {}
        if kept["reader"] != _reader():
            return {}
        return {
            key: ModuleText(text["digest"], tuple(text["imports"]))
            for key, text in kept["texts"].items()
        }


def _reader() -> str:
    """Return what stands for all that a text is read by."""
    text = inspect.getsource(code)
    return f"{digest_bytes(text.encode())} {platform.python_version()}"
