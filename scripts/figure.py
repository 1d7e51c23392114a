"""Draw a figure from tables."""

from taskgrid.plots.render import read_tables, write_figure
from taskgrid.plots.sheet import sheet_from
from taskgrid.workflow.command import parse, run


def main() -> None:
    """Read the tables that the figure needs, write it as PDF and PNG."""
    args = parse(__doc__, paths=("figure", "pdf", "png"))
    sheet = sheet_from(args.settings)
    write_figure(args.figure, read_tables(args.listing), sheet, args.pdf, args.png)
    print(f"{args.figure}: {args.pdf}, {args.png}")


if __name__ == "__main__":
    run(main)
