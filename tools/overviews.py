"""Overviews of studies, modes and aligners from the plug-ins' cards.

`python -m tools.overviews` writes `README.md` in their folders of docs/. A test keeps pages and cards equal.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from taskgrid import plugins
from taskgrid.plugins import Kind
from taskgrid.plugins.cards import aligner_card, mode_card, study_card
from taskgrid.store.atomic import write_text
from tools.pages import markdown

DOCS = Path(__file__).resolve().parents[1] / "docs"
_MADE = "Made from the cards by `python -m tools.overviews`; a test keeps the two equal."


def pages() -> dict[str, str]:
    """Return the text of every page that is made here, by its path below docs/."""
    return {
        "studies/README.md": _overview(
            "Studies",
            "Questions asked of the grid: `studies: [addition, shapley]` in the configuration, and each is a "
            "target of Snakemake by its name.",
            "study",
            ["study", "title: paper", "which point it chooses", "tables", "figures"],
            _study,
        ),
        "modes/README.md": _overview(
            "Fine-tuning modes",
            "What trains, and as which function of its weights an expert is evaluated: "
            "`finetune: {modes: [standard, linear]}`.",
            "mode",
            ["mode", "title: paper", "evaluated as", "keeps factors", "recipe"],
            _mode,
        ),
        "aligners/README.md": _overview(
            "Aligners",
            "How task vectors of one base come to another one: [experts of another base](../transport.md).",
            "aligner",
            ["aligner", "title: paper", "one transport for", "looks at"],
            _aligner,
        ),
    }


def _overview(
    title: str, about: str, kind: Kind, heads: list[str], line: Callable[[str], tuple[str, ...]]
) -> str:
    head = f"# {title}\n\n{about} How to add one: [plug-ins](../plugins.md). {_MADE}"
    return f"{head}\n\n{markdown(heads, [line(name) for name in plugins.names(kind)])}"


def _study(name: str) -> tuple[str, ...]:
    card = study_card(name)
    tables = ", ".join(
        f"[`{table}`](../tables.md#tables{name}{table}parquet)" for table in card.tables
    )
    figures = ", ".join(f"[`{figure}`](../figures.md#{figure})" for figure in card.figures)
    return _name("studies", name), _title(card.title, card.paper), card.rule, tables, figures


def _mode(name: str) -> tuple[str, ...]:
    card = mode_card(name)
    evaluated = "the tangent model" if card.tangent else "the network"
    recipe = ", ".join(f"`{key}: {value}`" for key, value in card.recipe.items())
    factors = "yes" if card.factors else ""
    return _name("modes", name), _title(card.title, card.paper), evaluated, factors, recipe


def _aligner(name: str) -> tuple[str, ...]:
    card = aligner_card(name)
    sees = dict.fromkeys([card.sees, *(one for of in card.sees_if.values() for one in of.values())])
    return _name("aligners", name), _title(card.title, card.paper), card.per, " or ".join(sees)


def _name(folder: str, name: str) -> str:
    there = (DOCS / folder / f"{name}.md").is_file()
    return f"[`{name}`]({name}.md)" if there else f"`{name}`"


def _title(title: str, paper: str) -> str:
    return f"{title}: {paper}" if paper else title


if __name__ == "__main__":
    for path, text in pages().items():
        write_text(DOCS / path, text)
