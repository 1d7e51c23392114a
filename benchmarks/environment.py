"""The environment of the programs that taskgrid is compared with: apart, with the same torch.

python benchmarks/environment.py [FOLDER]
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
WANTED = HERE / "peers-requirements.txt"


def default_folder() -> Path:
    """Return where it is: ``$TASKGRID_PEERS``, or beside the project's own environment."""
    return Path(os.environ.get("TASKGRID_PEERS") or HERE.parent / ".venv-peers")


def python_of(folder: Path) -> Path | None:
    """Return its Python; None where it is not made, or of other versions than are wanted now."""
    ready = folder / ".ready"
    if not ready.exists() or ready.read_text() != WANTED.read_text():
        return None
    return folder / "bin" / "python"


def environment(folder: Path) -> Path:
    """Return its Python; make it if need be.

    A line in a .pth file lends it the packages that taskgrid runs with.
    """
    python = python_of(folder)
    if python is None:
        print(f"making the peers' environment in {folder}", flush=True)
        venv.create(folder, with_pip=True, symlinks=True)
        python = folder / "bin" / "python"
        site = next((folder / "lib").glob("python*/site-packages"))
        (site / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
        subprocess.run([python, "-m", "pip", "install", "-q", "-r", WANTED], check=True)
        (folder / ".ready").write_text(WANTED.read_text())
    return python


def offline() -> dict[str, str]:
    """Return the variables that peers run with: they are to ask nobody and to draw no bars."""
    return {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


if __name__ == "__main__":
    print(environment(Path(sys.argv[1]) if len(sys.argv) > 1 else default_folder()))
