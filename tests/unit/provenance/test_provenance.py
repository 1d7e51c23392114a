"""Digests: what changes them and, above all, what must not."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskgrid.errors import DataError
from taskgrid.plugins import registry
from taskgrid.provenance import canonical_json, code_closure, derive_seed, digest, digest_file
from taskgrid.provenance.listing import fingerprint

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)

GROUND = '''"""Doc."""
from taskgrid.errors import E

def f(x):
    """F."""
    return x + 1
'''


@given(st.dictionaries(st.text(max_size=4), JSON, max_size=5))
def test_a_digest_ignores_the_order_of_keys(value: dict[str, object]) -> None:
    assert digest(value) == digest(dict(reversed(value.items())))


def test_a_digest_is_sha256_of_the_canonical_text(tmp_path: Path) -> None:
    text = '{"a":[1,2],"b":"λ"}'
    assert canonical_json({"b": "λ", "a": [1, 2]}) == text
    expected = hashlib.sha256(text.encode()).hexdigest()[:32]
    assert digest({"b": "λ", "a": [1, 2]}) == expected
    (tmp_path / "file").write_bytes(text.encode())
    assert digest_file(tmp_path / "file") == expected


def test_nan_has_no_canonical_text() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical_json({"a": float("nan")})


@given(st.lists(st.integers() | st.text(max_size=6), min_size=1, max_size=4))
def test_seeds_are_stable_and_fit_in_63_bits(parts: list[int | str]) -> None:
    assert 0 <= derive_seed(*parts) < 1 << 63
    assert derive_seed(*parts) == derive_seed(*parts)
    assert derive_seed(*parts, 0) != derive_seed(*parts, 1)


def serve(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the package's modules be those of a folder."""
    roots = {"taskgrid": root / "__init__.py"}
    monkeypatch.setattr(registry, "_root", roots.get)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "taskgrid"
    files = {
        "__init__.py": "",
        "errors.py": "class E(Exception): ...\n",
        "ground.py": GROUND,
        "floor/__init__.py": "",
        "floor/a.py": "from taskgrid.ground import f\nfrom . import b\n",
        "floor/b.py": "from ..ground import f\n",
        "floor/late.py": "def g():\n    import taskgrid.floor.a\n    return taskgrid.floor.a\n",
        "other.py": "import numpy\nX = 1\n",
    }
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    serve(root, monkeypatch)
    return root


def edit(path: Path, text: str) -> None:
    before = path.stat().st_mtime_ns
    path.write_text(text)
    os.utime(path, ns=(before + 1_000_000, before + 1_000_000))


def test_the_closure_follows_imports_of_every_form(package: Path) -> None:
    expected = {"taskgrid.floor", "taskgrid.floor.a", "taskgrid.floor.b", "taskgrid.ground"}
    assert set(code_closure("taskgrid.floor.a")) == expected
    assert set(code_closure("taskgrid.floor.late")) == expected | {"taskgrid.floor.late"}
    assert set(code_closure("taskgrid.other")) == {"taskgrid.other"}


def test_of_a_script_the_imports_count(package: Path, tmp_path: Path) -> None:
    script = tmp_path / "job.py"
    script.write_text("from taskgrid import ground\n")
    before = code_closure(script)
    assert set(before) == {"taskgrid.ground"}
    edit(script, "from taskgrid import ground\n\nprint(ground)\n")
    assert code_closure(script) == before


def test_what_says_and_moves_is_in_no_closure(package: Path) -> None:
    for name in ("workflow/command.py", "remote/hub.py", "machine/devices.py", "errors.py"):
        module = f"taskgrid.{name.removesuffix('.py').replace('/', '.')}"
        (package / name).parent.mkdir(exist_ok=True)
        (package / name).write_text("import taskgrid.floor.a\n")
        edit(package / "other.py", f"import {module}\n")
        assert set(code_closure("taskgrid.other")) == {"taskgrid.other"}


def test_docstrings_comments_and_touches_change_nothing(package: Path) -> None:
    before = code_closure("taskgrid.floor.a")
    edit(
        package / "ground.py",
        '"""Other words."""\nfrom taskgrid.errors import E\n\n# why\ndef f(x):\n    """New."""\n\n'
        "    return x + 1  # here\n",
    )
    assert code_closure("taskgrid.floor.a") == before


def test_a_real_edit_changes_exactly_the_modules_digest(package: Path) -> None:
    before, other = code_closure("taskgrid.floor.a"), code_closure("taskgrid.other")
    edit(package / "ground.py", "def f(x):\n    return x + 2\n")
    after = code_closure("taskgrid.floor.a")
    assert {name for name in before if before[name] != after[name]} == {"taskgrid.ground"}
    assert code_closure("taskgrid.other") == other


def test_the_place_of_the_checkout_does_not_matter(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = code_closure("taskgrid.floor.a")
    moved = tmp_path / "elsewhere" / "taskgrid"
    moved.parent.mkdir()
    package.rename(moved)
    serve(moved, monkeypatch)
    assert code_closure("taskgrid.floor.a") == before


EVERY_FORM = """
from __future__ import annotations
import ast as tree, sys
class A(Exception, metaclass=type):
    x: int = 1_000
    def f(self, a, /, b=None, *c: int, d, e=..., **g) -> list[str]: ...
async def h(): return [i async for i in g() if i] + [*{**{}, 'a': 1}, lambda: (yield)]
def nothing(): "only this"
match [1, {"a": b"c"}]:
    case [1 | -2.5, {"a": x, **rest}] if (y := x): del y, rest
    case _: global z; assert x is not None, u"why"
try: f"{x!r:>{sys}} and {x:{'w' + 'x'}.2f}" "plain" f"{{}}{x=}"
except* (A, ValueError) as error: raise A from error
else: print(x @ 1j if x else x[1:, ::2], f"", "", sep='')
"""


def test_a_digest_is_the_same_under_every_python(package: Path) -> None:
    edit(package / "other.py", EVERY_FORM)
    # SHA-256 of what ast.dump of Python 3.11 prints of the tree without the docstring.
    assert code_closure("taskgrid.other") == {"taskgrid.other": "eece8839961de0e862e2103882dc4034"}


def test_missing_entries_raise(package: Path) -> None:
    with pytest.raises(FileNotFoundError):
        code_closure("taskgrid.nothing")
    with pytest.raises(FileNotFoundError):
        code_closure("nothing.py")


def test_a_fingerprint_is_blind_to_times_and_hidden_files(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    file = tmp_path / "train" / "a.txt"
    file.write_text("one")
    before = fingerprint(tmp_path)
    os.utime(file, (1, 1))
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "x").write_text("x")
    assert fingerprint(tmp_path) == before
    file.write_text("two")
    assert fingerprint(tmp_path) != before
    assert fingerprint(file) != fingerprint(tmp_path)


def test_large_sources_are_listed_by_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskgrid.provenance.listing._HASHED_BYTES", 2)
    (tmp_path / "a").write_text("one")
    before = fingerprint(tmp_path)
    (tmp_path / "a").write_text("two")
    assert fingerprint(tmp_path) == before
    (tmp_path / "a").write_text("three")
    assert fingerprint(tmp_path) != before


def test_a_missing_source_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere does not exist"):
        fingerprint(tmp_path / "nowhere")
