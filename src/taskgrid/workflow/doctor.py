"""What is missing before the first GPU hour: data, weights, experts, GPUs, disk, hub, registry.

Nothing is downloaded or changed, and nothing here needs torch.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from taskgrid.config.architectures import local_weights
from taskgrid.config.experiment import Experiment
from taskgrid.config.sections.task import TaskSpec
from taskgrid.data.published.reading import read_description
from taskgrid.errors import TaskgridError
from taskgrid.machine.devices import visible_gpus
from taskgrid.remote.cache import CachedRepository, is_repository
from taskgrid.sentences import without_secrets
from taskgrid.workflow.settings import transport

State = Literal["ready", "download", "missing"]

_SPARE = 2e9
_HUB = "https://huggingface.co"


@dataclass(frozen=True)
class Finding:
    """What was found out about one need of an experiment.

    Attributes:
        need: what it is: ``data of cars``, ``weights of vit-b-32``.
        state: it is there; it will be downloaded; or a person must see to it.
        detail: where it is, what is missing, and what to do.
    """

    need: str
    state: State
    detail: str


def examine(
    experiment: Experiment,
    results: Path,
    *,
    reach: Callable[[str], bool] | None = None,
) -> list[Finding]:
    """Look for everything that an experiment needs from outside.

    Args:
        experiment: the experiment.
        results: the folder its results go to.
        reach: says whether an address answers; a short connection by default.
    """
    reach = reach or _reachable
    findings = [_data(experiment.task(name)) for name in experiment.tasks]
    findings += [_weights(experiment, name) for name in experiment.models]
    findings += [finding for name in experiment.imports for finding in _experts(experiment, name)]
    findings += [
        finding
        for name in experiment.transports
        for finding in _transported(experiment, name, results)
    ]
    findings += [_device(experiment), _disk(experiment, results)]
    findings += _addresses(experiment, findings, reach)
    return findings


def report(findings: list[Finding]) -> str:
    """Return the findings as text, one line each, what a person must see to at the end."""
    order: tuple[State, ...] = ("ready", "download", "missing")
    rows = sorted(findings, key=lambda finding: order.index(finding.state))
    width = max(len(finding.need) for finding in rows)
    lines = [f"{row.state:8}  {row.need:{width}}  {row.detail}" for row in rows]
    count = sum(finding.state == "missing" for finding in findings)
    verdict = (
        f"{count} of {len(findings)} needs are not met; see the lines that begin with `missing`"
        if count
        else "everything is there or can be downloaded"
    )
    return without_secrets("\n".join([*lines, "", verdict]))


def _data(task: TaskSpec) -> Finding:
    need = f"data of {task.name}"
    if task.source == "builtin":
        return Finding(need, "ready", "built in")
    if task.source != "published":
        there = task.path is not None and Path(task.path).expanduser().exists()
        return Finding(need, "ready" if there else "missing", f"{task.path}")
    try:
        description = read_description(task.dataset)
    except TaskgridError as error:
        return Finding(need, "missing", str(error))
    if task.options.get("layout") == "original":
        folder = Path(task.path or "data").expanduser()
        absent = [part for part in description.original.needs if not (folder / part).exists()]
        if not absent:
            return Finding(need, "ready", str(folder))
        if description.original.files and not description.original.manual:
            return Finding(need, "download", description.original.files[0].url)
        return Finding(
            need,
            "missing",
            f"{folder / absent[0]} is not there; get it from {description.homepage} "
            f"(docs/datasets.md says what goes where)",
        )
    hub = description.hub
    if hub is None:
        return Finding(
            need, "missing", "not on the hub; set `options: {layout: original}` on the task"
        )
    found = _cached(hub.repository, "dataset", hub.revision, tuple(hub.files.values()), task.path)
    if found is not None:
        return Finding(need, "ready", f"{hub.repository} at {found[:12]}, in the cache")
    terms = f"; {description.terms}" if description.terms else ""
    return Finding(need, "download", f"{_HUB}/datasets/{hub.repository}{terms}")


def _weights(experiment: Experiment, name: str) -> Finding:
    model = experiment.model(name)
    need = f"weights of {name}"
    try:
        path = local_weights(model.architecture, model.pretrained)
    except TaskgridError as error:
        return Finding(need, "missing", str(error))
    if path is not None or model.pretrained == "random":
        return Finding(need, "ready", str(path or "random"))
    return Finding(
        need,
        "download",
        f"{model.architecture} {model.pretrained}, by open_clip, unless it is in its cache",
    )


def _experts(experiment: Experiment, name: str) -> Iterator[Finding]:
    spec = experiment.imported(name)
    for task in experiment.trained:
        need, place = f"expert of {task} ({name})", spec.place(task)
        path = Path(place).expanduser()
        if path.exists():
            yield Finding(need, "ready", str(path))
        elif not is_repository(place):
            yield Finding(
                need, "missing", f"{place} does not exist; correct `experts`, or put it there"
            )
        else:
            pattern = spec.file_of(task) or "*.safetensors"
            found = _cached(place, "model", spec.revision_of(task), (pattern,), None)
            state: State = "download" if found is None else "ready"
            yield Finding(need, state, f"{_HUB}/{place}" + (f" at {found[:12]}" if found else ""))


def _transported(experiment: Experiment, name: str, results: Path) -> Iterator[Finding]:
    # What this run has itself, it makes.
    if Path(experiment.transport(name).results).resolve() == results.resolve():
        return
    for task in experiment.trained:
        found = transport.files(experiment, name, task)
        paths = (found.card, found.base, found.manifest, found.expert)
        absent = [path for path in paths if not Path(path).exists()]
        yield Finding(
            f"expert of {task} ({name})",
            "missing" if absent else "ready",
            f"{absent[0]} is not there; finish the other run" if absent else found.expert,
        )


def _cached(
    repository: str,
    kind: Literal["dataset", "model"],
    revision: str | None,
    patterns: tuple[str, ...],
    cache: str | None,
) -> str | None:
    """Return the commit whose files are all in the cache, or None."""
    with contextlib.suppress(TaskgridError, OSError):
        place = CachedRepository(repository, kind, cache)
        snapshot = place.snapshot(revision or "main", patterns)
        return snapshot.commit if snapshot is not None else None
    return None


def _device(experiment: Experiment) -> Finding:
    gpus, wanted = visible_gpus(), experiment.config.device
    if gpus and wanted != "cpu":
        return Finding("device", "ready", f"{len(gpus)} GPU, a job at a time on each")
    if wanted == "cuda":
        return Finding(
            "device", "missing", "no GPU is visible here; on a cluster that is as it should be"
        )
    large = any(experiment.parameters(name) > 5e6 for name in experiment.models)
    note = (
        "only a CPU here, and a model of this size wants a GPU; `device: cpu` accepts it"
        if large
        else "CPU"
    )
    return Finding("device", "missing" if large and wanted == "auto" else "ready", note)


def _disk(experiment: Experiment, results: Path) -> Finding:
    needed = disk_bytes(experiment)
    there = results
    while not there.exists():
        there = there.absolute().parent
    free = shutil.disk_usage(there).free
    text = f"about {needed / 1e9:.1f} GB for {results}, {free / 1e9:.1f} GB free"
    enough = free > needed + _SPARE
    return Finding("disk", "ready" if enough else "missing", text)


def disk_bytes(experiment: Experiment) -> int:
    """Return about how many bytes an experiment's decoded images, experts and vectors take."""
    images = 0
    for size in {experiment.image_size(name) for name in experiment.models}:
        for name in experiment.tasks:
            images += _images(experiment.task(name)) * size * size * 3
    experts = sum(
        2 * len(experiment.trained) * 4 * experiment.parameters(run.model)
        for run in experiment.runs
    )
    bases = sum(4 * experiment.parameters(name) for name in experiment.models)
    return images + experts + bases


def _images(task: TaskSpec) -> int:
    if task.source != "published":
        # Those that are built in hold about 2,500; of a person's own nothing is known.
        return 2_500
    with contextlib.suppress(TaskgridError):
        counts = read_description(task.dataset).counts.values()
        return sum(min(count, task.limit or count) for count in counts)
    return 0


def _addresses(
    experiment: Experiment, findings: list[Finding], reach: Callable[[str], bool]
) -> Iterator[Finding]:
    if any(finding.state == "download" for finding in findings):
        endpoint = os.environ.get("HF_ENDPOINT", _HUB)
        if os.environ.get("HF_HUB_OFFLINE", "") in ("1", "true", "TRUE", "YES"):
            yield Finding(
                "hub", "missing", "HF_HUB_OFFLINE is set, but something must be downloaded"
            )
        elif reach(endpoint):
            yield Finding("hub", "ready", endpoint)
        else:
            yield Finding(
                "hub",
                "missing",
                f"{endpoint} cannot be reached from here; download where there is a network and copy "
                "the cache",
            )
    uri = os.environ.get("MLFLOW_TRACKING_URI") or experiment.config.tracking.uri or ""
    if uri.startswith("http"):
        answers = reach(uri)
        shown = urlsplit(uri).hostname
        yield Finding(
            "registry",
            "ready" if answers else "missing",
            f"{shown}"
            if answers
            else f"{shown} cannot be reached; results are kept, and "
            "`snakemake registry` writes them later",
        )


def _reachable(address: str) -> bool:
    parts = urlsplit(address)
    if parts.scheme == "file":
        return Path(parts.path).exists()
    port = parts.port or (80 if parts.scheme == "http" else 443)
    try:
        with socket.create_connection((parts.hostname or "", port), timeout=5):
            return True
    except OSError:
        return False
