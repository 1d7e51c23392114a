"""Overviews and the gallery say what the cards say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from taskgrid import plugins
from tools import overviews


@pytest.mark.parametrize("page", overviews.pages())
def test_the_page_is_made_from_the_cards(page: str) -> None:
    found = (overviews.DOCS / page).read_text(encoding="utf-8")
    assert found == overviews.pages()[page], "run: python -m tools.overviews"


def test_every_plugin_and_every_picture_has_its_place() -> None:
    made = overviews.pages()
    for kind, page in {"study": "studies", "mode": "modes", "aligner": "aligners"}.items():
        for name in plugins.names(kind):  # type: ignore[arg-type]
            assert f"\n| [`{name}`]({name}.md) |" in made[f"{page}/README.md"] or (
                f"\n| `{name}` |" in made[f"{page}/README.md"]
            )
    for name in plugins.names("figure"):
        assert f"\n### {name}\n" in made["gallery.md"]
    for picture in (overviews.DOCS / overviews.PICTURES).glob("*.png"):
        assert f"({overviews.PICTURES}/{picture.name})" in made["gallery.md"]


def test_a_picture_is_taken_from_the_first_run_that_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overviews, "DOCS", tmp_path)
    (tmp_path / overviews.PICTURES).mkdir(parents=True)
    for run, level in ("b", 50), ("c", 200):
        (tmp_path / run / "figures").mkdir(parents=True)
        picture = Image.fromarray(np.full((30, 3200, 3), level, np.uint8))
        picture.save(tmp_path / run / "figures" / "cosine.png")
    (tmp_path / "a").mkdir()
    overviews.take_picture("cosine", [tmp_path / run for run in "abc"])
    taken = Image.open(tmp_path / overviews.PICTURES / "cosine.png")
    assert taken.size == (1600, 15)
    assert taken.convert("RGB").getpixel((0, 0)) == (50, 50, 50)
