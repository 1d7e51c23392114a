"""Digests of code: a module changes when its syntax tree does, docstrings and comments left out.

A rule that carries the digests of the modules it uses as a parameter runs again exactly when one
of them changes, whatever happens to the files' times: a touch, a fresh clone, a branch switch, a
reworded docstring or comment re-runs nothing. Nor does another Python: 3.11, 3.12 and 3.13 give one
digest for one text.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from taskgrid.plugins.registry import packages, source_of
from taskgrid.provenance.digests import digest, digest_bytes

NEUTRAL = frozenset(
    {
        "taskgrid",
        "taskgrid.errors",
        "taskgrid.provenance",
        "taskgrid.provenance.code",
        "taskgrid.provenance.listing",
        "taskgrid.sentences",
        "taskgrid.store.atomic",
        "taskgrid.store.columns",
        "taskgrid.store.makers",
        "taskgrid.store.seals",
        "taskgrid.store.tables",
    }
)
NEUTRAL_ROOMS = ("config", "machine", "plugins", "remote", "workflow")
"""Modules and whole rooms that say, find, check and move things: what they deliver is itself among a
rule's settings or inputs, by value or by digest, and an edit of them must not train an expert again."""

_NEUTRAL = re.compile(rf"taskgrid\.({'|'.join(NEUTRAL_ROOMS)})(\.|$)")


@dataclass(frozen=True)
class ModuleText:
    """What the text of a module says.

    Attributes:
        digest: of its syntax tree, without documents and comments.
        imports: dotted names that it imports, of modules or of what is in them.
    """

    digest: str
    imports: tuple[str, ...]


Reader = Callable[[bytes, str, bool], ModuleText]
"""What reads a text, of a module of some name, which is a package or not."""


def read_module(text: bytes, name: str, is_package: bool) -> ModuleText:
    """Read the text of a module.

    Args:
        text: the text.
        name: the module's dotted name, which relative imports begin at.
        is_package: whether the module is that of a package.
    """
    tree = ast.parse(text, filename=name)
    imports = tuple(sorted({*_imports(tree, name, is_package=is_package)}))
    _drop_documents(tree)
    return ModuleText(digest_bytes(_text(tree).encode()), imports)


def code_closure(*entries: str | Path, read: Reader = read_module) -> dict[str, str]:
    """Return ``{module: digest}`` of some modules and of every module of the project they import.

    Of a script, only the imports count: scripts read arguments, call the library and print, so that
    their own text computes nothing (a test holds them to it).

    Imports are followed statically, those inside functions too. A package's ``__init__`` belongs to
    the closure of its modules, because importing them runs it. Plug-ins that a registry loads by
    name are not followed: name the chosen one as an entry.

    Args:
        entries: dotted module names (``taskgrid.merging.methods.average``) or paths of scripts.
        read: what reads texts, or knows what they say.

    Raises:
        FileNotFoundError: if an entry does not exist.
    """
    found: dict[str, str] = {}
    queue: list[tuple[str, Path]] = [_locate(entry) for entry in entries]
    while queue:
        name, path = queue.pop()
        if name in found:
            continue
        tree_digest, imported = _read(path, name, path.stat().st_mtime_ns, read)
        if not name.endswith(".py"):
            found[name] = tree_digest
        queue.extend(imported)
    return dict(sorted(found.items()))


def code_digest(*entries: str | Path) -> str:
    """Return one digest for the whole closure of the entries."""
    return digest(code_closure(*entries))


def _locate(entry: str | Path) -> tuple[str, Path]:
    if isinstance(entry, Path) or entry.endswith(".py"):
        path = Path(entry)
        if not path.is_file():
            raise FileNotFoundError(f"no script {path}")
        return path.name, path
    source = _find(entry)
    if source is None:
        raise FileNotFoundError(f"no module {entry}")
    return entry, source


def _find(module: str) -> Path | None:
    """Return the file of a module of this package, or of one that has plug-ins."""
    return source_of(module) if module.partition(".")[0] in packages() else None


@cache
def _read(path: Path, name: str, _mtime: int, read: Reader) -> tuple[str, list[tuple[str, Path]]]:
    text = read(path.read_bytes(), name, path.name == "__init__.py")
    named = {module for imported in text.imports for module in _with_parents(imported)}
    named = {module for module in named if module != name and not _is_neutral(module)}
    found = ((module, _find(module)) for module in sorted(named))
    return text.digest, [(module, source) for module, source in found if source is not None]


def _is_neutral(module: str) -> bool:
    return module in NEUTRAL or _NEUTRAL.match(module) is not None


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """Yield a tree and what stands in it, but no expressions: most of a tree are those."""
    yield node
    for name in ("body", "handlers", "orelse", "finalbody", "cases"):
        for child in getattr(node, name, ()):
            yield from _statements(child)


def _imports(tree: ast.Module, name: str, *, is_package: bool) -> Iterator[str]:
    for node in _statements(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parent = node.module or ""
            if node.level:
                anchor = name.split(".")
                anchor = anchor[: len(anchor) - node.level + is_package]
                parent = ".".join([*anchor, *([parent] if parent else [])])
            yield parent
            # "from package import module" names a module as often as it names an attribute.
            yield from (f"{parent}.{alias.name}" for alias in node.names)


def _with_parents(module: str) -> Iterable[str]:
    parts = module.split(".")
    return (".".join(parts[:end]) for end in range(1, len(parts) + 1))


def _drop_documents(tree: ast.Module) -> None:
    for node in _statements(tree):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        # Strings that stand alone document what is above them, cards what a plug-in is: both compute
        # nothing.
        node.body = [item for item in node.body if not _documents(item)] or [ast.Pass()]


def _documents(item: ast.stmt) -> bool:
    if isinstance(item, ast.Assign):
        target = item.targets[0]
        return isinstance(target, ast.Name) and target.id == "CARD"
    return isinstance(item, ast.Expr) and isinstance(item.value, ast.Constant)


def _text(node: object) -> str:
    """Print a syntax tree as ``ast.dump`` of Python 3.11 does, whatever Python runs this.

    ``ast.dump`` itself prints one text differently: 3.12 gave functions and classes a list of type
    parameters, 3.13 leaves empty lists out.
    """
    if isinstance(node, list):
        return f"[{', '.join(map(_text, node))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = [
        (name, _formatted(value) if isinstance(node, ast.JoinedStr) else value)
        for name, value in ast.iter_fields(node)
        if not (value is None and getattr(type(node), name, ...) is None)
        and not (value == [] and name == "type_params")
    ]
    return f"{type(node).__name__}({', '.join(f'{name}={_text(value)}' for name, value in fields)})"


def _formatted(values: list[ast.expr]) -> list[ast.expr]:
    # Python 3.12 ends some format specifications in an empty text, which formats nothing.
    return [item for item in values if not (isinstance(item, ast.Constant) and item.value == "")]
