from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import ipc

from taskgrid.errors import ArtifactError
from taskgrid.provenance import digest
from taskgrid.store.outcome import Outcome
from taskgrid.store.outcomes import OutcomeStore

SOURCE = Path(__file__).parents[3] / "src"


def outcome(name: object, n: int = 20, nll: float = 0.5) -> Outcome:
    random = np.random.default_rng(int(digest(str(name))[:8], 16))
    return Outcome.of(digest(str(name)), random.random(n) < 0.7, nll, 0.1)


def outcomes(*names: object) -> dict[str, Outcome]:
    return {item.key: item for item in map(outcome, names)}


@given(st.lists(st.booleans(), min_size=1, max_size=70))
def test_bits_give_every_sample_back(hits: list[bool]) -> None:
    packed = Outcome.of(digest("x"), np.array(hits), 0.0, 0.0)
    assert packed.hits().tolist() == hits
    assert (packed.n, packed.correct) == (len(hits), sum(hits))
    assert packed.accuracy == sum(hits) / len(hits)
    assert len(packed.bits) == (len(hits) + 7) // 8


def test_what_was_stored_is_found_and_nothing_else(tmp_path: Path) -> None:
    store, kept = OutcomeStore(tmp_path), outcomes(*range(10))
    assert store.find(kept) == {}
    store.append(list(kept.values())[:4])
    store.append(list(kept.values())[4:])
    assert store.find([*kept, digest("absent")]) == kept
    assert store.find([]) == {}
    assert OutcomeStore(tmp_path).find(list(kept)[3:6]) == dict(list(kept.items())[3:6])


def test_keys_that_share_a_beginning_are_told_apart(tmp_path: Path) -> None:
    kept = {
        f"{'0' * 30}{i:02x}": Outcome.of(f"{'0' * 30}{i:02x}", np.ones(i + 1, bool), 0.0, 0.0)
        for i in range(20)
    }
    store = OutcomeStore(tmp_path)
    store.append(list(kept.values()))
    assert store.find(kept) == kept


def test_numbers_that_are_not_finite_survive(tmp_path: Path) -> None:
    store, bad = OutcomeStore(tmp_path), outcome("diverged", nll=float("nan"))
    store.append([bad])
    found = store.find([bad.key])[bad.key]
    assert np.isnan(found.nll)
    assert found.bits == bad.bits


def test_nothing_is_no_file(tmp_path: Path) -> None:
    assert OutcomeStore(tmp_path).append([]) is None
    with OutcomeStore(tmp_path).writer():
        pass
    assert list(tmp_path.iterdir()) == []


def test_bits_must_fit_the_count(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="2 bytes for 20 bits"):
        OutcomeStore(tmp_path).append([Outcome(digest("x"), 20, 3, 0.0, 0.0, b"12")])


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_file_loses_its_own_outcomes_at_most(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("store")
    store = OutcomeStore(root)
    good, bad = outcomes(*range(5)), outcomes(*range(5, 10))
    store.append(list(good.values()))
    path = store.append(list(bad.values()))
    assert path is not None
    content = bytearray(path.read_bytes())
    kind = data.draw(st.sampled_from(["cut", "flip", "noise", "empty"]))
    if kind == "cut":
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    elif kind == "flip":
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    elif kind == "noise":
        content = bytearray(data.draw(st.binary(max_size=300)))
    else:
        content = bytearray()
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        found = OutcomeStore(root).find([*good, *bad])
        OutcomeStore(root).compact()
        again = OutcomeStore(root).find([*good, *bad])
    everything = good | bad
    assert good.items() <= found.items() <= everything.items()
    assert good.items() <= again.items() <= everything.items()


def test_a_damaged_file_is_named_once_and_can_be_computed_again(tmp_path: Path) -> None:
    store, kept = OutcomeStore(tmp_path), outcomes(1, 2)
    path = store.append(list(kept.values()))
    assert path is not None
    path.write_bytes(path.read_bytes()[:-30])
    fresh = OutcomeStore(tmp_path)
    with pytest.warns(RuntimeWarning, match=f"{path.name} is damaged"):
        assert fresh.find(kept) == {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fresh.append(list(kept.values()))
        assert fresh.find(kept) == kept


def test_a_store_of_an_earlier_version_is_named_once(tmp_path: Path) -> None:
    store, kept = OutcomeStore(tmp_path), outcomes(1, 2)
    for outcome in kept.values():
        path = store.append([outcome])
        assert path is not None
        with pa.OSFile(str(path)) as source:
            table = (
                ipc.open_file(source)
                .read_all()
                .drop_columns(["predicted"])
                .replace_schema_metadata()
            )
        with ipc.new_file(path, table.schema) as sink:
            sink.write_table(table)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        assert OutcomeStore(tmp_path).find(kept) == {}
    (warning,) = caught
    assert f"{tmp_path} holds outcomes of an earlier version" in str(warning.message)
    store.append(list(kept.values()))
    with pytest.warns(RuntimeWarning, match="earlier version"):
        assert OutcomeStore(tmp_path).find(kept) == kept


def test_a_flipped_bit_costs_the_outcomes_of_its_file_and_no_other(tmp_path: Path) -> None:
    store, kept, lost = OutcomeStore(tmp_path), outcomes(0, 1), outcomes(2, 3)
    store.append(list(kept.values()))
    path = store.append(list(lost.values()))
    assert path is not None
    content = path.read_bytes()
    # The head among them: Arrow would end the process over some of these.
    for place in range(0, len(content), 7):
        path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        with pytest.warns(RuntimeWarning, match=f"{path.name} is damaged .* computed again"):
            assert OutcomeStore(tmp_path).find([*kept, *lost]) == kept
    store.append([outcome("other")])
    with pytest.warns(RuntimeWarning, match=f"{path.name} is damaged"):
        store.compact()
    assert OutcomeStore(tmp_path).find(kept) == kept and path.exists()


def test_an_outcome_that_changed_after_its_file_was_looked_at_is_left_out(tmp_path: Path) -> None:
    store, kept = OutcomeStore(tmp_path), outcomes(*range(8))
    path = store.append(list(kept.values()))
    assert path is not None
    assert store.find(kept) == kept
    content, victim = path.read_bytes(), kept[digest("3")]
    assert content.count(victim.bits) == 1
    flipped = bytes([victim.bits[0] ^ 1]) + victim.bits[1:]
    path.write_bytes(content.replace(victim.bits, flipped))
    with pytest.warns(RuntimeWarning, match="1 of its outcomes do not match"):
        found = store.find(kept)
    assert found == {key: item for key, item in kept.items() if key != victim.key}


def test_of_two_outcomes_of_one_key_the_same_is_taken_whatever_the_files(tmp_path: Path) -> None:
    one, two = outcome("x", nll=0.5), outcome("x", nll=0.5000001)
    for round_ in range(8):
        store = OutcomeStore(tmp_path / str(round_))
        for item in (one, two) if round_ % 2 else (two, one):
            store.append([item])
        if round_ > 3:
            store.compact()
        first = store.find([one.key])[one.key]
        assert first == OutcomeStore(tmp_path / "0").find([one.key])[one.key]


def test_compaction_keeps_all_in_one_file(tmp_path: Path) -> None:
    store, kept = OutcomeStore(tmp_path), outcomes(*range(30))
    for item in kept.values():
        store.append([item])
    reader = OutcomeStore(tmp_path)
    assert reader.find(list(kept)[:1])
    merged = store.compact()
    assert list(tmp_path.iterdir()) == [merged]
    # The reader's index names files that are gone.
    assert reader.find(kept) == kept
    assert store.compact() is None


def test_a_reader_looks_again_when_a_file_is_merged_away_under_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, kept = OutcomeStore(tmp_path), outcomes(*range(6))
    for item in kept.values():
        store.append([item])
    reader = OutcomeStore(tmp_path)
    listed = reader._refresh
    rounds = []

    def list_then_lose() -> None:
        listed()
        rounds.append(1)
        if len(rounds) == 1:
            store.compact()

    monkeypatch.setattr(reader, "_refresh", list_then_lose)
    assert reader.find(kept) == kept
    assert len(rounds) == 2


def test_compaction_clears_away_what_killed_processes_left(tmp_path: Path) -> None:
    store = OutcomeStore(tmp_path)
    store.append([outcome(1)])
    old, new = tmp_path / ".x.arrow.abc.tmp", tmp_path / ".y.arrow.abc.tmp"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    store.compact()
    assert not old.exists()
    assert new.exists()


def test_a_writer_leaves_one_file_and_stores_also_when_its_block_fails(tmp_path: Path) -> None:
    kept = outcomes(*range(12))
    with pytest.raises(KeyboardInterrupt), OutcomeStore(tmp_path).writer(seconds=0) as writer:
        for item in kept.values():
            writer.add(item)
        assert len(list(tmp_path.iterdir())) == 12
        raise KeyboardInterrupt
    assert len(list(tmp_path.iterdir())) == 1
    assert OutcomeStore(tmp_path).find(kept) == kept


def test_a_killed_process_loses_no_more_than_what_waited(tmp_path: Path) -> None:
    code = """
        import os, signal, sys
        from tests.unit.store.test_outcomes import outcome
        from taskgrid.store.outcomes import OutcomeStore
        with OutcomeStore(sys.argv[1]).writer(seconds=0) as writer:
            for name in range(100):
                writer.add(outcome(name))
                if name == 40:
                    os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": f"{SOURCE}:{SOURCE.parent}"},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    assert len(OutcomeStore(tmp_path).find(outcomes(*range(100)))) == 41


def _write_many(root: Path, worker: int) -> None:
    store = OutcomeStore(root)
    for chunk in range(10):
        store.append([outcome((worker, chunk, row)) for row in range(3)])
        if chunk % 4 == worker % 4:
            store.compact()


def test_processes_write_compact_and_read_at_once(tmp_path: Path) -> None:
    names = [(worker, chunk, row) for worker in range(4) for chunk in range(10) for row in range(3)]
    expected = outcomes(*names)
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_write_many, args=(tmp_path, i)) for i in range(4)]
    for worker in workers:
        worker.start()
    reader, seen = OutcomeStore(tmp_path), 0
    while any(worker.is_alive() for worker in workers):
        found = reader.find(expected)
        assert found.items() <= expected.items()
        assert len(found) >= seen
        seen = len(found)
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert reader.find(expected) == expected


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    blocked = tmp_path / "store"
    blocked.write_text("a file, not a folder")
    with pytest.raises(ArtifactError, match="cannot write"):
        OutcomeStore(blocked).append([outcome(1)])
    with pytest.raises(ArtifactError, match="cannot be read"):
        OutcomeStore(blocked).find([digest("x")])
