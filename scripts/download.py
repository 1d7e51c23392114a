"""Bring the images of a published task to this machine, and note what they are."""

from functools import partial

from taskgrid.data.download import obtain
from taskgrid.data.sources.seam import TaskData
from taskgrid.machine.progress import Progress
from taskgrid.workflow.command import parse, run


def main() -> None:
    """Say licence and terms, download what is not there, write the manifest."""
    args = parse(__doc__, paths=("manifest",))
    task = TaskData(**args.settings["task"])
    found = obtain(
        task,
        offline=args.settings.get("offline", False),
        progress=partial(Progress, f"download {task.name}", unit="B"),
    )
    found.write(args.manifest)
    where = f"{found.repository} at {found.commit}" if found.repository else f"{task.path}"
    print(f"{task.name}: {len(found.files)} files, {where}")


if __name__ == "__main__":
    run(main)
