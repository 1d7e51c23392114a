"""Prove that a reduced precision does what fp32 does: base, experts and one merge, both ways."""

from taskgrid.evaluation.opening.files import open_files
from taskgrid.evaluation.opening.references import read_method
from taskgrid.evaluation.plan.planner import make_plan
from taskgrid.evaluation.precision.proving import passes, prove_with_engines
from taskgrid.lattice.subsets import subset_name
from taskgrid.machine.devices import lease_device
from taskgrid.machine.progress import Progress
from taskgrid.merging.recipe import MergeRecipe
from taskgrid.workflow.command import parse, run
from taskgrid.workflow.listing import Listing
from taskgrid.workflow.setting import setting_of


def main() -> None:
    """Read all that a run is evaluated with; write the proof, or say why there is none."""
    args = parse(__doc__, paths=("proof",))
    settings, listing = args.settings, Listing.read(args.listing)
    name, options = settings["method"], settings["options"]
    setting = setting_of(settings, listing)
    reference = read_method(name, options, settings["seed"], needs=settings["needs"])
    plan = make_plan(setting, reference, [subset_name(listing.tasks)], [settings["lambda"]])
    total = passes(plan, settings["images"])
    with lease_device(args.device) as device, Progress("precision", total, "image") as bar:
        proof = prove_with_engines(
            plan,
            open_files(listing.files(), setting, reference.learned),
            MergeRecipe.of(name, options, reference.seed),
            images=settings["images"],
            tolerance=settings["tolerance"],
            device=device,
            batch_size=settings["batch_size"],
            compiled=settings["compile"],
            advance=bar.advance,
        )
    # A refused proof is not kept: what it saw stays in the log.
    print(*proof.rows(), proof.sentence(), sep="\n")
    proof.insist()
    proof.write(args.proof)


if __name__ == "__main__":
    run(main)
