"""The Hugging Face cache on disk: what it holds of a repository, and whether that is whole.

Read without the network and without ``huggingface_hub``. The layout is that of the hub's clients::

    <cache>/datasets--owner--name/refs/main                      the commit that `main` was
    <cache>/datasets--owner--name/snapshots/<commit>/data/x      links into blobs/
    <cache>/datasets--owner--name/blobs/<etag>                   the files

The etag of a file in Git LFS is its SHA-256 (64 digits), that of any other file the SHA-1 which git
gives it (40 digits), so that every file can be checked against its own name.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal, TypeAlias

from taskgrid.errors import ArtifactError, RemoteError
from taskgrid.store.atomic import write_text

RepositoryKind: TypeAlias = Literal["dataset", "model"]

NEWEST = "main"
"""The revision that a repository has where none is asked for."""

HUB = "hf-hub:"
"""What a reference to a repository of the hub may begin with, as in open_clip."""

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
# As people write it who do not write `hf-hub:`: a name, an address, other tools' prefixes.
_ALMOST = re.compile(
    r"(?:(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/(?:models/)?|(?:hf[-_]?hub|hf|hub|huggingface)"
    r":(?://)?)?(?P<name>[\w.-]+/[\w.-]+)(?:@(?P<at>[\w./-]+)|/(?:tree|blob|resolve)/(?P<of>[\w.-]+)\S*)?/?",
    re.IGNORECASE,
)
_WEIGHTS = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".pkl", ".json")
_COMMIT = re.compile("[0-9a-f]{40}")
_SHA256 = re.compile("[0-9a-f]{64}")
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})(?=\.)")
_CHUNK = 1 << 20
_READERS = 4


def default_cache() -> Path:
    """Return the folder that the hub's clients use: ``HF_HUB_CACHE``, else below ``HF_HOME``."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if os.environ.get(name):
            return _folder(os.environ[name])
    home = os.environ.get("HF_HOME")
    if home:
        return _folder(home) / "hub"
    return _folder(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface" / "hub"


def is_repository(place: str) -> bool:
    """Say whether a place is a repository of the hub, and not a path.

    ``hf-hub:owner/name`` always is; ``owner/name`` is one unless it ends like a file of weights, or
    there is such a path.
    """
    if place.startswith(HUB):
        return True
    path = Path(place).expanduser()
    named = _REPOSITORY.fullmatch(place) is not None and path.suffix.lower() not in _WEIGHTS
    # A link to nowhere is a path too.
    return named and not os.path.lexists(path)


def meant_repository(text: str) -> str | None:
    """Return the reference that a person meant who left out `hf-hub:` or gave an address, or None."""
    found = _ALMOST.fullmatch(text.strip())
    if found is None or Path(found["name"]).suffix.lower() in _WEIGHTS or found["name"][0] in ".-":
        return None
    revision = found["at"] or found["of"]
    return f"{HUB}{found['name']}" + (f"@{revision}" if revision else "")


def is_commit(revision: str) -> bool:
    """Return whether a revision is a whole commit hash, which can never mean anything else."""
    return _COMMIT.fullmatch(revision) is not None


@dataclass(frozen=True)
class HubFile:
    """A file of a repository, checked.

    Attributes:
        name: its path in the repository.
        path: where it lies here.
        bytes: its size.
        sha256: digest of its content.
    """

    name: str
    path: Path
    bytes: int
    sha256: str


@dataclass(frozen=True)
class HubFiles:
    """Files of a repository at one commit.

    Attributes:
        repository: name of the repository, ``owner/name``.
        revision: what was asked for.
        commit: the commit that it means.
        files: the files, by name.
    """

    repository: str
    revision: str
    commit: str
    files: tuple[HubFile, ...]


@dataclass(frozen=True)
class Snapshot:
    """Files of a repository that lie in the cache, complete but not checked.

    Attributes:
        commit: the commit they are of.
        files: name in the repository and path here, sorted by name.
    """

    commit: str
    files: tuple[tuple[str, Path], ...]

    def matching(self, pattern: str) -> tuple[Path, ...]:
        """Return the files whose names match a pattern."""
        return tuple(path for name, path in self.files if matches(name, (pattern,)))


@dataclass(frozen=True)
class CachedRepository:
    """What a cache holds of a repository.

    Attributes:
        name: name of the repository, ``owner/name``.
        kind: whether it holds a data set or a model.
        cache: the cache's folder; None is `default_cache`.
    """

    name: str
    kind: RepositoryKind
    cache: str | Path | None = None

    @property
    def root(self) -> Path:
        """Folder of the cache."""
        return default_cache() if self.cache is None else Path(self.cache).expanduser()

    @property
    def folder(self) -> Path:
        """Folder of the repository in the cache."""
        return self.root / f"{self.kind}s--{self.name.replace('/', '--')}"

    def commit(self, revision: str = NEWEST) -> str | None:
        """Return the commit that a revision meant when it was last downloaded, if it ever was."""
        if is_commit(revision):
            return revision
        try:
            text = self._reference(revision).read_text(encoding="utf-8").strip()
        except OSError:
            return None
        return text if is_commit(text) else None

    def remember(self, revision: str, commit: str) -> None:
        """Take note of the commit that a revision means.

        Raises:
            RemoteError: if the revision would be a file elsewhere.
            ArtifactError: if the file system refuses to write.
        """
        if not is_commit(revision) and self.commit(revision) != commit:
            write_text(self._reference(revision), commit)

    def _reference(self, revision: str) -> Path:
        if ".." in revision or revision.startswith("/"):
            raise RemoteError(
                f"{revision!r} is no revision of {self.name}; give a commit, a tag or a branch"
            )
        return self.folder / "refs" / revision

    def snapshot(self, revision: str, patterns: Sequence[str]) -> Snapshot | None:
        """Return the files that match, or None where some are missing.

        Every pattern must match a file, and all files that match must be there: those of the
        client's listing of the commit (``trees/<commit>.json``), where it left one, and all of
        numbered shards (``-00000-of-00003``).
        """
        commit = self.commit(revision)
        if commit is None:
            return None
        root = self.folder / "snapshots" / commit
        # A link to a blob that was deleted is no file: it is downloaded again.
        paths = {path.relative_to(root).as_posix(): path for path in root.rglob("*")}
        files = {name: path for name, path in sorted(paths.items()) if path.is_file()}
        chosen = [name for name in files if matches(name, patterns)]
        if not all(any(matches(name, (pattern,)) for name in chosen) for pattern in patterns):
            return None
        listed = [name for name in self._listing(commit) if matches(name, patterns)]
        if any(name not in files for name in listed) or not _all_shards(chosen):
            return None
        return Snapshot(commit, tuple((name, files[name]) for name in chosen))

    def _listing(self, commit: str) -> tuple[str, ...]:
        """Return the names of all files of a commit, as far as the hub's client noted them."""
        try:
            text = (self.folder / "trees" / f"{commit}.json").read_text(encoding="utf-8")
            return tuple(json.loads(text)["files"])
        except (OSError, ValueError, KeyError, TypeError):
            return ()


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Return whether a file's name matches one of the patterns; ``*`` also crosses folders."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def check_files(snapshot: Snapshot) -> tuple[HubFile, ...]:
    """Read all files of a snapshot and check each against the digest that the hub gave it.

    Raises:
        ArtifactError: if a file is damaged or cannot be read; says which.
    """
    with ThreadPoolExecutor(_READERS) as pool:
        return tuple(pool.map(lambda item: _checked(*item), snapshot.files))


def _checked(name: str, path: Path) -> HubFile:
    etag = _etag(path)
    content = hashlib.sha256()
    blob = hashlib.sha1(usedforsecurity=False)
    try:
        size = path.stat().st_size
        blob.update(b"blob %d\0" % size)
        with path.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                content.update(chunk)
                if len(etag) == blob.digest_size * 2:
                    blob.update(chunk)
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}") from error
    found = {64: content.hexdigest(), 40: blob.hexdigest()}.get(len(etag), etag)
    if found != etag:
        raise ArtifactError(
            f"{path.resolve()} ({name}) is damaged or truncated: its digest is {found}, the hub's is "
            f"{etag}; delete it and run again"
        )
    return HubFile(name, path, size, content.hexdigest())


def _etag(path: Path) -> str:
    """Return the etag of a file: the name of the blob it links to, or nothing if it is a copy.

    Just one link is followed: a blob may itself be a link into a store of another naming.
    """
    if not path.is_symlink():
        return ""
    name = path.readlink().name
    return name if _SHA256.fullmatch(name) or _COMMIT.fullmatch(name) else ""


def _all_shards(names: Iterable[str]) -> bool:
    """Return whether no shard is missing of any file that is one of several."""
    numbers: dict[tuple[str, int, str], set[int]] = {}
    for name in names:
        shard = _SHARD.search(name)
        if shard:
            key = (name[: shard.start()], int(shard[2]), name[shard.end() :])
            numbers.setdefault(key, set()).add(int(shard[1]))
    # Parquet files are numbered from 0, safetensors from 1.
    return all(
        found >= set(range(total)) or found >= set(range(1, total + 1))
        for (_, total, _), found in numbers.items()
    )


def _folder(text: str) -> Path:
    return Path(os.path.expandvars(text)).expanduser()
