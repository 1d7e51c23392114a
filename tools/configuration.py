"""The configuration reference and the JSON schema: `python -m tools.configuration` writes both."""

from __future__ import annotations

import ast
import inspect
import json
import re
import textwrap
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args, get_type_hints

from pydantic import BaseModel

from taskgrid.config.root import Config
from taskgrid.config.sections.values import MOST

ROOT = Path(__file__).parents[1]

_HEAD = """# Configuration reference

Made from `src/taskgrid/config/` by `python -m tools.configuration`; a test keeps the two equal.
`config.yaml` holds the embedded default, `presets/` whole other experiments. A file given with
`--configfile` is laid over `config.yaml`: mappings merge key by key, lists and values are replaced.
Unknown keys and options are refused before any job starts, and so are repeated keys, values that nobody
can mean and numbers that would be rounded: `docs/troubleshooting.md` lists what is said. A file may begin
with `extends`, a list of files (relative to itself) that are laid below it. Single values of a call are
YAML as well: `--config 'grid={lambdas: [0, 0.25]}'`. Whole numbers end at 4,294,967,295, which every
generator takes for a seed.

Editors that know the YAML language server complete the keys of a file that begins with
`# yaml-language-server: $schema=resources/schema/config.json` (the path from the file to the schema).
Options of plug-ins (`grid.methods[].options`, ...) stand on the pages of the plug-ins.
"""


def reference() -> str:
    """Return the reference: a table of keys for each section."""
    schema = _schema()
    sections = [_section("Top level", schema)]
    for name, part in schema["$defs"].items():
        if "properties" in part:
            sections.append(_section(_title(name), part))
    return _HEAD + "".join(sections)


def _schema() -> dict[str, Any]:
    found: dict[str, Any] = _bounded(Config.model_json_schema(by_alias=True))
    for section in set(_sections(Config)):
        part = found if section is Config else found["$defs"][section.__name__]
        for key, text in _texts(section).items():
            part["properties"][key]["description"] = text
    return found


def _sections(annotation: Any) -> Iterator[type[Any]]:
    if hasattr(annotation, "__pydantic_fields__"):
        yield annotation
        for hint in get_type_hints(annotation).values():
            yield from _sections(hint)
    for argument in get_args(annotation):
        yield from _sections(argument)


def _texts(section: type[Any]) -> dict[str, str]:
    """Return what stands below the keys of a section, and of those that it extends."""
    texts: dict[str, str] = {}
    for each in reversed(section.__mro__):
        if not each.__module__.startswith("taskgrid."):
            continue
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(each))).body
        assert isinstance(tree, ast.ClassDef)
        for key, below in pairwise(tree.body):
            text = getattr(getattr(below, "value", None), "value", None)
            if isinstance(key, ast.AnnAssign) and isinstance(below, ast.Expr) and text:
                name = ast.unparse(key.target)
                field = section.__pydantic_fields__.get(name)
                texts[(field and field.alias) or name] = inspect.cleandoc(text)
    return texts


def _bounded(part: Any) -> Any:
    # pydantic leaves bounds under its own names where a value is looked at before they are.
    words = {
        "ge": "minimum",
        "gt": "exclusiveMinimum",
        "le": "maximum",
        "lt": "exclusiveMaximum",
    }
    if isinstance(part, dict):
        return {words.get(key, key): _bounded(value) for key, value in part.items()}
    return [_bounded(value) for value in part] if isinstance(part, list) else part


def _section(title: str, schema: dict[str, Any]) -> str:
    return f"\n## {title}\n\n{_sentence(schema)}\n\n{_keys(schema)}"


def options(model: type[BaseModel]) -> str:
    """Return the table of the keys of a section, or of the options of a task source."""
    schema = model.model_json_schema()
    for key, text in _texts(model).items():
        schema["properties"][key]["description"] = text
    return _keys(schema)


def _keys(schema: dict[str, Any]) -> str:
    lines = ["| key | value | default | |\n|---|---|---|---|\n"]
    for key, value in schema["properties"].items():
        default = "*required*" if key in schema.get("required", []) else _default(value)
        text = value.get("description", "").replace("\n", " ").replace("|", "\\|")
        lines.append(f"| `{key}` | {_kind(value)} | {default} | {text} |\n")
    return "".join(lines)


def _sentence(schema: dict[str, Any]) -> str:
    return str(schema.get("description", "")).split("\n\n")[0].replace("\n", " ")


def _title(name: str) -> str:
    words = re.findall("[A-Z][a-z]+", name.removesuffix("Spec"))
    return " ".join(words).capitalize() or name


def _default(value: dict[str, Any]) -> str:
    if "default" not in value:
        return "its defaults"
    default = value["default"]
    if default is None:
        return "null"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def _kind(value: dict[str, Any]) -> str:
    if "$ref" in value:
        title = _title(value["$ref"].rsplit("/", 1)[1])
        return f"[{title}](#{title.lower().replace(' ', '-')})"
    if "anyOf" in value or "oneOf" in value:
        kinds = [_kind(part) for part in value.get("anyOf") or value["oneOf"]]
        return " or ".join(kind for kind in kinds if kind != "null")
    if "enum" in value:
        return " or ".join(f"`{item}`" for item in value["enum"])
    if "const" in value:
        return f"`{value['const']}`"
    if value.get("type") == "array":
        return f"list of {_kind(value['items'])}"
    words = {
        "object": "mapping",
        "string": "text",
        "boolean": "true or false",
        "integer": "whole number",
    }
    bounds = [
        f"{sign} {value[key]:,.12g}"
        for key, sign in (
            ("minimum", "≥"),
            ("exclusiveMinimum", ">"),
            ("maximum", "≤"),
            ("exclusiveMaximum", "<"),
        )
        if value.get(key, MOST) != MOST
    ]
    return " ".join([words.get(value.get("type", ""), value.get("type", "any")), *bounds])


def json_schema() -> str:
    """Return the JSON schema of a configuration file, of which others may lie below."""
    schema = _schema()
    files = {"type": "array", "items": {"type": "string"}}
    schema["properties"] = {
        "extends": {**files, "description": "Files, relative to this one, that are laid below it."},
        **schema["properties"],
    }
    for section in _merged(schema, schema["$defs"]):
        # What is missing may stand in a file below.
        section.pop("required", None)
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "taskgrid"}
    return json.dumps({**schema, **head}, indent=2, ensure_ascii=False) + "\n"


def _merged(part: dict[str, Any], sections: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the sections below a part that are merged key by key: those that are in no list."""
    if "$ref" in part:
        part = sections[part["$ref"].rsplit("/", 1)[1]]
    if "properties" in part:
        yield part
    below = [*part.get("properties", {}).values(), *part.get("anyOf", []), *part.get("oneOf", [])]
    for inner in below:
        yield from _merged(inner, sections)


if __name__ == "__main__":
    (ROOT / "docs" / "configuration.md").write_text(reference(), encoding="utf-8")
    (ROOT / "resources" / "schema").mkdir(exist_ok=True)
    (ROOT / "resources" / "schema" / "config.json").write_text(json_schema(), encoding="utf-8")
