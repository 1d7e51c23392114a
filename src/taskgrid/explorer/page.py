"""The page itself: one HTML file that holds its data, its code and the library that draws."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from string import Template
from typing import Any

from taskgrid.plugins.resources import resource_path
from taskgrid.provenance.digests import canonical_json
from taskgrid.store.atomic import write_text

_SCRIPTS = ("grid.js", "charts.js", "page.js", "shown.js")


def page(content: Mapping[str, Any]) -> str:
    """Return the page; equal contents give equal text.

    Args:
        content: what ``content.content`` found.
    """
    return Template(_asset("page.html")).substitute(
        style=_asset("page.css"),
        vega=_library(),
        data=_packed(content),
        script="\n".join(map(_asset, _SCRIPTS)),
    )


def write_page(path: str | Path, content: Mapping[str, Any]) -> int:
    """Write the page; return its size in bytes.

    Raises:
        ArtifactError: if the file system refuses to write.
    """
    text = page(content)
    write_text(path, text)
    return len(text.encode())


def _asset(name: str) -> str:
    return resource_path(f"explorer/{name}").read_text(encoding="utf-8")


@cache
def _library() -> str:
    """Return Vega, Vega-Lite and Vega-Embed as one script, from the package that ships them."""
    from vl_convert import javascript_bundle

    script = str(javascript_bundle("window.vegaEmbed = vegaEmbed;"))
    return script.replace("</script", r"<\/script")


def _packed(content: Mapping[str, Any]) -> str:
    # Without a time, so that equal contents are equal files.
    return base64.b64encode(gzip.compress(canonical_json(content).encode(), 6, mtime=0)).decode()
