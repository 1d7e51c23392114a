"""Studies: which ask for rows, and the tables that are their own."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from taskgrid import plugins
from taskgrid.config import Experiment
from taskgrid.config.experiment import Run
from taskgrid.config.sections.transport import CalibrationSpec
from taskgrid.errors import ConfigError
from taskgrid.evaluation.plan.asking import StudyRef, check_studies
from taskgrid.lattice.subsets import canonical_subset, subset_of_number
from taskgrid.plugins.cards import plugin_options, study_card
from taskgrid.provenance.digests import canonical_json
from taskgrid.sentences import choices, shown
from taskgrid.studies.seam import Field
from taskgrid.workflow import paths
from taskgrid.workflow.project import rule_names
from taskgrid.workflow.runs import plain_runs


def asking(experiment: Experiment) -> tuple[str, ...]:
    """Return the labels of the studies that ask for rows; the others read what is there."""
    return tuple(
        label for label in experiment.studies if study_card(experiment.study(label).name).rule
    )


def field(experiment: Experiment) -> Field:
    """Return what studies may know of an experiment's tasks."""
    control = sorted(set(experiment.tasks) - set(experiment.trained))
    return Field(tuple(sorted(experiment.trained)), tuple(control))


def check(experiment: Experiment) -> None:
    """Refuse studies whose options the tasks and subsets do not fit.

    Raises:
        ConfigError: if there is one; the text says what to do.
    """
    refs = [StudyRef(**reference(experiment, label)) for label in experiment.studies]
    for ref in refs:
        read = ref.options.get("study", ref.label)
        if read not in experiment.studies:
            raise ConfigError(
                f"study {ref.label!r} has the option study: {shown(read)}, which is not among studies; "
                f"{choices(read, experiment.studies)}"
            )
        if ref.label in rule_names():
            raise ConfigError(
                f"studies: {ref.label!r} is the name of a rule; give the study another `label`"
            )
    grids = {frozenset(experiment.numbers_of(method)) for method in experiment.methods}
    trained = experiment.trained
    merged = [
        {canonical_subset(subset_of_number(number, trained)) for number in numbers}
        for numbers in sorted(grids, key=len, reverse=True)
    ]
    check_studies(refs, field(experiment), merged)
    if labels_of(experiment, "transfer"):
        _check_lines(experiment)


def _check_lines(experiment: Experiment) -> None:
    """Refuse transports that the study `transfer` would take for one another."""
    seen: dict[str, str] = {}
    for name in experiment.transports:
        spec, how = experiment.transport(name), _brought(experiment, name)
        if spec.carry == "model":
            continue
        for model in [spec.to] if spec.to else experiment.models:
            line = canonical_json({**how, "mode": "", "model": model, "seed": spec.seed})
            if (other := seen.setdefault(line, name)) != name:
                raise ConfigError(
                    f"study 'transfer' cannot tell transports {other!r} and {name!r} apart: both have one "
                    "aligner with the same options, images and draw; give them an experiment each"
                )


def reference(experiment: Experiment, label: str) -> dict[str, Any]:
    """Return a study's name, its name in tables, and its options with their defaults."""
    spec = experiment.study(label)
    options = dict(plugin_options("study", spec.name, spec.options))
    return {"name": spec.name, "label": label, "options": options}


def modules(experiment: Experiment) -> list[str]:
    """Return the plug-ins of the studies that ask for rows."""
    return [module(experiment, label) for label in asking(experiment)]


def module(experiment: Experiment, label: str) -> str:
    """Return the plug-in behind a study."""
    return plugins.module_of("study", experiment.study(label).name)


def settings(experiment: Experiment, label: str) -> str:
    """Return the settings of a study's tables."""
    return canonical_json(
        {
            **reference(experiment, label),
            "tasks": experiment.tasks,
            "brought": {name: _brought(experiment, name) for name in experiment.transports},
        }
    )


def _brought(experiment: Experiment, name: str) -> dict[str, Any]:
    """Return how experts of another base are brought here (``studies.seam.Brought``)."""
    spec = experiment.transport(name)
    shown = None if spec.sees == "nothing" else spec.calibration or CalibrationSpec()
    return {
        "aligner": spec.aligner,
        "options": dict(plugin_options("aligner", spec.aligner, spec.options)),
        "images": shown and shown.images,
        "draw": shown.draw if shown else 0,
        "mode": spec.mode,
        "carry": spec.carry,
    }


def tables(experiment: Experiment, label: str) -> list[str]:
    """Return the files of a study's own tables."""
    return [
        paths.STUDY_TABLE.format(study=label, table=table)
        for table in study_card(experiment.study(label).name).tables
    ]


def measured(experiment: Experiment, label: str, table: str) -> list[str]:
    """Return what a rule of the study's own saw for a table, a file for each run, where it has a rule."""
    folder = study_card(experiment.study(label).name).measured
    runs = looked_at(experiment, label) if folder else []
    known = {"measured": folder, "study": label, "table": table}
    return [paths.STUDY_MEASURED.format(**known, **asdict(run)) for run in runs]


def looked_at(experiment: Experiment, label: str) -> list[Run]:
    """Return the runs that a study with a rule of its own looks at: never tangent models."""
    modes = reference(experiment, label)["options"]["modes"]
    return [run for run in plain_runs(experiment) if modes is None or run.mode in modes]


def labels_of(experiment: Experiment, name: str) -> list[str]:
    """Return the labels under which a study is configured."""
    return [label for label in experiment.studies if experiment.study(label).name == name]


def every_table(experiment: Experiment) -> list[str]:
    """Return the files of all studies' own tables."""
    return [file for label in experiment.studies for file in tables(experiment, label)]
