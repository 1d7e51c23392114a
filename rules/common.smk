import re
import shlex
import sys
from dataclasses import asdict
from pathlib import Path

from snakemake.exceptions import WorkflowError

ROOT = Path(workflow.basedir)
sys.path.insert(0, f"{ROOT}/src")

from taskgrid import plugins
from taskgrid.config import Experiment, read_config
from taskgrid.machine.devices import visible_gpus
from taskgrid.errors import TaskgridError
from taskgrid.provenance import canonical_json, code_closure
from taskgrid.provenance.listing import fingerprint
from taskgrid.remote.cache import is_repository
from taskgrid.store.atomic import check_writable, read_json

SCRIPTS = ROOT / "scripts"

# Read again from the files, because Snakemake knows nothing of `extends`.
CONFIG_FILES = [
    *(
        file
        for file in workflow.configfiles
        if file not in workflow.overwrite_configfiles
    ),
    *workflow.overwrite_configfiles,
]
if workflow.config_settings.replace_workflow_config:
    CONFIG_FILES = workflow.overwrite_configfiles

try:
    E = Experiment(read_config(*CONFIG_FILES, values=workflow.config_settings.config))
    E.check()
    check_writable("results")
except TaskgridError as error:
    raise WorkflowError(str(error)) from None


def one_of(names):
    """Pattern of a wildcard that is one of some names; of none, it never matches."""
    return "|".join(re.escape(str(name)) for name in names) or "(?!)"


wildcard_constraints:
    model=one_of(E.models),
    task=one_of(E.tasks),
    mode=one_of({run.mode for run in E.runs}),
    seed=one_of({run.seed for run in E.runs}),
    method=one_of(E.methods),
    block=r"\d{5}(-\d{5})?",
    pixels=r"\d+px",


# A job needs a GPU where there is one, so that it does not wait where there is none.
VISIBLE_GPUS = [] if E.config.device == "cpu" else visible_gpus()
GPU = int(bool(VISIBLE_GPUS) or E.config.device == "cuda")

# On one machine, as many GPU jobs at once as it has GPUs. Said here and in no profile, for the
# workflow profile is read with every other one and wins. With `--jobs`, which every cluster asks
# for, a limit is the cluster's and the profile's or the user's to say.
if VISIBLE_GPUS and workflow.nodes is None and "gpu" not in workflow.global_resources:
    workflow.register_resource("gpu", len(VISIBLE_GPUS))

# What a command needs and no result depends on: set here, so that a change of it re-runs nothing.
# Scripts import the library of this checkout, installed or not; with conda the rule's environment
# has the python, without, the one that runs Snakemake does.
ENVIRONMENT = {
    "PYTHON": (
        "python" if workflow.deployment_settings.deployment_method else sys.executable
    ),
    "PYTHONPATH": ROOT / "src",
    "SCRIPTS": SCRIPTS,
    "DEVICE": E.config.device,
    "CHECKPOINT_SECONDS": E.config.finetune.checkpoint_seconds,
}
# A prefix takes the place of Snakemake's own, which makes a pipe fail with its first command.
shell.prefix(
    "set -euo pipefail; "
    + "".join(
        f"export {name}={shlex.quote(str(value))}; "
        for name, value in ENVIRONMENT.items()
    )
)


def code(script, *modules):
    """Digests of a script, of plug-ins, and of every library module that they import."""
    return code_closure(SCRIPTS / script, *modules)


RUNS = [asdict(run) for run in E.runs]
EXPERT_RUNS = [asdict(run) for run in E.expert_runs]
STUDIES = [E.study(label).name for label in E.studies]
STUDY_MODULES = [plugins.module_of("study", name) for name in STUDIES]


def pixels(wildcards):
    return E.pixels(wildcards.model)


def task_files(pattern, tasks=lambda wildcards: E.tasks):
    """Input function: one file per task; the other wildcards are the rule's own."""

    def files(wildcards):
        # First, because it may say that a wildcard names nothing.
        chosen = tasks(wildcards)
        known = {**dict(wildcards.items()), "pixels": pixels(wildcards)}
        # Evaluated post hoc, experts and vectors are those of another mode.
        known["trained"] = E.experts_of(wildcards.get("mode", ""))
        return [pattern.format(**known | {"task": task}) for task in chosen]

    return files


def point_tasks(wildcards):
    """Tasks of the grid point that a target names, as tables name it."""
    names = ("model", "mode", "seed", "method", "subset", "scale")
    try:
        return E.point_tasks(*(wildcards[name] for name in names))
    except TaskgridError as error:
        raise WorkflowError(str(error)) from None


def run_files(pattern, runs=RUNS, **more):
    """Files of every run, and of every value of the wildcards given beside them."""
    return [file for run in runs for file in expand(pattern, **run, **more)]


def expert_files(name):
    return run_files(
        "results/experts/{model}/{mode}/{seed}/{task}/{name}",
        EXPERT_RUNS,
        name=name,
        task=E.tasks,
    )


def block_files(name, runs=RUNS):
    return run_files(
        "results/eval/{model}/{mode}/{seed}/{method}/{block}/{name}",
        runs,
        name=name,
        method=E.methods,
        block=[block.label for block in E.blocks],
    )
