"""A release's notes, its section of CHANGELOG.md: `python -m tools.release 0.1.0`."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

CHANGELOG = Path(__file__).resolve().parents[1] / "CHANGELOG.md"


def notes(changelog: str, version: str) -> str:
    """Return what a changelog says of a version, without its heading.

    Raises:
        SystemExit: if it says nothing.
    """
    found = re.search(
        rf"^## {re.escape(version)}(?!\S)[^\n]*\n(.*?)(?=^## |\Z)",
        changelog,
        re.MULTILINE | re.DOTALL,
    )
    if found is None or not found[1].strip():
        raise SystemExit(f"CHANGELOG.md has no section '## {version}', or an empty one")
    return found[1].strip() + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("version")
    print(notes(CHANGELOG.read_text(encoding="utf-8"), parser.parse_args().version), end="")
