"""Transports as files: the same bits again, each map once, and for no other bases."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from taskgrid.alignment import Axes, Transport
from taskgrid.alignment.kept import read_transport, save_transport
from taskgrid.alignment.maps import Blocks, End, Instead, Map
from taskgrid.errors import ArtifactError, LineageError
from taskgrid.store.weights import HEADER, save_state
from tests.unit.alignment.test_maps import INDEX, LEFT, RIGHT, SOURCE, TARGET, normal, vector

BLOCKS = {"w": (6, 2), "b": (3,)}
ENDS = End("one", SOURCE), End("two", TARGET)


def again(path: Path, found: Transport) -> Transport:
    save_transport(path, found, {"kind": "alignment", "aligner": "x"})
    return read_transport(path, found.source, found.target)[0]


@pytest.mark.parametrize(
    "axes",
    [
        {"w": (LEFT, RIGHT), "conv": (INDEX, torch.tensor([1, 0])), "b": ()},
        {"w": (LEFT.float(), None), "b": (INDEX,)},
        {"w": (LEFT, RIGHT.T)},
        {},
    ],
)
def test_maps_come_back_bit_for_bit(
    tmp_path: Path, axes: dict[str, tuple[torch.Tensor | None, ...]]
) -> None:
    found = Transport(*ENDS, Axes(axes))
    other = again(tmp_path / "t.safetensors", found)
    assert other.map.keys == found.map.keys and (other.source, other.target) == ENDS
    assert isinstance(other.map, Axes)
    for key, maps in axes.items():
        for one, two in zip(maps, other.map.axes[key], strict=True):
            assert (one is None and two is None) or (
                one.dtype == two.dtype and torch.equal(one, two)
            )
    sent = vector(SOURCE)
    assert all(torch.equal(other(sent)[key], found(sent)[key]) for key in TARGET)


def test_blocks_of_rows_have_maps_of_their_own(tmp_path: Path) -> None:
    turns = [normal((2, 2), seed, torch.float64) for seed in range(3)]
    maps = Axes({"w": Blocks(tuple((one, one.T) for one in turns)), "b": ()})
    found = Transport(End("one", BLOCKS), End("two", BLOCKS), maps)
    sent = vector(BLOCKS)
    by_hand = torch.cat(
        [turn @ part @ turn for turn, part in zip(turns, sent["w"].double().chunk(3), strict=True)]
    )
    torch.testing.assert_close(found.exact(sent)["w"], by_hand, rtol=1e-12, atol=1e-12)
    back = found.then(found.inverse()).exact(sent)["w"]
    torch.testing.assert_close(back, sent["w"].double(), rtol=1e-9, atol=1e-9)
    other = again(tmp_path / "t.safetensors", found)
    assert torch.equal(other.exact(sent)["w"], found.exact(sent)["w"])


def test_what_arrives_whatever_is_sent_comes_back(tmp_path: Path) -> None:
    learned = vector(TARGET, 3)
    other = again(tmp_path / "t.safetensors", Transport(*ENDS, Instead(learned)))
    assert all(torch.equal(other(vector(SOURCE))[key], learned[key]) for key in TARGET)
    assert not other.map.keys
    with pytest.raises(LineageError, match="no inverse"):
        other.map.inverse()
    with pytest.raises(LineageError, match="carries nothing of a model"):
        other.model(vector(TARGET), vector(SOURCE))


def test_equal_maps_are_written_once(tmp_path: Path) -> None:
    axes = {"w": (INDEX, RIGHT), "conv": (INDEX.clone(),), "b": (INDEX + 0,)}
    path = tmp_path / "t.safetensors"
    first = save_transport(path, Transport(*ENDS, Axes(axes)), {})
    with safe_open(path, framework="pt") as stream:
        assert len(list(stream.keys())) == 2
        lineage = json.loads(stream.metadata()[HEADER])
    assert (lineage["source_base"], lineage["base"]) == ("one", "two")
    assert list(json.loads(lineage["maps"])) == ["b", "conv", "w"]
    # The same tensors for other axes are another transport.
    axes["conv"], axes["b"] = (None, None), ()
    assert save_transport(path, Transport(*ENDS, Axes(axes)), {}) != first


def test_a_transport_between_other_bases_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    digest = save_transport(path, Transport(*ENDS, Axes({})), {"aligner": "x"})
    assert read_transport(path, *ENDS)[1]["digest"] == digest
    for ends in ((End("three", SOURCE), ENDS[1]), (ENDS[0], End("three", TARGET))):
        with pytest.raises(LineageError, match="but three is in use; run the align rule again"):
            read_transport(path, *ends)


@pytest.mark.parametrize("maps", ["[]", '{"w": ["nowhere"]}', '{"w": 3}', "{"])
def test_a_file_that_is_none_is_called_damaged(tmp_path: Path, maps: str) -> None:
    path = tmp_path / "t.safetensors"
    save_state(path, {}, {"base": "two", "source_base": "one", "maps": maps})
    with pytest.raises(ArtifactError, match="maps cannot be read"):
        read_transport(path, *ENDS)


def test_a_map_of_its_own_kind_is_in_no_file(tmp_path: Path) -> None:
    one = Transport(*ENDS, Axes({"b": ()}))
    chain: Map = one.then(Transport(ENDS[1], ENDS[0], Axes({"b": ()}))).map
    with pytest.raises(LineageError, match="this aligner gives Chain"):
        save_transport(tmp_path / "t.safetensors", Transport(*ENDS, chain), {})
