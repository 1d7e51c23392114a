"""Servers on this machine that behave like those downloads come from, badly too."""

import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


@contextmanager
def serving(respond):
    """Run a server; ``respond(handler)`` answers GET and HEAD; yields its address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            respond(self)

        def do_HEAD(self):
            respond(self)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def answer(handler, status, body=b"", headers=None, cut=None, length=None):
    """Send a response; after ``cut`` bytes of the body the line breaks."""
    handler.send_response(status)
    for name, value in (headers or {}).items():
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(body) if length is None else length))
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(body if cut is None else body[:cut])
    if cut is not None:
        handler.wfile.flush()
        handler.close_connection = True


class OneFile:
    """A server of one file, at any address; notes what it was asked for.

    Attributes:
        cuts: bytes after which each answer breaks off, in turn; then it holds.
        statuses: refusals to begin with.
        ranges: whether it knows of parts.
        tag: the ETag it gives.
    """

    def __init__(self, content, cuts=(), statuses=(), ranges=True, tag='"one"', kind=None):
        self.content, self.ranges, self.tag, self.kind = content, ranges, tag, kind
        self.cuts, self.statuses = list(cuts), list(statuses)
        self.asked = []

    def __call__(self, handler):
        wanted = handler.headers.get("Range")
        self.asked.append(wanted)
        if self.statuses:
            answer(handler, self.statuses.pop(0))
            return
        headers = {"ETag": self.tag} if self.tag else {}
        if self.kind:
            headers["Content-Type"] = self.kind
        cut = self.cuts.pop(0) if self.cuts else None
        changed = handler.headers.get("If-Range") not in (None, self.tag)
        if wanted is None or not self.ranges or changed:
            answer(handler, 200, self.content, headers, cut)
            return
        start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        total = len(self.content)
        if start >= total:
            answer(handler, 416, headers={"Content-Range": f"bytes */{total}"})
            return
        headers["Content-Range"] = f"bytes {start}-{total - 1}/{total}"
        answer(handler, 206, self.content[start:], headers, cut)


class Hub:
    """The few pages of the Hugging Face hub that a download asks for.

    Attributes:
        files: content by name.
        commit: the newest commit.
        refusal: status and X-Error-Code of every answer, or None.
        cuts: as in `OneFile`, for the files' content.
        damage: whether the content that is sent is not the content that was promised.
    """

    def __init__(self, repository, files, kind="dataset", commit="a" * 40):
        self.repository, self.files, self.kind, self.commit = repository, files, kind, commit
        self.refusal = None
        self.cuts = []
        self.damage = False
        self.asked = []

    def __call__(self, handler):
        path = unquote(urlsplit(handler.path).path)
        self.asked.append((handler.command, path))
        if self.refusal is not None:
            status, code = self.refusal
            answer(handler, status, headers={"X-Error-Code": code} if code else {})
            return
        api = f"/api/{self.kind}s/{self.repository}"
        prefix = "" if self.kind == "model" else f"/{self.kind}s"
        resolve = f"{prefix}/{self.repository}/resolve/"
        if path.startswith(f"{api}/revision/"):
            self._json(handler, path, {"id": self.repository, "sha": self.commit, "siblings": []})
        elif path.startswith(f"{api}/tree/"):
            self._json(handler, path, [self._entry(name) for name in self.files])
        elif path.startswith(resolve):
            self._file(handler, path.removeprefix(resolve).split("/", 1)[1])
        else:
            answer(handler, 404, headers={"X-Error-Code": "RepoNotFound"})

    def _json(self, handler, path, value):
        revision = path.rsplit("/", 1)[1]
        if revision not in ("main", self.commit):
            answer(handler, 404, headers={"X-Error-Code": "RevisionNotFound"})
            return
        body = json.dumps(value).encode()
        answer(handler, 200, body, {"Content-Type": "application/json"})

    def _entry(self, name):
        content = self.files[name]
        entry = {"type": "file", "path": name, "size": len(content), "oid": git_digest(content)}
        if is_large(name):
            entry["lfs"] = {"oid": sha256(content), "size": len(content), "pointerSize": 130}
        return entry

    def _file(self, handler, name):
        content = self.files[name]
        headers = {"X-Repo-Commit": self.commit, "ETag": f'"{etag(name, content)}"'}
        if is_large(name):
            headers |= {"X-Linked-Etag": headers["ETag"], "X-Linked-Size": str(len(content))}
        if handler.command == "GET" and self.damage:
            content = bytes(reversed(content))
        cut = self.cuts.pop(0) if self.cuts and handler.command == "GET" else None
        wanted = handler.headers.get("Range")
        if wanted is not None and handler.command == "GET":
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            answer(handler, 206, content[start:], headers, cut)
            return
        answer(handler, 200, content, headers, cut)


def is_large(name):
    """Whether the hub keeps a file in Git LFS."""
    return name.endswith((".parquet", ".safetensors", ".bin"))


def etag(name, content):
    return sha256(content) if is_large(name) else git_digest(content)


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def git_digest(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
