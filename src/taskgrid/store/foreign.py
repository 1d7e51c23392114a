"""What a file of weights from elsewhere is, by its first bytes; names and endings say little."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Literal, TypeAlias

from taskgrid.errors import ArtifactError

Kind: TypeAlias = Literal["safetensors", "index", "pickle"]
"""safetensors, an index of shards, or a pickle: ``torch.save``'s of either kind, or a plain one."""

ENDINGS: Final = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".pkl", ".json")
"""What names of weights and of their indexes usually end in."""

_HEAD: Final = 4096
_MOST_COPIES: Final = 4
_ROOM: Final = 1 << 24
_ARCHIVES: Final = {
    b"\x1f\x8b": "a gzip archive",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ": "an xz archive",
    b"\x28\xb5\x2f\xfd": "a zstandard archive",
    b"7z\xbc\xaf": "a 7z archive",
    b"Rar!": "a RAR archive",
}
_FORMATS: Final = {
    b"\x93NUMPY": "a NumPy array",
    b"\x89HDF": "an HDF5 file (Keras or TensorFlow)",
    b"GGUF": "a GGUF file",
    b"PAR1": "a Parquet file",
    b"ARROW1": "an Arrow file",
    b"\x89PNG": "an image",
    b"\xff\xd8\xff": "an image",
    b"%PDF": "a PDF",
}
# Protocol 0 and 1 begin with an instruction and end with a full stop; no such text is a page.
_OLD_PICKLE: Final = re.compile(
    rb"(?:\(dp?\d*\n|\(lp?\d*\n|\(i?[a-z_.]+\n|c[A-Za-z_.]+\n\w+\n|[}\]]q\x00)"
)


def kind_of(path: Path) -> Kind:
    """Return what a file of weights is.

    Args:
        path: the file, or a link to it; its ending counts only where its bytes say nothing.

    Raises:
        ArtifactError: if it is missing, a folder, or plainly no weights; says what it is and what to do.
    """
    head, last = _ends(path)
    if len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 40:
        return "safetensors"
    if head.lstrip().startswith(b"{") and (b'"weight_map"' in head or b'"metadata"' in head):
        return "index"
    npz = head.startswith(b"PK\x03\x04") and b".npy" in head[30:256]
    if (head.startswith(b"PK\x03\x04") and not npz) or re.match(rb"\x80[\x02-\x05]", head):
        return "pickle"
    if last == b"." and _OLD_PICKLE.match(head):
        return "pickle"
    check_no_pointer(path, head)
    _check_format(path, head)
    endings: dict[str, Kind] = {".safetensors": "safetensors", ".json": "index"}
    return endings.get(path.suffix.lower(), "pickle")


def check_no_pointer(path: Path, head: bytes | None = None) -> None:
    """Refuse what a failed download leaves in the place of a file: pointers and pages.

    Args:
        path: the file.
        head: its first bytes, where they are known.

    Raises:
        ArtifactError: says what it is and what to do.
    """
    head = _ends(path)[0] if head is None else head
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith(b"version https://git-lfs"):
        raise ArtifactError(
            f"{path} is a pointer of Git LFS, not the file itself; run `git lfs pull` where it was "
            "cloned, or download the file"
        )
    if b"/annex/objects/" in text[:256] and len(head) < _HEAD:
        raise ArtifactError(
            f"{path} is a pointer of git-annex, not the file itself; run `git annex get` where it was "
            "cloned"
        )
    if (
        text[:16]
        .lower()
        .startswith((b"<!doctype", b"<html", b"<head", b"<?xml", b"<error", b"<!--"))
    ):
        title = re.search(rb"<(title|message)>([^<]{1,80})", text, re.IGNORECASE)
        name = f" ({' '.join(title[2].decode(errors='replace').split())!r})" if title else ""
        raise ArtifactError(
            f"{path} is a web page saved as a file{name}, not the file itself; download that (on the "
            "hub by /resolve/, not /blob/), logged in if it asks for it"
        )


def _check_format(path: Path, head: bytes) -> None:
    """Refuse archives, texts and files of other formats."""
    for table, advice in (
        (_ARCHIVES, "unpack it and give the file of weights in it"),
        (_FORMATS, "save the weights as safetensors where they were made, and give that file"),
    ):
        for magic, name in table.items():
            if head.startswith(magic):
                raise ArtifactError(
                    f"{path} is {name}, not a file of weights that is read; {advice}"
                )
    if head[257:262] == b"ustar":
        raise ArtifactError(
            f"{path} is a tar archive, not a file of weights that is read; unpack it and give the file "
            "of weights in it"
        )
    if head.startswith(b"PK") and b".npy" in head[30:256]:
        raise ArtifactError(
            f"{path} is an archive of NumPy arrays, not a file of weights that is read; save the weights "
            "as safetensors where they were made, and give that file"
        )
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if len(text) > 3 and _is_text(head):
        begin = text[:40].decode(errors="replace").splitlines()[0]
        raise ArtifactError(
            f"{path} is a text (it begins {begin!r}), not a file of weights; download the file itself"
        )


def check_size(path: Path, sizes: Iterable[int]) -> None:
    """Refuse a pickle whose tensors come to far more than its bytes: they repeat each other.

    Args:
        path: the file.
        sizes: bytes of each tensor.

    Raises:
        ArtifactError: if they do.
    """
    total, size = sum(sizes), path.stat().st_size
    if total > _MOST_COPIES * size + _ROOM:
        raise ArtifactError(
            f"{path} is refused: its tensors come to {total:.3g} bytes, though the file has {size}: they "
            "repeat each other; save the model's state_dict as safetensors where it was made"
        )


def _is_text(head: bytes) -> bool:
    try:
        # A character may be cut where the head ends.
        text = head[: -4 if len(head) == _HEAD else None].decode("utf-8")
    except UnicodeDecodeError:
        return False
    return all(letter.isprintable() or letter in "\t\r\n\ufeff" for letter in text)


def _ends(path: Path) -> tuple[bytes, bytes]:
    """Return the first bytes of a file and its last one."""
    if path.is_dir():
        held = sorted(file.name for file in path.iterdir() if file.suffix.lower() in ENDINGS)
        raise ArtifactError(
            f"{path} is a folder; name the file of weights in it"
            + (f" ({', '.join(held[:5])})" if held else "")
        )
    try:
        with path.open("rb") as stream:
            head = stream.read(_HEAD)
            stream.seek(max(0, stream.seek(0, 2) - 1))
            return head, stream.read(1)
    except FileNotFoundError as error:
        where = " (a link to nowhere)" if path.is_symlink() else ""
        raise ArtifactError(f"{path} is missing{where}; correct the path") from error
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror}") from error
