"""The overview of methods and the options on their pages say what the cards say."""

from __future__ import annotations

from pathlib import Path

import pytest

from taskgrid import plugins
from taskgrid.plugins.cards import MergerCard, merger_card
from taskgrid.plugins.options import Option
from tools import methods

FOLDER = Path(__file__).resolve().parents[3] / "docs" / "methods"
OWN = [
    name
    for name in plugins.names("merger")
    if plugins.module_of("merger", name).startswith("taskgrid.")
]


def test_the_overview_is_made_from_the_cards() -> None:
    made = methods.overview()
    found = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert found == made, "run: python -m tools.methods docs/methods"
    nothing, images = made.index("## Weights alone"), made.index("## Unlabelled images")
    assert nothing < made.index("[`ties`]") < images < made.index("[`regmean`]")
    for name in OWN:
        assert made.count(f"[`{name}`]({name}.md)") == 1
    assert "a model per task |  | anew | model | 32 + T bits per weight, T numbers |" in made


@pytest.mark.parametrize("name", OWN)
def test_every_page_has_the_options_of_its_card(name: str) -> None:
    page = (FOLDER / f"{name}.md").read_text(encoding="utf-8")
    assert page == methods.remake(page, merger_card(name)), (
        "run: python -m tools.methods docs/methods"
    )
    assert page.startswith(f"# {name}\n")


def test_a_table_of_options_is_made_and_nothing_else_is_touched() -> None:
    card = MergerCard(
        title="x",
        options={
            "of": Option(default="sum", choices=("sum", "ties"), about="a | b", origin="the paper"),
            "floor": Option(default=1e-6, about="least"),
            "rows": Option(default=False, about="by rows"),
        },
    )
    page = "# x\n\n| option | default | old |\n| --- | --- | --- |\n| `gone` | 1 | old |\n"
    page += "\n| other | table |\n"
    made = methods.remake(page, card)
    assert made == (
        "# x\n\n| option | default, others | what it does | origin of the default |\n"
        "| --- | --- | --- | --- |\n"
        "| `of` | `sum`, `ties` | a \\| b | the paper |\n"
        "| `floor` | 1e-06 | least |  |\n"
        "| `rows` | false | by rows |  |\n"
        "\n| other | table |\n"
    )
    assert methods.remake(made, card) == made
    with pytest.raises(ValueError, match="no table"):
        methods.remake("# x\n", card)
