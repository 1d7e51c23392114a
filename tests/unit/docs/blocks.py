"""The code that pages show."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).resolve().parents[3] / "docs"
_BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"(?:^(?: {4}.*)?\n)+", re.MULTILINE)


def blocks(page: Path, language: str) -> list[str]:
    """Return the fenced blocks of a language, in order."""
    return [text for _, found, text in _BLOCK.findall(page.read_text()) if found == language]


def commands(page: Path) -> list[str]:
    """Return the lines of a page's blocks for the shell and of indented ones, joined where they go on."""
    text = page.read_text()
    shell = blocks(page, "sh") + _INDENTED.findall(_BLOCK.sub("", text))
    lines = "\n".join(shell).replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip()]


def inline(page: Path) -> list[str]:
    """Return the code within the text of a page."""
    found: list[str] = re.findall(r"`([^`\n]+)`", _BLOCK.sub("", page.read_text()))
    return found
