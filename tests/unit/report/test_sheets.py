"""Tables as people read them: percent, words, nothing that is only noise."""

from __future__ import annotations

import pandas as pd

from taskgrid.report.sheets import MOST, Cell, percent, sheet

TABLE = pd.DataFrame(
    {
        "model": ["m", "m"],
        "seed": pd.array([0, 0], dtype="Int64"),
        "method": ["ties", "ties"],
        "options": ['{"density":0.1,"x":1}', '{"density":0.2,"x":1}'],
        "subset": ["a_b+c", "c"],
        "size": [2, 1],
        "point": ["0.30", "1.00"],
        "scale": [0.3, 1.0],
        "test_accuracy": [0.28749, 0.5],
        "test_accuracy_low": [0.2, None],
        "test_accuracy_high": [0.4, None],
        "bits_per_weight": [-0.25, 12.0],
        "a": [0.5, 0.5],
        "at_edge": [True, False],
        "met": [True, True],
        "empty": [None, None],
        "key": ["0f" * 32, "1e" * 32],
    }
)


def columns(table: pd.DataFrame, **options: tuple[str, ...]) -> dict[str, list[Cell]]:
    shown = sheet(table, **options)
    return {
        head.text: [row.cells[place] for row in shown.rows]
        for place, head in enumerate(shown.heads)
    }


def test_fractions_are_percent_with_their_interval_and_sorted_by_all_digits() -> None:
    shown = columns(TABLE, fractions=("a",))
    assert shown["test accuracy [%]"] == [
        Cell("28.7", "0.287490", "20.0 to 40.0"),
        Cell("50.0", "0.500000"),
    ]
    assert [cell.text for cell in shown["a [%]"]] == ["50.0", "50.0"]
    assert [cell.text for cell in shown["bits per weight"]] == ["−0.25", "12"]


def test_what_is_the_same_in_every_row_is_said_once() -> None:
    assert sheet(TABLE).said == "model: m; seed: 0; met: yes"
    assert sheet(TABLE.head(1)).said == ""


def test_digests_options_and_doubles_are_out_of_sight() -> None:
    assert list(columns(TABLE)) == [
        *("subset", "method", "size", "point", "test accuracy [%]"),
        *("bits per weight", "a", "at edge"),
    ]
    assert "scale" in columns(TABLE.drop(columns="point"))


def test_names_are_words_and_stay_in_sight() -> None:
    shown = sheet(TABLE)
    assert shown.frozen == 2
    assert [row.cells[0].text for row in shown.rows] == ["a b + c", "c"]
    assert [row.cells[1].text for row in shown.rows] == ["ties, density=0.1", "ties, density=0.2"]
    assert columns(TABLE)["at edge"] == [Cell("yes"), Cell("no")]


def test_a_long_table_is_cut_and_says_how_long_it_is() -> None:
    table = pd.DataFrame({"value": range(MOST + 5)})
    assert (len(sheet(table).rows), sheet(table).total) == (MOST, MOST + 5)
    assert sheet(table.head(0)).total == 0


def test_missing_numbers_are_empty_and_changes_have_a_sign() -> None:
    assert percent(None) == Cell() == percent(float("nan"))
    assert percent(-0.0512, signed=True).text == "−5.1"
    assert percent(0.0512, signed=True).text == "+5.1"


def test_heads_say_what_a_column_is() -> None:
    (about,) = (head.about for head in sheet(TABLE).heads if head.text == "at edge")
    assert about.startswith("whether the chosen point is the first or last")


def test_what_was_measured_is_said_where_it_is_not_what_was_merged() -> None:
    table = pd.DataFrame({"subset": ["a_b", "c"], "tasks": ["a_b", "c"]})
    assert list(columns(table)) == ["subset"]
    shown = columns(table.assign(tasks=["a_b+c", "c"]))
    assert [cell.text for cell in shown["tasks"]] == ["a b + c", "c"]
