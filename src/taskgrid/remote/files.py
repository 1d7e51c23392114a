"""Single files by their address: resumed, tried again, checked, and whole or absent.

What has arrived of a file waits beside it as ``NAME.part``, also after a killed process, and the
server is asked for the rest. The part is only continued if it is known to be of the same file: the
server named a version of it (kept in ``NAME.part.tag``), or the whole is checked by a digest.
"""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import os
import re
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from email.message import Message
from http import HTTPStatus
from pathlib import Path
from typing import IO, Final

from taskgrid.errors import ArtifactError, RemoteError
from taskgrid.machine.meter import Meter, Tally, silent
from taskgrid.store.atomic import explain_os_error

_CHUNK = 1 << 20
_TIMEOUT_SECONDS = 60.0
_AGAIN: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_RANGE = re.compile(r"bytes (\d+)-\d*/(\d+|\*)")
_PAGES = (".html", ".htm")


@dataclass(frozen=True)
class Patience:
    """How often a download is tried again.

    Attributes:
        attempts: attempts in a row that may bring nothing new.
        wait_seconds: pause after the first of them; twice as long after each further one.
    """

    attempts: int = 5
    wait_seconds: float = 1.0


def download(
    url: str,
    path: str | Path,
    *,
    md5: str | None = None,
    sha256: str | None = None,
    progress: Meter | None = None,
    patience: Patience | None = None,
) -> Path:
    """Download a file; nothing is done if it is there already and its digest is right.

    Args:
        url: ``https://``, ``http://``, ``ftp://`` or ``file://``.
        path: the file to write; whole or absent.
        md5: its MD5 in hexadecimal digits, where it is known.
        sha256: its SHA-256, where it is known.
        progress: called with the number of bytes, if something is downloaded.
        patience: how often a broken transfer is tried again.

    Returns:
        ``path``.

    Raises:
        RemoteError: if the server cannot be reached, or does not have or give the file.
        ArtifactError: if the file is not the one that the digests are of, or the file system
            refuses to write.
    """
    target = Path(path)
    expected = {name: value.lower() for name, value in (("md5", md5), ("sha256", sha256)) if value}
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _alone(target.parent):
            if target.exists():
                check(target, expected)
                return target
            part = _Part(target, known=bool(expected))
            _fetch(url, part, progress or silent, patience or Patience())
            _check_part(part, expected, url)
            part.publish()
    except OSError as error:
        raise explain_os_error(error, target) from error
    return target


def check(path: Path, expected: Mapping[str, str]) -> None:
    """Refuse a file whose digests are not the expected ones.

    Args:
        path: the file.
        expected: digest by the name of its algorithm, such as ``md5``.

    Raises:
        ArtifactError: if one differs; names both.
    """
    for name, digest in expected.items():
        found = _digest(path, name)
        if found != digest:
            raise ArtifactError(
                f"{path} is not the expected file: its {name} is {found}, not {digest}; delete it "
                "and run again"
            )


def _check_part(part: _Part, expected: Mapping[str, str], url: str) -> None:
    for name, digest in expected.items():
        found = _digest(part.path, name)
        if found != digest:
            # Kept, it would be "resumed" for ever.
            size = part.size
            part.forget()
            raise ArtifactError(
                f"{url} gave another file than {part.target.name}: {size} bytes with {name} {found}, "
                f"not {digest}; run again, and if it stays so the file has changed there: put the "
                f"right one at {part.target}"
            )


def _digest(path: Path, name: str) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(
            stream, lambda: hashlib.new(name, usedforsecurity=False)
        ).hexdigest()


class _Part:
    """What has arrived of a file."""

    def __init__(self, target: Path, *, known: bool) -> None:
        self.target = target
        self.path = target.with_name(f"{target.name}.part")
        self._tag = target.with_name(f"{target.name}.part.tag")
        self._known = known

    @property
    def size(self) -> int:
        """Bytes that have arrived."""
        return self.path.stat().st_size if self.path.exists() else 0

    @property
    def tag(self) -> str | None:
        """The version of the file that they are of, if the server named one."""
        return self._tag.read_text(encoding="utf-8") if self._tag.exists() else None

    @property
    def resumable(self) -> bool:
        """Whether the rest may be asked for."""
        return self.size > 0 and (self._known or self.tag is not None)

    def start(self, tag: str | None) -> None:
        """Begin anew, with a version of the file."""
        self.forget()
        if tag is not None:
            self._tag.write_text(tag, encoding="utf-8")
        self.path.touch()

    def end(self) -> IO[bytes]:
        """Open it for what comes next."""
        return self.path.open("ab")

    def forget(self) -> None:
        """Throw away what has arrived."""
        self.path.unlink(missing_ok=True)
        self._tag.unlink(missing_ok=True)

    def publish(self) -> None:
        """Make it the file."""
        self.path.replace(self.target)
        self._tag.unlink(missing_ok=True)


class _BrokenError(Exception):
    """A transfer that broke, and may work the next time."""


@dataclass(frozen=True)
class _Answer:
    """What a server sends: bytes of the file from ``offset`` on, of ``total`` in all."""

    stream: IO[bytes]
    offset: int
    total: int | None
    tag: str | None


def _fetch(url: str, part: _Part, progress: Meter, patience: Patience) -> None:
    failures = shown = 0
    counter: Tally | None = None
    with ExitStack() as stack:
        while True:
            before = part.size
            try:
                answer = _ask(url, part)
                if answer is None:
                    return
                with closing(answer.stream):
                    if counter is None:
                        counter = stack.enter_context(progress(answer.total or 0))
                    counter.advance(answer.offset - shown)
                    shown = answer.offset
                    for count in _receive(answer, part):
                        shown += count
                        counter.advance(count)
                return
            except _BrokenError as error:
                # Whoever gets on is not stuck, however often the line breaks.
                failures = 1 if part.size > before else failures + 1
                if failures >= patience.attempts:
                    raise RemoteError(
                        f"{url} cannot be downloaded: {error} ({failures} attempts in a row); run "
                        f"again later, {part.size} bytes of it are kept"
                    ) from error
            time.sleep(patience.wait_seconds * 2 ** (failures - 1))


def _ask(url: str, part: _Part) -> _Answer | None:
    """Ask for the file, or for the rest of it; return None if nothing is missing."""
    request = urllib.request.Request(url, headers={"User-Agent": "taskgrid"})
    if part.resumable:
        request.add_header("Range", f"bytes={part.size}-")
        if part.tag is not None:
            request.add_header("If-Range", part.tag)
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                _check_whole(part, error.headers)
                return None
            raise _refusal(url, error.code, part.target) from error
    except (OSError, http.client.HTTPException) as error:
        raise _interruption(url, error, part.target) from error
    headers = response.headers
    if headers.get_content_type() == "text/html" and part.target.suffix not in _PAGES:
        response.close()
        raise RemoteError(
            f"{url} gives a web page and not {part.target.name}; download it by hand and put it at "
            f"{part.target}"
        )
    length = headers.get("Content-Length")
    remaining = int(length) if length is not None else None
    if getattr(response, "status", None) == HTTPStatus.PARTIAL_CONTENT:
        span = _RANGE.match(headers.get("Content-Range", ""))
        if span is None or int(span[1]) != part.size:
            response.close()
            part.forget()
            raise _BrokenError("the server sent another part than the one asked for")
        total = int(span[2]) if span[2] != "*" else None
        return _Answer(response, part.size, total, part.tag)
    return _Answer(response, 0, remaining, _tag(headers))


def _receive(answer: _Answer, part: _Part) -> Iterator[int]:
    """Write what arrives; yield the size of each piece."""
    if answer.offset == 0:
        part.start(answer.tag)
    with part.end() as sink:
        while True:
            try:
                chunk = answer.stream.read(_CHUNK)
            except (OSError, http.client.HTTPException) as error:
                raise _BrokenError(_reason(error)) from error
            if not chunk:
                break
            sink.write(chunk)
            yield len(chunk)
    if answer.total is not None and part.size < answer.total:
        raise _BrokenError(f"it ended after {part.size} of {answer.total} bytes")


def _check_whole(part: _Part, headers: Message) -> None:
    """Take an answer that there is nothing after the part: it is whole, or of another file."""
    if headers.get("Content-Range", "") != f"bytes */{part.size}":
        part.forget()
        raise _BrokenError("the part that was kept is longer than the file")


def _tag(headers: Message) -> str | None:
    """Return what tells this version of the file from another one, as `If-Range` takes it."""
    etag = headers.get("ETag")
    return etag if etag and not etag.startswith("W/") else headers.get("Last-Modified")


def _refusal(url: str, status: int, target: Path) -> Exception:
    if status in _AGAIN:
        return _BrokenError(f"the server answers {status}")
    by_hand = f"download it by hand and put it at {target}"
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return RemoteError(f"the server refuses {url} ({status}); {by_hand}")
    if status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
        return RemoteError(f"{url} does not exist any more ({status}); {by_hand}")
    return RemoteError(f"{url} cannot be downloaded: the server answers {status}; {by_hand}")


def _interruption(url: str, error: Exception, target: Path) -> Exception:
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, ssl.SSLCertVerificationError):
        return RemoteError(
            f"the certificate of {url} is not valid ({cause.verify_message}); download the file by "
            f"hand and put it at {target}"
        )
    if isinstance(cause, FileNotFoundError | IsADirectoryError | PermissionError):
        return RemoteError(f"{url} cannot be read: {cause.strerror}; correct the address")
    return _BrokenError(_reason(cause))


def _reason(error: object) -> str:
    if isinstance(error, TimeoutError):
        return "the server does not answer"
    strerror = getattr(error, "strerror", None)
    return str(strerror or error or type(error).__name__)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let one process at a time download into a folder: two tasks may want the same file."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        # Some network file systems lock no folders; then the digest notices what collides.
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
