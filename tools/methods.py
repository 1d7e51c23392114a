"""The overview of merge methods, and the options on their pages: `python -m tools.methods docs/methods`.

``README.md`` there is made here from the methods' cards, and so is the table of options on each method's
page, the one that begins with ``| option | default``. The rest of a page is written by hand. A test keeps
them equal.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from taskgrid import plugins
from taskgrid.merging.bases.additive import Additive
from taskgrid.merging.bases.algebra import Factored, Fold
from taskgrid.plugins.cards import MergerCard, merger_card
from taskgrid.plugins.options import Option
from taskgrid.store.atomic import write_text
from tools.pages import markdown

_OPTIONS = re.compile(r"^\| option \| default.*\n\|[-| ]*\|\n(?:\|.*\n)*", re.MULTILINE)

_SEES = {
    "nothing": ("Weights alone", "Base and experts are all that the merge sees."),
    "images": ("Unlabelled images", "The merge sees images of the tasks, and nobody's labels."),
    "labels": ("Labelled images", "The merge sees images of the tasks with their labels."),
}
_NUMBERS = {"scale": "λ", "threshold": "own", "none": "-"}

_HEAD = """# Merge methods

Made from the methods' cards by `python -m tools.methods docs/methods`; a test keeps the two equal. How they
are compared: [comparison](../studies/comparison.md); what came out on the embedded default:
[results](../results.md); how to add one: [plug-ins](../plugins.md).

Sorted by what the merge itself sees of data; λ and options are chosen on labelled validation images anyway.

- *number*: what a point's number is: the coefficient λ, a number of the method's own, or none.
- *subsets*: what the subsets of a grid share: a `sum` or another `fold` goes on from a smaller subset,
  `factors` of each task are kept, `anew` begins again.
- *at once*: what a merge out of core holds of all experts at once.
- *kept*: what is kept beside the base, in T, the number of merged tasks; a single model takes its place.
"""


def overview() -> str:
    """Return the overview: a table for each kind of data that a merge sees."""
    cards = {name: merger_card(name) for name in sorted(plugins.names("merger"))}
    parts = [_HEAD]
    for sees, (title, about) in _SEES.items():
        lines = [_line(name, card) for name, card in cards.items() if _sees(card) == sees]
        if lines:
            parts.append(f"\n## {title}\n\n{about}\n\n{markdown(_HEADS, lines)}")
    return "".join(parts)


def remake(page: str, card: MergerCard) -> str:
    """Return a method's page with its table of options made anew.

    Raises:
        ValueError: if the page has no such table and the method has options.
    """
    if not card.options:
        return page
    if _OPTIONS.search(page) is None:
        raise ValueError("the page has no table that begins with `| option | default`")
    table = markdown(
        ["option", "default, others", "what it does", "origin of the default"],
        [[f"`{name}`", _values(one), one.about, one.origin] for name, one in card.options.items()],
    )
    return _OPTIONS.sub(lambda _: table, page, count=1)


_HEADS = ["method", "title: paper", "number", "gives", "needs", "subsets", "at once", "kept"]


def _line(name: str, card: MergerCard) -> list[str]:
    paper = f"{card.title}: {card.paper}" if card.paper else card.title
    gives = {
        "model": "a model",
        "per_task": "a model per task",
        "features": "a model, corrected per task",
        "logits": "logits",
    }[card.gives]
    if card.tasks is not None:
        gives += f" of {card.tasks} tasks"
    needs = (
        [f"`{statistic}`" for statistic in card.needs]
        + ["learning"] * card.learned
        + ["LoRA experts"] * card.factors
    )
    kept = "" if card.gives == "model" else card.storage.words()
    scope = "" if card.gives == "logits" else card.scope
    return [
        *(f"[`{name}`]({name}.md)", paper, _NUMBERS[card.coefficient], gives, ", ".join(needs)),
        *(_subsets(name), scope, kept),
    ]


def _sees(card: MergerCard) -> str:
    return card.sees({name: option.default for name, option in card.options.items()})


def _subsets(name: str) -> str:
    merger = plugins.load("merger", name).MERGER
    kinds = {"sum": Additive, "fold": Fold, "factors": Factored}
    return next((word for word, kind in kinds.items() if isinstance(merger, kind)), "anew")


def _values(option: Option) -> str:
    """Return the default, then what else may be chosen."""
    others = [choice for choice in option.choices if choice != option.default]
    return ", ".join(map(_shown, (option.default, *others)))


def _shown(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return f"{value:g}" if isinstance(value, int | float) else f"`{value}`"


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    write_text(folder / "README.md", overview())
    for method in plugins.names("merger"):
        if (path := folder / f"{method}.md").is_file():
            write_text(path, remake(path.read_text(encoding="utf-8"), merger_card(method)))
