"""Subtract theta_0 from an expert."""

from dataclasses import asdict

from taskgrid.experts.vector import vector_of
from taskgrid.models.card import ModelCard, check_expert
from taskgrid.store.atomic import read_json, write_json
from taskgrid.store.tables import write_csv
from taskgrid.store.weights import load_state
from taskgrid.workflow.command import parse, run


def main() -> None:
    """Read base and expert, write the task vector, its manifest and its norms per layer."""
    args = parse(__doc__, paths=("card", "base", "expert", "vector", "manifest", "norms"))
    base, _ = load_state(args.base)
    expert, lineage = load_state(args.expert)
    check_expert(lineage, ModelCard.from_json(read_json(args.card)))
    vector = vector_of(base, expert, lineage)
    digest = vector.save(args.vector)
    norms = vector.norm_table(base)
    write_csv(args.norms, [asdict(row) for row in norms])
    write_json(args.manifest, {**vector.lineage, "digest": digest})
    print(
        f"tau of {lineage['task']}: norm {norms[-1].norm:.4f}, {norms[-1].relative:.2%} of theta_0's"
    )


if __name__ == "__main__":
    run(main)
