"""Look inside the networks of a run: norms of features and weights, similarity, representation bias."""

from taskgrid.evaluation.features.edits import Asked
from taskgrid.evaluation.features.watching import watch
from taskgrid.evaluation.plan.choices import read_choices
from taskgrid.machine.devices import lease_device
from taskgrid.machine.progress import Progress
from taskgrid.store.tables import write_table
from taskgrid.workflow.command import parse, run
from taskgrid.workflow.listing import Listing
from taskgrid.workflow.setting import setting_of

TABLES = ("norms", "pixels", "similarity", "bias", "weights")


def main() -> None:
    """Read base, vectors, images and chosen points; write what was seen, a table of each kind."""
    args = parse(__doc__, paths=TABLES, lists=("choices",))
    settings, listing = args.settings, Listing.read(args.listing)
    setting = setting_of(settings, listing)
    chosen = [one for path in args.choices for one in read_choices(path)]
    asked = Asked(**settings["asked"])
    with lease_device(args.device) as device:
        found = watch(listing.files(), setting, asked, chosen, device, Progress)
    for name in TABLES:
        write_table(getattr(args, name), found[name])
    print(f"features: {asked.images or 'all'} images of each of {', '.join(setting.experts)}")


if __name__ == "__main__":
    run(main)
