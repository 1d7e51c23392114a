"""Overviews say what the cards say."""

from __future__ import annotations

import pytest

from taskgrid import plugins
from tools import overviews


@pytest.mark.parametrize("page", overviews.pages())
def test_the_page_is_made_from_the_cards(page: str) -> None:
    found = (overviews.DOCS / page).read_text(encoding="utf-8")
    assert found == overviews.pages()[page], "run: python -m tools.overviews"


def test_every_plugin_has_its_place() -> None:
    made = overviews.pages()
    for kind, page in {"study": "studies", "mode": "modes", "aligner": "aligners"}.items():
        for name in plugins.names(kind):  # type: ignore[arg-type]
            assert f"\n| [`{name}`]({name}.md) |" in made[f"{page}/README.md"] or (
                f"\n| `{name}` |" in made[f"{page}/README.md"]
            )
