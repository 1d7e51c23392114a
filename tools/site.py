"""What the documentation's build does beside `mkdocs.yml`: formulas become MathML, and pages fetch nothing.

MathML is what browsers draw by themselves: no script, no fonts. `make docs` uses it.
"""

from __future__ import annotations

import html
import re
from html.parser import HTMLParser
from typing import Any

_FORMULA = re.compile(
    r'<(?P<tag>span|div) class="arithmatex">\\[(\[](?P<tex>.*?)\\[)\]]</(?P=tag)>', re.DOTALL
)
_FETCHING = {"audio", "embed", "iframe", "img", "link", "object", "script", "source", "video"}


def on_page_content(text: str, **_: Any) -> str:
    """Return a page's HTML with MathML in the place of TeX.

    Raises:
        ValueError: if a formula is not understood.
    """
    return _FORMULA.sub(_mathml, text)


def on_post_page(output: str, *, page: Any, **_: Any) -> str:
    """Return the page as it is.

    Raises:
        ValueError: if a browser that opens it would ask another host for anything.
    """
    if found := fetched(output):
        raise ValueError(f"{page.file.src_path} would fetch {found[0]}; keep a copy in docs/assets")
    return output


def fetched(page: str) -> list[str]:
    """Return the addresses on other hosts that a page makes a browser fetch; links are none."""
    reader = _Reader()
    reader.feed(page)
    return reader.found


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        if tag in _FETCHING and named.get("rel") not in ("canonical", "edit"):
            addresses = (named.get(key) or "" for key in ("src", "href", "data"))
            self.found += [one for one in addresses if re.match(r"(https?:)?//", one)]


def _mathml(match: re.Match[str]) -> str:
    from latex2mathml.converter import convert

    display = "block" if match["tag"] == "div" else "inline"
    tex = html.unescape(match["tex"]).strip()
    made: str = convert(tex, display=display)
    if re.search(r"\\|>&#x00026;<", made):
        raise ValueError(f"latex2mathml does not understand {tex}; write it in another way")
    return made
