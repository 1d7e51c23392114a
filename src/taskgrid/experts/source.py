"""Where a ready-made expert lies: a file, a folder, or a repository of the hub; and its provenance."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from taskgrid.errors import ArtifactError, LineageError, RemoteError
from taskgrid.machine.meter import Meter
from taskgrid.models.card import ModelCard
from taskgrid.models.hub.declared import check_declared
from taskgrid.models.hub.repository import (
    ADAPTER_CONFIG,
    INDEX,
    Reference,
    Surroundings,
    beside,
    shard_names,
    surroundings,
)
from taskgrid.models.hub.weights import adapter_sentence, check_no_adapter, read_weights
from taskgrid.remote.cache import is_repository, meant_repository
from taskgrid.remote.hub import HubFiles, fetch
from taskgrid.store.foreign import ENDINGS, kind_of
from taskgrid.store.index import read_index, shard_of, whole
from taskgrid.store.weights import HEADER, Lineage, State, parse_lineage

_ADAPTERS: Final = (ADAPTER_CONFIG, "adapter_model.safetensors", "adapter_model.bin")


@dataclass(frozen=True)
class ExpertSource:
    """What is asked for.

    Attributes:
        location: a repository (``owner/name``, with or without ``hf-hub:``), a folder, or a file.
        file: the file in the repository or folder; None takes the format's usual name.
        revision: commit, tag or branch of the repository.
        cache: the hub's cache; None is that of the hub's clients.
        offline: never use the network.
        progress: told how far a download is.
    """

    location: str
    file: str | None = None
    revision: str | None = None
    cache: str | Path | None = None
    offline: bool = False
    progress: Meter | None = None


@dataclass(frozen=True)
class ExpertFile:
    """A file of weights of an expert.

    Attributes:
        path: where it lies here.
        name: what people call it: repository and file, or the file's path.
        provenance: entries for a lineage: the file and its SHA-256, and, of the hub, the repository
            and its commit. Where a local file lies is not among them: a moved file is no other.
        around: the configuration beside it.
    """

    path: Path
    name: str
    provenance: Lineage
    around: Surroundings

    def check_declared(self, card: ModelCard, what: str) -> bool:
        """Hold the configuration beside it, if there is one, against a base; say whether there is.

        Raises:
            LineageError: if it describes another model than the base.
        """
        if self.around.declared is None:
            return False
        check_declared(
            self.around.declared,
            card.tower,
            architecture=card.architecture,
            what=f"the weights of {what}",
            source=self.around.source,
        )
        return True

    def read(self) -> tuple[State, Lineage]:
        """Return the tensors, and this project's lineage where the file carries one.

        Raises:
            ArtifactError: if the file is damaged, no weights, or a pickle that asks for more than tensors.
            LineageError: if it holds an adapter.
        """
        header, state = read_weights(self.path)
        lineage = parse_lineage(self.path, header[HEADER]) if HEADER in header else {}
        check_no_adapter(state, self.name)
        return state, lineage


def locate(
    request: ExpertSource, usual: Sequence[str], configurations: Sequence[str] = ()
) -> ExpertFile:
    """Return the file that a request means.

    Args:
        request: what is asked for.
        usual: names that the format's files have, the most usual first.
        configurations: what a repository of this format has beside the weights.

    Raises:
        ConfigError: if the location cannot be one.
        ArtifactError: if there is no such file here, or it is damaged.
        RemoteError: if the repository does not exist or cannot be reached.
    """
    if is_repository(request.location):
        return _fetched(request, [request.file] if request.file else usual, configurations)
    path = Path(request.location).expanduser()
    if path.exists() or path.is_symlink():
        return _local(path, request.file, usual)
    meant = meant_repository(request.location)
    raise ArtifactError(
        f"{request.location} does not exist; "
        + (f"write {meant} for the hub's, " if meant else "")
        + "correct `source` of the experts, or put the checkpoint there"
    )


def _local(path: Path, file: str | None, usual: Sequence[str]) -> ExpertFile:
    if path.is_dir():
        names = [file] if file is not None else [*usual, *(f"{name}{INDEX}" for name in usual)]
        found = [path / name for name in names if (path / name).is_file()]
        if not found:
            raise _none_of(path, [file] if file is not None else usual)
        path = found[0]
    path = whole(path)
    files = [path, *(read_index(path).files if kind_of(path) == "index" else ())]
    provenance = {"file": path.name, "file_sha256": _together([_sha256(file) for file in files])}
    return ExpertFile(path, str(path), provenance, beside(path))


def _none_of(folder: Path, names: Sequence[str]) -> ArtifactError | LineageError:
    """Return what to say of a folder without a file that is looked for."""
    held = sorted(file.name for file in folder.iterdir() if file.suffix.lower() in ENDINGS)
    if any(name in held for name in _ADAPTERS):
        return LineageError(adapter_sentence(str(folder)))
    for name in held:
        whole(folder / name)  # Shards that lost their index are nothing to name.
    has = f"; it holds {', '.join(held[:5])}" if held else ""
    return ArtifactError(
        f"{folder} has no {' and no '.join(names)}{has}; name the right one as `file` of the experts"
    )


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise ArtifactError(f"{path} is missing; fetch the whole checkpoint") from error


def _together(digests: Sequence[str]) -> str:
    """Return the digest of a file, or that of an index and its shards one after the other."""
    return (
        digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
    )


def _fetched(
    request: ExpertSource, names: Sequence[str], configurations: Sequence[str]
) -> ExpertFile:
    reference = Reference.parse(request.location)

    def get(*patterns: str) -> HubFiles:
        return fetch(
            reference.repository,
            kind="model",
            revision=request.revision or reference.revision,
            patterns=patterns,
            cache=request.cache,
            offline=request.offline,
            progress=request.progress,
        )

    # Of one of several shards the others are meant too.
    names = [_unsharded(name) for name in names]
    files, file = _first_of(get, names, configurations, reference.repository)
    by_name = {found.name: found for found in files.files}
    digests = [by_name[file].sha256]
    if kind_of(by_name[file].path) == "index":
        shards = shard_names(file, read_index(by_name[file].path).shards)
        digests += [found.sha256 for found in get(*shards).files]
    return ExpertFile(
        path=by_name[file].path,
        name=f"{files.repository}/{file}",
        provenance={
            "repository": files.repository,
            "commit": files.commit,
            "file": file,
            "file_sha256": _together(digests),
        },
        # What happens to lie in the cache beside it was not asked for, and not checked.
        around=surroundings(by_name[file].path.parent) if configurations else Surroundings(),
    )


def _unsharded(name: str) -> str:
    """Return the index of the shards that a file of a repository is one of, or the file."""
    path = PurePosixPath(name)
    stem = shard_of(path)
    return name if stem is None else str(path.with_name(f"{stem}{INDEX}"))


def _first_of(
    get: Callable[..., HubFiles],
    names: Sequence[str],
    configurations: Sequence[str],
    repository: str,
) -> tuple[HubFiles, str]:
    """Return the first of some files that a repository has, whole or in shards, and its name."""
    first: RemoteError | None = None
    for name in [*names, *(f"{name}{INDEX}" for name in names)]:
        try:
            return get(*configurations, name), name
        except RemoteError as error:
            # The usual name is what is missing, if all are.
            first = first or error
    with contextlib.suppress(RemoteError):
        get(ADAPTER_CONFIG)
        raise LineageError(adapter_sentence(repository))
    assert first is not None
    raise first
