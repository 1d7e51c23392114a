"""The configuration reference in Markdown: `python -m tools.configuration`."""

from __future__ import annotations

import re
from typing import Any

from taskgrid.config.schema import Config

_HEAD = """# Configuration reference

Made from the schema in `src/taskgrid/config/schema.py` by `python -m tools.configuration`;
a test keeps the two equal. `config.yaml` holds the embedded default, `presets/` whole other
experiments. A file given with `--configfile` is laid over `config.yaml`: mappings merge key by key,
lists and values are replaced. Unknown keys are refused.
"""


def reference() -> str:
    """Return the reference: a table of keys for each section."""
    schema = Config.model_json_schema()
    sections = [_section("Top level", schema)]
    for name, part in schema["$defs"].items():
        if "properties" in part:
            sections.append(_section(_title(name), part))
    return _HEAD + "".join(sections)


def _section(title: str, schema: dict[str, Any]) -> str:
    lines = [
        f"\n## {title}\n",
        f"\n{_sentence(schema)}\n",
        "\n| key | value | default | |\n|---|---|---|---|\n",
    ]
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
        f"{sign} {value[key]:g}"
        for key, sign in (
            ("minimum", "≥"),
            ("exclusiveMinimum", ">"),
            ("maximum", "≤"),
            ("exclusiveMaximum", "<"),
        )
        if key in value
    ]
    return " ".join([words.get(value.get("type", ""), value.get("type", "any")), *bounds])


if __name__ == "__main__":
    print(reference(), end="")
