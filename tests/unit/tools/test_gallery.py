"""The gallery shows every figure, with the words of its card."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from taskgrid import plugins
from taskgrid.plugins.cards import figure_card
from tools import gallery

PAGE = Path(__file__).resolve().parents[3] / "docs" / "figures.md"


def test_the_page_is_made_from_the_cards() -> None:
    pictures = {path.stem for path in gallery.PICTURES.glob("*.png")}
    made = gallery.page(pictures)
    assert PAGE.read_text(encoding="utf-8") == made, "run: python -m tools.gallery results"
    assert pictures <= set(plugins.names("figure"))
    for name in plugins.names("figure"):
        assert made.count(f"\n### {name}\n") == 1
        assert f"**{figure_card(name).title}.** " in made
        assert (f"(images/figures/{name}.png)" in made) == (name in pictures)
    # A category is one heading, whatever the order of the registry.
    heads = [line for line in made.splitlines() if line.startswith("## ")]
    assert len(heads) == len(set(heads))


def test_the_last_run_that_drew_a_figure_is_shown_small(tmp_path: Path) -> None:
    for folder, colour, names in (("a", "red", ("cosine", "methods")), ("b", "blue", ("cosine",))):
        (tmp_path / folder / "figures").mkdir(parents=True)
        for name in names:
            image = Image.new("RGB", (1380, 690), colour)
            image.save(tmp_path / folder / "figures" / f"{name}.png")
    found = dict(gallery.drawn([tmp_path / "a", tmp_path / "b"]))
    assert {name: file.parents[1].name for name, file in found.items()} == {
        "cosine": "b",
        "methods": "a",
    }
    gallery.shrink(found["cosine"], tmp_path / "small.png")
    with Image.open(tmp_path / "small.png") as small:
        assert small.size == (1035, 518) and small.convert("RGB").getpixel((5, 5)) == (0, 0, 255)
