"""Repositories of the Hugging Face hub: from the cache where they are in it, else over the network.

The download itself is ``huggingface_hub``'s: it retries, resumes a broken transfer, locks, and puts
a file in place when it is whole. What is added here: what is in the cache needs no network, every
file is checked (`taskgrid.remote.cache`), and what goes wrong is said in one sentence.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

from taskgrid.errors import ArtifactError, RemoteError, TaskgridError
from taskgrid.machine.meter import Meter, Tally, silent
from taskgrid.remote.cache import (
    NEWEST,
    CachedRepository,
    HubFile,
    HubFiles,
    RepositoryKind,
    check_files,
    is_commit,
    matches,
)
from taskgrid.store.atomic import explain_os_error

if TYPE_CHECKING:
    from collections.abc import Iterator

    from huggingface_hub.hf_api import RepoFile

__all__ = ["HubFile", "HubFiles", "fetch"]

_WORKERS = 4
_TRUE: Final = {"1", "ON", "YES", "TRUE"}


def fetch(
    repository: str,
    *,
    kind: RepositoryKind = "dataset",
    revision: str | None = None,
    patterns: Sequence[str],
    cache: str | Path | None = None,
    offline: bool = False,
    progress: Meter | None = None,
) -> HubFiles:
    """Return the files of a repository that match, checked; download what is not in the cache.

    A revision whose files are all in the cache is not asked for again, so that `main` stays the
    commit that it was when it was first downloaded.

    Args:
        repository: its name, ``owner/name``.
        kind: whether it holds a data set or a model.
        revision: a commit, a tag or a branch; None is the newest commit.
        patterns: which files, such as ``data/train-*.parquet``; each must match one.
        cache: folder of the cache; None is that of the hub's clients.
        offline: never use the network; so does ``HF_HUB_OFFLINE=1``.
        progress: called with the number of bytes, if something is downloaded.

    Raises:
        RemoteError: if the repository, the revision or a file does not exist, needs a licence or a
            token, or the hub cannot be reached.
        ArtifactError: if a file is damaged, or the disk is full.
    """
    wanted = revision or NEWEST
    place = CachedRepository(repository, kind, cache)
    snapshot = place.snapshot(wanted, patterns)
    if snapshot is None:
        what = f"{repository} at {wanted}"
        if offline or _is_offline():
            raise RemoteError(
                f"{', '.join(patterns)} of {what} {'is' if len(patterns) == 1 else 'are'} not all in "
                f"{place.root}, and the hub is not asked (offline); run once with the network, or "
                "put a cache there that has them"
            )
        with _explained(what, place.root):
            commit = _download(place, wanted, patterns, progress or silent)
        snapshot = place.snapshot(commit, patterns)
        if snapshot is None:
            raise ArtifactError(
                f"{place.folder} lacks files of {what} although they were downloaded; delete the "
                "folder and run again"
            )
    return HubFiles(repository, wanted, snapshot.commit, check_files(snapshot))


def _download(
    place: CachedRepository, revision: str, patterns: Sequence[str], progress: Meter
) -> str:
    # Imported here: what is in the cache needs none of it.
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.hf_api import RepoFile

    endpoint = os.environ.get("HF_ENDPOINT")
    api = HfApi(endpoint=endpoint)
    name, kind = place.name, place.kind
    commit = revision
    if not is_commit(revision):
        commit = str(api.repo_info(name, repo_type=kind, revision=revision).sha)
    tree = api.list_repo_tree(name, repo_type=kind, revision=commit, recursive=True)
    files = [entry for entry in tree if isinstance(entry, RepoFile)]
    chosen = [file for file in files if matches(file.path, patterns)]
    for pattern in patterns:
        if not any(matches(file.path, (pattern,)) for file in chosen):
            raise RemoteError(
                f"{place.name} at {revision} has no file that matches {pattern!r}; it has "
                f"{_some([file.path for file in files])}"
            )
    with progress(sum(file.size for file in chosen)) as counter:
        lock = Lock()

        def get(file: RepoFile) -> None:
            share = _Share(counter, lock, file.size)
            hf_hub_download(
                name,
                file.path,
                repo_type=kind,
                revision=commit,
                cache_dir=place.root,
                endpoint=endpoint,
                tqdm_class=share.bar(),
            )
            share.finish()

        with ThreadPoolExecutor(_WORKERS) as pool:
            for done in [pool.submit(get, file) for file in chosen]:
                done.result()
    place.remember(revision, commit)
    return commit


class _Share:
    """The bytes of one file, as they are counted into the whole."""

    def __init__(self, counter: Tally, lock: Lock, size: int) -> None:
        self._counter, self._lock, self._size = counter, lock, size
        self._done = 0

    def count(self, bytes_more: float | None) -> None:
        """Take note of bytes; never of more than the file has, whatever is counted twice."""
        with self._lock:
            step = max(min(int(bytes_more or 0), self._size - self._done), -self._done)
            self._done += step
            self._counter.advance(step)

    def finish(self) -> None:
        """Take note of the rest: nobody counts a file that was in the cache already."""
        self.count(self._size)

    def bar(self) -> type[Any]:
        """Return what the hub's client takes for a class of progress bars."""
        share = self

        class Bar:
            def __init__(self, *_arguments: object, **_options: object) -> None: ...

            def __enter__(self) -> Bar:
                return self

            def __exit__(self, *_: object) -> None: ...

            def close(self) -> None: ...

            def update(self, count: float | None = 1) -> None:
                share.count(count)

            # Bytes on the line and bytes in the file are told apart; the latter count.
            def update_transfer(self, count: float | None = 1) -> None: ...

            def set_postfix_str(self, *_: object, **__: object) -> None: ...

            def set_transfer_postfix_str(self, *_: object, **__: object) -> None: ...

        return Bar


@contextmanager
def _explained(what: str, root: Path) -> Iterator[None]:
    """Turn whatever the hub's client raises into a sentence."""
    from huggingface_hub import errors

    try:
        yield
    except TaskgridError:
        raise
    except errors.GatedRepoError as error:
        raise RemoteError(
            f"{what} is gated: accept its terms on its page on the hub, then log in with `hf auth "
            "login` or set HF_TOKEN"
        ) from error
    except errors.RevisionNotFoundError as error:
        name, _, revision = what.partition(" at ")
        raise RemoteError(
            f"{name} has no revision {revision!r}; correct `revision` (a commit, a tag or a branch)"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise RemoteError(
            f"{what} does not exist on the hub, or is private; correct the name, or log in with "
            "`hf auth login` (HF_TOKEN)"
        ) from error
    except errors.HfHubHTTPError as error:
        raise RemoteError(_refused(what, error)) from error
    except (errors.LocalEntryNotFoundError, ConnectionError, TimeoutError) as error:
        raise RemoteError(_unreachable(what, root, error.__cause__ or error)) from error
    except (errors.HFValidationError, errors.EntryNotFoundError) as error:
        raise RemoteError(f"{what} cannot be downloaded: {_line(error)}") from error
    except OSError as error:
        if error.errno is not None:
            raise explain_os_error(error, error.filename or root) from error
        raise RemoteError(f"{what} did not arrive whole ({_line(error)}); run again") from error
    except Exception as error:
        # The client's transport has exceptions of its own, other ones in each major version.
        raise RemoteError(_unreachable(what, root, error)) from error


def _refused(what: str, error: Any) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return (
            f"the hub refuses {what} ({status}): accept its terms on its page on the hub if it has "
            "any, and log in with `hf auth login` or set HF_TOKEN"
        )
    return f"the hub does not give {what} ({status or _line(error)}); try again later"


def _unreachable(what: str, root: Path, error: BaseException) -> str:
    return (
        f"{what} is not in {root}, and the hub cannot be reached ({_line(error)}); connect to the "
        "network, set HF_ENDPOINT to a mirror, or put a cache there that has it"
    )


def _line(error: BaseException) -> str:
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return text.rstrip(".") or type(error).__name__


def _some(names: Sequence[str], count: int = 5) -> str:
    shown = ", ".join(names[:count]) or "none"
    return shown if len(names) <= count else f"{shown} and {len(names) - count} more"


def _is_offline() -> bool:
    value = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return value.upper() in _TRUE
