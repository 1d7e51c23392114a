"""Which rule makes a file, as the rules themselves say it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskgrid.store.makers import MAKERS, makers_of, mend

RULES = Path(__file__).parents[3] / "rules"


def outputs() -> Iterator[tuple[str, str]]:
    """Yield every rule with each of its outputs."""
    for file in sorted(RULES.glob("*.smk")):
        rule = section = ""
        for line in file.read_text().splitlines():
            if named := re.match(r"(?:use )?rule (\w+)", line):
                rule, section = named[1], ""
            elif begun := re.match(r" {4}(\w+):", line):
                section = begun[1]
            if section == "output":
                yield from ((rule, path) for path in re.findall(r'"(results/[^"]+)"', line))


@pytest.mark.parametrize(("rule", "path"), list(outputs()))
def test_the_maker_of_a_file_is_the_rule_that_has_it_as_output(rule: str, path: str) -> None:
    assert rule in makers_of(path)


def test_no_maker_is_named_that_is_no_rule() -> None:
    assert {rule for rules in MAKERS.values() for rule in rules} == {rule for rule, _ in outputs()}


def test_files_of_nobody_are_mended_without_a_rule() -> None:
    assert mend("elsewhere/a.json") == "delete it and run again"
    assert mend("results/experts/m/standard/0/a/expert.json") == (
        "delete it and run again: rule `finetune` or `import_expert` or `transport` makes it anew"
    )
