"""Experts of another base: where the other run has them, and how they are brought here."""

from __future__ import annotations

from dataclasses import astuple, dataclass, replace
from pathlib import Path

from taskgrid import plugins
from taskgrid.config import Experiment
from taskgrid.config.sections.transport import CalibrationSpec, TransportSpec
from taskgrid.errors import ConfigError
from taskgrid.plugins.cards import aligner_card, plugin_options
from taskgrid.plugins.options import Options
from taskgrid.provenance.digests import canonical_json
from taskgrid.sentences import tail
from taskgrid.workflow import paths
from taskgrid.workflow.files import Files, files_of

BASES = "bases"
"""What a transport is called that all tasks share; one of a task has the task's name."""


@dataclass(frozen=True)
class SourceFiles:
    """What the other run has of an expert: its base and card, the expert and its manifest."""

    card: str
    base: str
    manifest: str
    expert: str


def files(experiment: Experiment, name: str, task: str) -> SourceFiles:
    """Return the files of an expert in the other run's results folder."""
    spec = experiment.transport(name)
    known = {"model": spec.model, "mode": spec.mode, "seed": spec.seed, "task": task}
    patterns = (paths.CARD, paths.BASE, paths.EXPERT_MANIFEST, paths.EXPERT)
    return SourceFiles(*(_moved(pattern.format(**known), spec.results) for pattern in patterns))


def check(experiment: Experiment) -> None:
    """Refuse transports of experts that are not there.

    Where results are finished, Snakemake (9.27) takes them as they are when what they are made of cannot be
    made: such a transport would be left out without a word.

    Raises:
        ConfigError: if there is one; the text names the file and says what to do.
    """
    for name in experiment.transports:
        for task in experiment.trained:
            if missing := _absent(experiment, name, task):
                raise ConfigError(
                    f"transport {name!r}: {tail(missing[0])}, for the expert of task {task!r}, does not "
                    "exist; correct `from`, `model`, `mode` or `seed`, or finish the other run"
                )


def expert(experiment: Experiment, *, model: str, mode: str, seed: str, task: str) -> str:
    """Return the settings of a transport."""
    spec = experiment.transport(mode)
    return canonical_json(
        {
            "model": model,
            "mode": mode,
            "seed": int(seed),
            "task": task,
            "aligner": spec.aligner,
            "options": dict(_options(experiment, mode)),
            "carry": spec.carry,
            "source": {"model": spec.model, "mode": spec.mode, "seed": spec.seed},
        }
    )


def aligned(
    experiment: Experiment, pattern: str, *, model: str, mode: str, seed: str, task: str
) -> str:
    """Return the file of a pattern of the transport that brings an expert here."""
    of = task if _per_task(experiment, mode) else BASES
    return pattern.format(model=model, mode=mode, seed=seed, of=of)


def looks(experiment: Experiment, name: str) -> bool:
    """Return whether an aligner looks at images."""
    return experiment.transport(name).sees != "nothing"


def alignment(experiment: Experiment, *, model: str, mode: str, seed: str, of: str) -> str:
    """Return the settings of an alignment."""
    spec = experiment.transport(mode)
    shown = spec.calibration or CalibrationSpec()
    calibration = {"images": shown.images, "draw": shown.draw}
    return canonical_json(
        {
            "aligner": spec.aligner,
            "options": dict(_options(experiment, mode)),
            "seed": int(seed),
            "task": of if _per_task(experiment, mode) else "",
            "calibration": calibration if looks(experiment, mode) else {},
        }
    )


def alignment_files(experiment: Experiment, *, model: str, mode: str, seed: str, of: str) -> Files:
    """Return what an alignment is made from: both bases, and what the aligner looks at beside them."""
    theirs = files(experiment, mode, of)
    run = {"source_card": theirs.card, "source_base": theirs.base}
    if _per_task(experiment, mode):
        run |= {"source_manifest": theirs.manifest, "source_expert": theirs.expert}
    spec = experiment.transport(mode)
    kinds = ["card", "base"]
    kinds += ["split", "images"] if looks(experiment, mode) else []
    mapped = spec.output == "heads"
    kinds += ["head", "head_manifest"] if mapped or spec.sees == "labels" else []
    tasks = _shown(experiment, mode, of)
    ours = files_of(experiment, kinds, tasks, model=model, mode=mode, seed=seed)
    heads = {task: _source_heads(spec, task) if mapped else {} for task in tasks}
    return replace(
        ours,
        run={**ours.run, **run},
        tasks={task: {**found, **heads[task]} for task, found in ours.tasks.items()},
    )


def modules(experiment: Experiment, name: str) -> list[str]:
    """Return the plug-in that aligns."""
    return [plugins.module_of("aligner", experiment.transport(name).aligner)]


def _absent(experiment: Experiment, name: str, task: str) -> list[str]:
    """Return what there is not of an expert's files in the other run, but for what this run makes."""
    spec = experiment.transport(name)
    made = {*experiment.modes, *experiment.imports, *experiment.transports}
    own = Path(spec.results).expanduser().resolve() == Path("results").resolve()
    if own and spec.model in experiment.models and spec.mode in made:
        return []
    wanted = [*astuple(files(experiment, name, task))]
    if spec.output == "heads":
        for other in _shown(experiment, name, task):
            wanted += _source_heads(spec, other).values()
    return [path for path in wanted if not Path(path).exists()]


def _shown(experiment: Experiment, name: str, of: str) -> tuple[str, ...]:
    """Return the tasks whose images an aligner looks at, or by whose heads the output is mapped."""
    spec = experiment.transport(name)
    calibration = spec.calibration
    if not looks(experiment, name) and spec.output == "same":
        return ()
    if calibration is not None and calibration.tasks is not None:
        return tuple(sorted(calibration.tasks))
    return (of,) if _per_task(experiment, name) else tuple(sorted(experiment.trained))


def _source_heads(spec: TransportSpec, task: str) -> dict[str, str]:
    patterns = {"source_head": paths.HEAD, "source_head_manifest": paths.HEAD_MANIFEST}
    return {
        kind: _moved(pattern.format(model=spec.model, task=task), spec.results)
        for kind, pattern in patterns.items()
    }


def _per_task(experiment: Experiment, name: str) -> bool:
    return aligner_card(experiment.transport(name).aligner).per == "task"


def _options(experiment: Experiment, name: str) -> Options:
    spec = experiment.transport(name)
    return plugin_options("aligner", spec.aligner, spec.options)


def _moved(path: str, results: str) -> str:
    return str(Path(results).expanduser() / path.removeprefix("results/"))
