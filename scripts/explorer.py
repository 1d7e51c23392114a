"""Write the page in which a person explores the grid: one file, no server, no network."""

from taskgrid.explorer.content import content
from taskgrid.explorer.exact import read_margins
from taskgrid.explorer.page import write_page
from taskgrid.results import read_frame
from taskgrid.workflow.command import parse, run


def main() -> None:
    """Read the grid, the chosen points and the margins of tangent models; write the page."""
    args = parse(__doc__, paths=("grid", "selected", "page"))
    margins = read_margins(args.listing["margins"])
    found = content(read_frame(args.grid), read_frame(args.selected), margins, args.settings)
    size = write_page(args.page, found)
    print(f"{args.page}: {size / 1e6:.1f} MB; open it in a browser")


if __name__ == "__main__":
    run(main)
