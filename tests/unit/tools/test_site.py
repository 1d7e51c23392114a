"""What the documentation's build does beside MkDocs."""

from __future__ import annotations

import re
import sys
from types import ModuleType, SimpleNamespace

import pytest

from tests.unit.docs.blocks import DOCS, blocks
from tools import site

PAGE = SimpleNamespace(file=SimpleNamespace(src_path="a.md"))


@pytest.mark.parametrize(
    ("html", "found"),
    [
        ('<script src="https://cdn.example/x.js"></script>', ["https://cdn.example/x.js"]),
        ('<link rel="stylesheet" href="//fonts.example/a.css">', ["//fonts.example/a.css"]),
        ('<p><img alt="" src="http://example/a.png"></p>', ["http://example/a.png"]),
        ('<link rel="canonical" href="https://own.example/">', []),
        ('<script src="assets/x.js"></script><img src="../a.png">', []),
        ('<a href="https://example/paper">a paper</a>', []),
    ],
)
def test_what_a_page_would_fetch_from_elsewhere(html: str, found: list[str]) -> None:
    assert site.fetched(html) == found
    if found:
        with pytest.raises(ValueError, match=re.escape(f"a.md would fetch {found[0]}")):
            site.on_post_page(html, page=PAGE)
    else:
        assert site.on_post_page(html, page=PAGE) == html


def test_formulas_use_what_both_github_and_the_site_can_draw() -> None:
    # GitHub's MathJax knows no align* inside of a formula, latex2mathml no aligned.
    formulas = [(page, text) for page in DOCS.rglob("*.md") for text in blocks(page, "math")]
    assert len(formulas) > 40
    for page, text in formulas:
        assert set(re.findall(r"\\begin\{(.*?)\}", text)) <= {"split", "cases"}, page
        assert text.count("{") == text.count("}"), page


def test_formulas_become_mathml_and_what_is_left_of_tex_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def convert(tex: str, display: str) -> str:
        return f"<math>{display}: {tex.replace(chr(92) + 'theta', 'θ')}</math>"

    # The converter itself is among the packages of the site alone.
    monkeypatch.setitem(sys.modules, "latex2mathml", ModuleType("latex2mathml"))
    monkeypatch.setitem(sys.modules, "latex2mathml.converter", SimpleNamespace(convert=convert))
    inline = r'<p>where <span class="arithmatex">\(\theta &lt; 1\)</span></p>'
    assert site.on_page_content(inline) == "<p>where <math>inline: θ < 1</math></p>"
    block = '<div class="arithmatex">\\[\nx\n\\]</div>'
    assert site.on_page_content(block) == "<math>block: x</math>"
    with pytest.raises(ValueError, match=r"does not understand \\nonsense"):
        site.on_page_content(r'<div class="arithmatex">\[\nonsense{x}\]</div>')
