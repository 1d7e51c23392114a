"""The gallery of figures: `python -m tools.gallery RESULTS...` writes docs/figures.md and its pictures.

The pictures are those that finished runs drew, smaller. Of a figure that several runs drew, the last one's is
shown; one that none of them drew keeps the picture that it has.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from PIL import Image

from taskgrid import plugins
from taskgrid.plugins.cards import figure_card
from taskgrid.store.atomic import atomic_path, write_text

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs" / "images" / "figures"

_WIDTH = 1035
"""Dots across a page: 150 to the inch."""
_COLOURS = 128

_HEAD = """# Figures

Made from the cards of the figures by `python -m tools.gallery RESULTS...`, with pictures that finished runs
drew; a test keeps page and cards equal. All pictures are of the small CLIP that is shipped.

Figures are drawn into `results/figures/`, as PDF for papers and as PNG. `figures` names those that are
wanted (`all` is the default), `figure_width` says how wide: `column`, 3.3 inches, or `page`, 6.9 inches, as
in a two-column paper. Set at that size, no text is smaller than 6 pt. Tasks stand in the order of `tasks`
everywhere. What has a name is told apart by marks and dashes as well as by colour, what has an order by how
dark it is, so that figures can be printed in grey. A figure of one's own: [plug-ins](plugins.md#a-figure).
"""

_MISSING = {
    "transfer": "No picture: it takes experts of another base.",
    "published": "No picture: it takes a model and tasks that have published numbers, the presets `clip-*`.",
}


def page(pictures: set[str]) -> str:
    """Return the page.

    Args:
        pictures: names of the figures that have a picture.
    """
    names = plugins.names("figure")
    by_category = groupby(sorted(names, key=_first_of_category), key=_category)
    return _HEAD + "".join(
        f"\n## {category}\n" + "".join(_section(name, name in pictures) for name in own)
        for category, own in by_category
    )


def _category(name: str) -> str:
    return figure_card(name).category


def _first_of_category(name: str) -> int:
    """Return where the first figure of the same category is registered."""
    return next(
        place
        for place, other in enumerate(plugins.names("figure"))
        if _category(other) == _category(name)
    )


def _section(name: str, pictured: bool) -> str:
    card = figure_card(name)
    # Literals of reStructuredText are those of Markdown with a grave accent less.
    caption = re.sub(r"``(.+?)``", r"`\1`", card.caption)
    tables = ", ".join(f"[`{table}`](tables.md)" for table in card.tables if table != "history")
    drawn = f" Drawn from {tables}." if tables else " Drawn from the histories of the experts."
    picture = f"![{card.title}](images/figures/{name}.png)"
    shown = picture if pictured else _MISSING.get(name, "No picture yet.")
    return f"\n### {name}\n\n{shown}\n\n**{card.title}.** {caption}{drawn}\n"


def shrink(source: Path, target: Path) -> None:
    """Write a picture as wide as a page on a screen, in few colours."""
    with Image.open(source) as picture:
        height = round(picture.height * _WIDTH / picture.width)
        small = picture.convert("RGB").resize((_WIDTH, height), Image.Resampling.LANCZOS)
    with atomic_path(target) as path:
        small.quantize(_COLOURS, method=Image.Quantize.MEDIANCUT).save(path, "PNG", optimize=True)


def drawn(results: Sequence[Path]) -> Iterator[tuple[str, Path]]:
    """Yield each figure that runs drew and its file, the last one's."""
    for name in plugins.names("figure"):
        files = [folder / "figures" / f"{name}.png" for folder in results]
        if there := [file for file in files if file.exists()]:
            yield name, there[-1]


if __name__ == "__main__":
    PICTURES.mkdir(parents=True, exist_ok=True)
    for figure, file in drawn([Path(folder) for folder in sys.argv[1:]]):
        shrink(file, PICTURES / f"{figure}.png")
    write_text(ROOT / "docs" / "figures.md", page({path.stem for path in PICTURES.glob("*.png")}))
