"""Render result tables as HTML pages for the report."""

from taskgrid.plots.pages import write_page
from taskgrid.workflow.command import parse, run


def main() -> None:
    """Read both tables, write their pages."""
    args = parse(__doc__, paths=("summary", "summary-page", "selected", "selected-page"))
    write_page(args.summary, args.summary_page, "summary")
    write_page(args.selected, args.selected_page, "selected")


if __name__ == "__main__":
    run(main)
