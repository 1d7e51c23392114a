"""Write the run record of a fine-tuning: settings, curves, lineage."""

from pathlib import Path

from taskgrid.provenance.commit import commit
from taskgrid.store.atomic import read_json
from taskgrid.store.tables import read_table
from taskgrid.tracking.building.experts import expert_record
from taskgrid.tracking.records import Artifact, write_records
from taskgrid.workflow.command import parse, run


def main() -> None:
    """Read an expert's manifest, history and timing, write its record."""
    args = parse(__doc__, paths=("manifest", "history", "timing", "record"))
    record = expert_record(
        read_json(args.manifest),
        args.settings,
        [tuple(row.values()) for row in read_table(args.history).to_pylist()],
        read_json(args.timing)["seconds"],
        weights=str(Path(args.manifest).with_name("expert.safetensors")),
        artifacts=[Artifact.of(args.manifest)],
        machine=commit(),
    )
    write_records(args.record, [record])


if __name__ == "__main__":
    run(main)
