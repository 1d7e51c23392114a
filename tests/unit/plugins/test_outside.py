"""Plug-ins of other packages, found by their entry points."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from taskgrid import plugins
from taskgrid.errors import ConfigError
from taskgrid.merging import merge, methods
from taskgrid.plugins import registry
from taskgrid.plugins.cards import merger_card
from taskgrid.provenance import code_closure
from tests.plugins.installed import forget, register

METHOD = '''"""Halves."""
from taskgrid.merging.bases.additive import Additive
from taskgrid.plugins.cards import MergerCard
from taskgrid.plugins.options import Option
from halves.constants import HALF

CARD = MergerCard(
    title="Half of the sum", options={"more": Option(default=1.0, about="factor")}, scope="element"
)


class Half(Additive):
    def weight(self, task, options):
        return HALF * options.more


MERGER = Half()
'''


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """Put a package with these entry points where installed ones are."""
    monkeypatch.syspath_prepend(tmp_path)

    def entry(**points: str) -> None:
        package = tmp_path / "halves"
        package.mkdir()
        (package / "__init__.py").write_text("")
        (package / "constants.py").write_text("HALF = 0.5\n")
        (package / "method.py").write_text(METHOD)
        named = {name.replace("_", ".", 1): module for name, module in points.items()}
        register(tmp_path, "halves", named)
        forget()

    yield entry
    forget()


def test_a_method_of_another_package_is_like_any_other(install: object) -> None:
    assert callable(install)
    install(merger_half="halves.method")
    assert "half" in methods() and plugins.names("merger")[-1] == "half"
    assert merger_card("half").title == "Half of the sum"
    base, expert = {"w": torch.zeros(3)}, {"w": torch.ones(3)}
    assert merge("half", base, {"x": expert}, 0.5, more=2)["w"].tolist() == [0.5] * 3
    with pytest.raises(ConfigError, match="'half' has no option 'most'"):
        merge("half", base, {"x": expert}, most=2)
    # What its numbers depend on is in the digests: its own code and what it imports.
    closure = code_closure(plugins.module_of("merger", "half"))
    assert {
        "halves.method",
        "halves.constants",
        "taskgrid.merging.bases.additive",
    } <= closure.keys()
    assert registry.packages() == ("taskgrid", "halves")


def test_a_name_that_is_taken_is_refused(install: object) -> None:
    assert callable(install)
    install(merger_ties="halves.method")
    with pytest.raises(
        ConfigError, match=r"'ties' of halves\.method has the name of one of taskgrid's"
    ):
        plugins.names("merger")
    assert "standard" in plugins.names("mode")


@pytest.mark.parametrize("name", ["merge_half", "half"])
def test_an_entry_point_that_is_no_plugin_is_refused(install: object, name: str) -> None:
    assert callable(install)
    install(**{name: "halves.method"})
    with pytest.raises(
        ConfigError, match=r"is no plug-in; call it KIND\.NAME, KIND one of source, layout"
    ):
        plugins.names("merger")


def test_a_module_that_is_not_there_is_named(install: object) -> None:
    assert callable(install)
    install(merger_half="halves.nothing")
    with pytest.raises(
        ConfigError, match=r"'half' is registered as halves\.nothing, which does not"
    ):
        merger_card("half")
