import os
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

# The library of this checkout, installed or not, whoever's Snakefile and working folder it is.
sys.path.insert(
    0, str(Path(workflow.current_basedir.get_path_or_uri(secret_free=True)) / "../src")
)

from taskgrid.workflow import calls

logger.addFilter(calls.hide_secrets)

# Jobs on other machines read this file too, and are no calls of a person.
IS_CALL = workflow.is_main_process and workflow.modifier.is_main_snakefile()
if IS_CALL:
    calls.explain_interrupts()

from taskgrid import plugins
from taskgrid.config import Experiment, read_config
from taskgrid.errors import TaskgridError
from taskgrid.plugins.cards import figure_card
from taskgrid.plugins.resources import resource_path
from taskgrid.store.atomic import check_writable
from taskgrid.workflow import cost, paths, project, runs, stages as settings
from taskgrid.workflow.clock import bring_to_now
from taskgrid.workflow.project import code, one_of
from taskgrid.workflow.terminal import telling


def configuration():
    """What this call asks for; read from the files, because Snakemake knows nothing of `extends`."""
    if not workflow.modifier.is_main_snakefile():
        # A module of somebody else's workflow, whose files are not ours to read.
        return project.module_configuration(config)
    asked, named = workflow.config_settings, workflow.overwrite_configfiles
    values = project.call_values(asked.config, asked.config_args)
    if asked.replace_workflow_config:
        return read_config(*named, values=values)
    own = [file for file in workflow.configfiles if file not in named]
    return project.configuration([*own, *named], values)


try:
    project.check_place()
    E = Experiment(configuration())
    E.check()
    settings.studies.check(E)
    settings.features.check(E)
    settings.figures.names(E)
    settings.learn.check(E)
    settings.transport.check(E)
    settings.register.files(E)
    check_writable("results")
except TaskgridError as error:
    raise WorkflowError(str(error)) from None

if IS_CALL and (others := calls.announce()):
    logger.warning(others)


# Whoever computes here now would compute beside them.
onstart:
    on_cluster = (
        workflow.nodes is not None or Path(".snakemake/slurm_logs").is_dir()
    )
    if IS_CALL and on_cluster and (left := calls.left_behind()):
        raise WorkflowError(left)
    try:
        if moved := bring_to_now(Path("results")):
            logger.warning(moved)
        # Jobs on other machines have to know whose runs theirs are.
        settings.registry.keep("results")
        if IS_CALL and "taskgrid" in workflow.output_settings.log_handler_settings:
            logger.info("", extra=telling.of_jobs(E, MACHINE, workflow.dag))
    except TaskgridError as error:
        raise WorkflowError(str(error)) from None


wildcard_constraints:
    model=one_of(E.models),
    task=one_of(E.tasks),
    mode=one_of({run.mode for run in E.runs}),
    seed=one_of({run.seed for run in E.runs}),
    method=one_of(E.methods),
    block=project.BLOCK,
    pixels=r"\d+px",


# A job needs a GPU where there is one, so that it does not wait where there is none.
VISIBLE_GPUS = cost.visible_gpus(E)
GPU = cost.gpus(E, VISIBLE_GPUS, elsewhere=workflow.nodes is not None)

# Of a large experiment these are jobs of a cluster; of a small one they take less than its queue.
SMALL = cost.is_small(E)

# On one machine, as many GPU jobs at once as it has GPUs. Said here and in no profile, for the
# workflow profile is read with every other one and wins. With `--jobs`, which every cluster asks
# for, a limit is the cluster's and the profile's or the user's to say.
if VISIBLE_GPUS and workflow.nodes is None and "gpu" not in workflow.global_resources:
    workflow.register_resource("gpu", VISIBLE_GPUS)

if IS_CALL:
    MACHINE = telling.machine_of(
        workflow.resource_settings.cores, workflow.nodes, VISIBLE_GPUS
    )
    logger.info("", extra=telling.of_call(E, MACHINE))

ON_DEVICE = ("--device", E.config.device)


def script(name, *options):
    """Param: what calls a script. Snakemake records no param that asks for threads, so that neither a
    move of the project nor another device re-runs anything."""
    # With conda the rule's environment has the python; without, the one that runs Snakemake does.
    python = (
        "python" if workflow.deployment_settings.deployment_method else sys.executable
    )
    return lambda wildcards, threads: project.command(python, name, threads, *options)


def first(patterns, output):
    """Input that is made before `output`, and whose change does not make that again.

    It is ancient only where there is an output: Snakemake (9.27) masks whatever is downstream of a job
    that must run, then does not follow ancient edges, and so forgets a target that is missing.
    """

    def files(wildcards):
        made = Path(output.format(**wildcards)).exists()
        found = [pattern.format(**wildcards) for pattern in patterns]
        return [ancient(file) for file in found] if made else found

    return files
