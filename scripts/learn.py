"""Learn what a merge method that learns needs for a subset."""

from taskgrid.evaluation.learning import learn, learned_file
from taskgrid.evaluation.opening.files import open_files
from taskgrid.lattice.subsets import parse_subset
from taskgrid.machine.devices import lease_device
from taskgrid.machine.progress import Progress
from taskgrid.machine.timing import Stopwatch
from taskgrid.merging.recipe import MergeRecipe
from taskgrid.store.atomic import write_json
from taskgrid.store.weights import save_state
from taskgrid.workflow.command import parse, run
from taskgrid.workflow.listing import Listing
from taskgrid.workflow.setting import setting_of


def main() -> None:
    """Read base, vectors, heads and images; write coefficients and tensors with what they come from."""
    args, clock = parse(__doc__, paths=("coefficients", "tensors", "timing")), Stopwatch()
    settings, listing = args.settings, Listing.read(args.listing)
    setting = setting_of(settings, listing)
    recipe = MergeRecipe.of(settings["method"], settings["options"])
    subset, material = parse_subset(settings["subset"]), open_files(listing.files(), setting, {})
    with lease_device(args.device) as device:
        learning = learn(material, setting, recipe, subset, device, Progress.of(recipe.name))
    lineage = {"kind": "learned", "method": recipe.name, "subset": settings["subset"]}
    save_state(args.tensors, learning.tensors, lineage | {"base": setting.base})
    write_json(args.coefficients, learned_file(setting, recipe, subset, learning))
    write_json(args.timing, clock.to_json())
    print(f"{recipe.name}: learned for {settings['subset']}")


if __name__ == "__main__":
    run(main)
