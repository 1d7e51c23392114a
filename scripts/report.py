"""Write the report: the result, then every figure and table."""

from taskgrid.report.page import write_page
from taskgrid.workflow.command import parse, run


def main() -> None:
    """Read the tables and figures, write the page."""
    args = parse(__doc__, paths=("grid", "selected", "page"), lists=("figures", "tables"))
    write_page(args.page, args.settings, args.grid, args.selected, args.figures, args.tables)
    print(f"report: {args.page}, {len(args.figures)} figures, {len(args.tables)} tables")


if __name__ == "__main__":
    run(main)
