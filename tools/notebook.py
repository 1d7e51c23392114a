"""The notebook, run on the results beside it, with what it shows: `python -m tools.notebook`."""

from __future__ import annotations

from pathlib import Path

import nbformat
from nbclient import NotebookClient

PAGE = Path(__file__).parents[1] / "docs" / "notebook.ipynb"


def executed(folder: Path) -> nbformat.NotebookNode:
    """Return the notebook with the outputs of its cells, which run in a folder.

    Raises:
        CellExecutionError: if a cell fails; says which, and how.
    """
    notebook = nbformat.read(PAGE, as_version=4)
    NotebookClient(
        notebook,
        timeout=600,
        startup_timeout=300,
        record_timing=False,
        resources={"metadata": {"path": str(folder)}},
    ).execute()
    for cell in notebook.cells:
        # Warnings of libraries name folders of the machine.
        if cell.cell_type == "code":
            cell.outputs = [one for one in cell.outputs if one.get("name") != "stderr"]
    return notebook


if __name__ == "__main__":
    nbformat.write(executed(PAGE.parent), PAGE)
