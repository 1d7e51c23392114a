"""The files that a rule reads, listed once, and the JSON by which its script finds them.

A rule that reads a file per task names the kinds it needs in ``settings/``. Its inputs and the listing
that its script reads are made of the same entries here, so that a new kind of file (a statistic, say)
is one line in ``PER_TASK`` and a name in the settings of the rules that read it.

A listing goes to a script as text. It says where files are and nothing else, and is no recorded
parameter of a job: what re-runs a job are its inputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from taskgrid.config import Experiment
from taskgrid.plugins.cards import statistic_card
from taskgrid.provenance.digests import canonical_json
from taskgrid.workflow import paths


@dataclass(frozen=True)
class FileKind:
    """A kind of file.

    Attributes:
        pattern: its path.
        settled: whether its time says nothing. Weights and pixels change only together with their
            manifest, which is followed instead; a job must not run again because they were copied.
    """

    pattern: str
    settled: bool = False


PER_RUN: Mapping[str, FileKind] = {
    "card": FileKind(paths.CARD),
    "base": FileKind(paths.BASE, settled=True),
    "statistic": FileKind(paths.BASE_STATISTIC, settled=True),
    "statistic_manifest": FileKind(paths.BASE_STATISTIC_MANIFEST),
}
"""Files that a set of experts has once."""

OF_SOURCE: Mapping[str, FileKind] = {
    "source_card": FileKind(paths.CARD),
    "source_base": FileKind(paths.BASE, settled=True),
    "source_expert": FileKind(paths.EXPERT, settled=True),
    "source_manifest": FileKind(paths.EXPERT_MANIFEST),
}
"""Beside them, files in the results of another run."""

PER_TASK: Mapping[str, FileKind] = {
    "dataset": FileKind(paths.DATASET),
    "images": FileKind(paths.IMAGES, settled=True),
    "originals": FileKind(paths.ORIGINALS, settled=True),
    "split": FileKind(paths.SPLIT),
    "head": FileKind(paths.HEAD, settled=True),
    "head_manifest": FileKind(paths.HEAD_MANIFEST),
    "source_head": FileKind(paths.HEAD, settled=True),
    "source_head_manifest": FileKind(paths.HEAD_MANIFEST),
    "expert": FileKind(paths.EXPERT, settled=True),
    "expert_manifest": FileKind(paths.EXPERT_MANIFEST),
    "vector": FileKind(paths.VECTOR, settled=True),
    "vector_manifest": FileKind(paths.VECTOR_MANIFEST),
    "statistic": FileKind(paths.STATISTIC, settled=True),
    "statistic_manifest": FileKind(paths.STATISTIC_MANIFEST),
}
"""Files of each task."""

OF_LABEL = ("statistic", "statistic_manifest")
"""Files of each label, and of each task or of the base; in listings their kind is ``KIND/LABEL``."""

LEARNED = FileKind(paths.LEARNED)
"""What a merge method learned for a subset."""

LEARNED_TENSORS = FileKind(paths.LEARNED_TENSORS, settled=True)
"""Beside it, what is too large for text; listings name it no more: a shell command is only so long."""

OF_EXPERT = ("expert", "expert_manifest", "vector", "vector_manifest")
"""Files that a task without an expert does not have."""


@dataclass(frozen=True)
class Files:
    """The files that a job reads, by what they are.

    Attributes:
        run: kind -> path, of ``PER_RUN`` and ``OF_SOURCE``.
        tasks: task -> kind -> path, of ``PER_TASK``.
        learned: name of a subset -> path of what was learned for it; ``METHOD/SUBSET`` where several methods
            are read.
    """

    run: Mapping[str, str]
    tasks: Mapping[str, Mapping[str, str]]
    learned: Mapping[str, str] = field(default_factory=dict)

    @property
    def followed(self) -> list[str]:
        """Files whose change runs the job again."""
        return [path for kind, path in self._all() if not kind.settled]

    @property
    def settled(self) -> list[str]:
        """Files that are only read."""
        return [path for kind, path in self._all() if kind.settled]

    def listing(self, followed: Sequence[str], settled: Sequence[str]) -> str:
        """Return the listing for the script, with files where Snakemake has them.

        Args:
            followed: the job's input of that name; a prefix or a storage may have moved it.
            settled: the same.
        """
        moved = dict(zip([*self.followed, *self.settled], [*followed, *settled], strict=True))
        tasks = {
            task: {kind: moved[path] for kind, path in found.items()}
            for task, found in self.tasks.items()
        }
        run = {kind: moved[path] for kind, path in self.run.items()}
        learned = {subset: moved[path] for subset, path in self.learned.items()}
        more = {"learned": learned} if learned else {}
        return canonical_json({**run, "tasks": tasks, **more})

    def _all(self) -> Iterator[tuple[FileKind, str]]:
        for name, path in self.run.items():
            yield {**PER_RUN, **OF_SOURCE}[name.partition("/")[0]], path
        for found in self.tasks.values():
            for name, path in found.items():
                yield PER_TASK[name.partition("/")[0]], path
        for path in self.learned.values():
            yield LEARNED, path
            yield LEARNED_TENSORS, str(PurePosixPath(path).with_name("tensors.safetensors"))


def files_of(
    experiment: Experiment,
    kinds: Iterable[str],
    tasks: Iterable[str],
    *,
    model: str,
    mode: str,
    seed: str,
    labels: Iterable[str] = (),
) -> Files:
    """Return the files of some kinds, of a run and of some of its tasks; a control task has no expert.

    Args:
        experiment: the experiment.
        kinds: names in ``PER_RUN`` and ``PER_TASK``.
        tasks: the tasks.
        model: the run's model.
        mode: the run's mode; evaluated post hoc, experts and vectors are those of another one.
        seed: the run's seed.
        labels: of the statistics that are read, for the kinds that have one.
    """
    known = {
        "model": model,
        "mode": experiment.experts_of(mode),
        "seed": seed,
        "pixels": experiment.pixels(model),
    }
    kinds, labels = tuple(kinds), tuple(labels)
    of_base = [
        label for label in labels if statistic_card(experiment.statistic(label).name).per == "base"
    ]
    plain = [kind for kind in kinds if kind not in OF_LABEL]
    labelled = [(kind, label) for kind in kinds if kind in OF_LABEL for label in labels]
    return Files(
        {kind: PER_RUN[kind].pattern.format(**known) for kind in plain if kind in PER_RUN}
        | {
            f"{kind}/{label}": PER_RUN[kind].pattern.format(**known, label=label)
            for kind, label in labelled
            if label in of_base
        },
        {
            task: {
                kind: PER_TASK[kind].pattern.format(**known, task=task)
                for kind in plain
                if kind not in PER_RUN
                if task in experiment.trained or kind not in OF_EXPERT
            }
            | {
                f"{kind}/{label}": PER_TASK[kind].pattern.format(**known, task=task, label=label)
                for kind, label in labelled
                if task in experiment.trained and label not in of_base
            }
            for task in tasks
        },
    )
