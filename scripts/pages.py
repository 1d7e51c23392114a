"""Render result tables as HTML pages for the report."""

from pathlib import Path

from taskgrid.plots.pages import write_page
from taskgrid.workflow.command import parse, run


def main() -> None:
    """Read each table, write its page."""
    args = parse(__doc__, paths=(), lists=("tables", "pages"))
    for table, page in zip(args.tables, args.pages, strict=True):
        write_page(table, page, Path(page).stem)


if __name__ == "__main__":
    run(main)
