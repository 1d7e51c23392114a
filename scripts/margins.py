"""Find by how much the validation images of a run of tangent models are right, at any coefficients."""

from pathlib import Path
from typing import cast

from taskgrid.evaluation.opening.engines import engine_on_demand
from taskgrid.evaluation.opening.files import open_files
from taskgrid.evaluation.opening.references import read_method
from taskgrid.evaluation.tangent.margins import margins_table
from taskgrid.evaluation.tangent.peaks import Lines
from taskgrid.store.tables import write_table
from taskgrid.workflow.command import parse, run
from taskgrid.workflow.listing import Listing
from taskgrid.workflow.setting import setting_of


def main() -> None:
    """Read experts, heads and images, or their stored features; write the rivals that decide."""
    args = parse(__doc__, paths=("store", "table"))
    settings, listing = args.settings, Listing.read(args.listing)
    setting = setting_of(settings, listing)
    with engine_on_demand(
        open_files(listing.files(), setting, {}),
        setting,
        # Where each vector has weight 1, coefficients are those of the vectors themselves.
        read_method(settings["method"], {}, settings["seed"]),
        device=args.device,
        batch_size=settings["batch_size"],
        store=Path(args.store),
    ) as open_engine:
        # A setting of tangent models opens the engine that knows their lines.
        lines = cast(Lines, open_engine())
        table = margins_table(
            lines, settings["tasks"], settings["moving"], settings["low"], settings["high"]
        )
    write_table(args.table, table)
    print(f"{table.num_rows} rivals decide between {settings['low']} and {settings['high']}")


if __name__ == "__main__":
    run(main)
