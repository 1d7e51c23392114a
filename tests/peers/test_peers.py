"""Merges equal those of mergekit and FusionBench, where these are installed (``make peers``)."""

from __future__ import annotations

from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.parametrize("name", ["random", "awkward"])
def test_merges_are_those_of_the_peers(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import environment

    python = environment.python_of(environment.default_folder())
    if python is None:
        pytest.skip("no environment with mergekit and FusionBench; make it with `make peers`")
    import peers
    import peers_towers

    towers = peers_towers.random_towers() if name == "random" else peers_towers.awkward_towers()
    found = list(peers.compare(python, tmp_path, name, towers, peers.CASES))
    assert len(found) == len(peers.CASES)
    wrong = [peers.line(one) for one in found if not one.passed]
    assert not wrong, "\n".join(wrong)
    # An explanation that nothing needs is out of date.
    assert not [peers.line(one) for one in found if one.why and one.equal]
