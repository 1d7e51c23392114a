import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import random_split

from taskgrid.data.splits import SplitRule, held_out_count, hold_out, make_split
from taskgrid.errors import SplitError
from taskgrid.store.images import SPLITS, ImageIndex

CLASSES = ("cat", "dog")


def index(digests=None, **counts):
    """An index of ``{origin: count}``; digests are unique but where they are given by row."""
    rows = [(f"{origin}/{n:05d}", origin) for origin, count in counts.items() for n in range(count)]
    ids, origins = zip(*rows, strict=True)
    return ImageIndex(
        ids,
        tuple(n % 2 for n in range(len(rows))),
        origins,
        tuple((digests or {}).get(row, f"pixels of {row}") for row in range(len(rows))),
    )


def split(found, **options):
    return make_split("pets", found, CLASSES, **options)


# Table 2.1 of the papers' protocol: task, training images, of which validation.
@pytest.mark.parametrize(
    ("total", "val"),
    [
        (8144, 814), (3760, 376), (26640, 2664), (60000, 5000), (18900, 1890), (19850, 1985),
        (73257, 5000),
    ],
)  # fmt: skip
def test_validation_has_the_papers_size(total, val):
    assert held_out_count(total, 0.1, 5000) == val


def test_the_mnist_canary():
    kept, held = hold_out(60000, 5000, 0)
    assert kept[0] == 36044
    assert len(kept) == 55000
    assert len(held) == 5000


@settings(max_examples=40)
@given(total=st.integers(2, 300), share=st.floats(0, 1), seed=st.integers(0, 2**31))
def test_holding_out_is_random_split(total, share, seed):
    count = int(share * total)
    kept, held = random_split(
        range(total), [total - count, count], torch.Generator().manual_seed(seed)
    )
    assert hold_out(total, count, seed) == (list(kept.indices), list(held.indices))


def test_the_papers_split_is_reproduced():
    found = split(index(train=500, test=40))
    expected, _ = random_split(range(500), [450, 50], torch.Generator().manual_seed(0))
    assert set(found.train) == {f"train/{n:05d}" for n in expected.indices}
    assert found.test == tuple(f"test/{n:05d}" for n in range(40))
    assert found.counts == {"train": 450, "val": 50, "test": 40, "dropped": 0}
    assert found.rule == (
        "test: the source's own; val: 10%, at most 5000, of the training images, "
        "fixed permutation with seed 0, 0 duplicates left train"
    )


COUNTS = st.fixed_dictionaries(
    {"train": st.integers(30, 120)}, optional={"val": st.integers(1, 9), "test": st.integers(1, 9)}
)


@settings(max_examples=60)
@given(counts=COUNTS, twins=st.lists(st.tuples(st.integers(0, 14), st.integers(0, 14)), max_size=5))
def test_a_split_is_a_partition(counts, twins):
    digests = {row: f"twins of {min(pair)}" for pair in twins for row in pair}
    found = index(digests, **{name: counts[name] for name in SPLITS if name in counts})
    manifest = split(found)
    parts = [manifest.train, manifest.val, manifest.test, manifest.dropped]
    assert sorted(name for part in parts for name in part) == sorted(found.ids)
    assert all(list(part) == sorted(part) for part in parts)
    digest_of = dict(zip(found.ids, found.digests, strict=True))
    train, val, test = ({digest_of[name] for name in part} for part in parts[:3])
    assert not train & val
    assert not train & test
    # Twins within what is held out at once are no leak; between val and test they are.
    assert not val & test
    held = val | test
    assert all(digest_of[name] in held for name in manifest.dropped)
    for origin, part in (("val", manifest.val), ("test", manifest.test)):
        if origin in counts:
            assert part == tuple(f"{origin}/{n:05d}" for n in range(counts[origin]))


def test_dropping_twins_keeps_the_papers_held_out_images():
    plain = split(index(train=200, test=5))
    row = int(plain.val[0].removeprefix("train/"))
    twin = int(plain.train[0].removeprefix("train/"))
    other = int(plain.train[1].removeprefix("train/"))
    same = {row: "same", twin: "same", other: "same"}
    found = split(index(same, train=200, test=5))
    assert found.val == plain.val
    assert found.dropped == plain.train[:2]
    assert found.train == plain.train[2:]
    assert "2 duplicates left train" in found.rule
    allowed = split(index(same, train=200, test=5), allow_overlap=True)
    assert (allowed.val, allowed.train, allowed.dropped) == (plain.val, plain.train, ())
    assert "duplicates allowed" in allowed.rule


def test_a_source_without_test_gives_a_fifth_of_train():
    found = split(index(train=100))
    assert found.counts == {"train": 72, "val": 8, "test": 20, "dropped": 0}
    _, held = random_split(range(100), [80, 20], torch.Generator().manual_seed(0))
    assert set(found.test) == {f"train/{n:05d}" for n in held.indices}
    rest = sorted(set(range(100)) - set(held.indices))
    _, val = random_split(rest, [72, 8], torch.Generator().manual_seed(0))
    assert set(found.val) == {f"train/{n:05d}" for n in val}
    assert found.rule.startswith("test: 20% of the training images, fixed permutation with seed 0")


def test_a_source_with_val_only_keeps_it_as_val():
    found = split(index(train=100, val=7))
    assert found.val == tuple(f"val/{n:05d}" for n in range(7))
    assert found.counts == {"train": 80, "val": 7, "test": 20, "dropped": 0}
    assert found.rule.endswith("val: the source's own")


def test_the_rule_is_configurable():
    rule = SplitRule(fraction=0.25, limit=10, seed=3)
    found = split(index(train=100, test=5), rule=rule)
    assert found.counts["val"] == 10
    assert found.val != split(index(train=100, test=5), rule=SplitRule(0.25, 10, 4)).val


@pytest.mark.parametrize(
    ("counts", "pair"),
    [
        ({"train": 20, "test": 5}, ("train/00003", "test/00001", 3, 21)),
        ({"train": 20, "val": 5}, ("train/00000", "val/00004", 0, 24)),
        ({"train": 20, "val": 5, "test": 5}, ("val/00002", "test/00000", 22, 25)),
    ],
)
def test_overlap_of_the_sources_splits_names_the_pair_and_the_way_out(counts, pair):
    left, right, *rows = pair
    found = index(dict.fromkeys(rows, "same"), **counts)
    with pytest.raises(SplitError) as caught:
        split(found)
    for words in ("'pets'", repr(left), repr(right), "the same pixels", "`allow_overlap: true`"):
        assert words in str(caught.value)
    allowed = split(found, allow_overlap=True)
    assert {left, right} <= {*allowed.train, *allowed.val, *allowed.test}


def test_training_images_that_own_test_images_repeat_are_dropped_on_request():
    plain = split(index(train=200, test=5))
    twins = (plain.val[0], plain.train[0])
    rows = [int(name.removeprefix("train/")) for name in twins]
    found = index({**dict.fromkeys(rows, "same"), 203: "same"}, train=200, test=5)
    with pytest.raises(SplitError, match=r"set `duplicates: drop_from_train` to train without it"):
        split(found)
    made = split(found, drop_duplicates=True)
    # What is left stands where the papers' permutation puts it.
    assert (made.val, made.train, made.test) == (plain.val[1:], plain.train[1:], plain.test)
    assert made.dropped == tuple(sorted(twins))
    assert made.rule.endswith("; 2 training images dropped that the source's own others repeat")
    assert split(index(train=200, test=5), drop_duplicates=True).digest == plain.digest


@settings(max_examples=60)
@given(counts=COUNTS, twins=st.lists(st.tuples(st.integers(0, 14), st.integers(0, 60)), max_size=6))
def test_dropping_leaves_no_overlap_and_touches_no_own_split(counts, twins):
    digests = {row: f"twins of {min(pair)}" for pair in twins for row in pair}
    found = index(digests, **{name: counts[name] for name in SPLITS if name in counts})
    try:
        made = split(found, drop_duplicates=True)
    except SplitError as error:
        # Of 30 images or more, five pairs cannot repeat all that train or are cut; own splits may clash.
        assert "in val and" in str(error) or "leaves no image in val" in str(error)
        return
    parts = [made.train, made.val, made.test]
    assert sorted(name for part in (*parts, made.dropped) for name in part) == sorted(found.ids)
    digest_of = dict(zip(found.ids, found.digests, strict=True))
    train, val, test = ({digest_of[name] for name in part} for part in parts)
    assert not (train & val or train & test or val & test)
    assert all(name.startswith("train/") for name in made.dropped)
    assert {digest_of[name] for name in made.dropped} <= val | test


def test_dropping_mends_no_overlap_but_that_of_train():
    with pytest.raises(
        SplitError, match=r"'val/00002' in val .* have the same pixels; take one out"
    ):
        split(index({22: "same", 25: "same"}, train=20, val=5, test=5), drop_duplicates=True)
    every = index(dict.fromkeys(range(20), "same") | {24: "same"}, train=20, val=1, test=5)
    with pytest.raises(SplitError, match="leaves no image in train: the source's own"):
        split(every, drop_duplicates=True)


def test_one_id_is_one_image_or_refused():
    plain = index({3: "same", 21: "same"}, train=20, test=5)
    names = list(plain.ids)
    # So the dataset rule writes an id that stood in train before.
    names[21] = f"test:{names[3]}"
    shared = ImageIndex(tuple(names), plain.labels, plain.origins, plain.digests)
    made = split(shared, drop_duplicates=True)
    assert (made.dropped, names[21] in made.test) == ((names[3],), True)
    names[21], names[22] = plain.ids[21], f"test:{names[3]}"
    clash = ImageIndex(tuple(names), plain.labels, plain.origins, plain.digests)
    with pytest.raises(
        SplitError, match=r"the id 'train/00003' stands in two .* other pixels in test"
    ):
        split(clash, drop_duplicates=True)


def test_overlap_by_id_is_an_error():
    plain = index(train=20, test=5)
    found = ImageIndex(
        (*plain.ids[:20], "train/00004", *plain.ids[21:]),
        plain.labels,
        plain.origins,
        plain.digests,
    )
    with pytest.raises(SplitError, match=r"'train/00004' in train .* have the same id"):
        split(found)


def test_twins_in_one_split_are_no_overlap():
    found = split(index({20: "same", 21: "same"}, train=20, test=5))
    assert len(found.test) == 5


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"test": 5}, "no training images"),
        ({"train": 9, "test": 5}, "9 training images, too few to cut a val split of 10%"),
        ({"train": 4}, "4 training images, too few to cut a test split of 20%"),
    ],
)
def test_too_few_images_are_an_error(counts, message):
    with pytest.raises(SplitError, match=message):
        split(index(**counts))


def test_nothing_but_twins_is_an_error():
    with pytest.raises(SplitError, match="every training image has a duplicate in the val split"):
        split(index(dict.fromkeys(range(20), "same"), train=20, test=5))


def test_the_digest_follows_content_and_not_order():
    found = index(train=60, val=8, test=5)
    rows = list(zip(found.ids, found.labels, found.origins, found.digests, strict=True))
    random.Random(0).shuffle(rows)
    shuffled = split(ImageIndex(*zip(*rows, strict=True)))
    plain = split(found)
    assert shuffled == plain
    relabelled = ImageIndex(found.ids, (9, *found.labels[1:]), found.origins, found.digests)
    repainted = ImageIndex(found.ids, found.labels, found.origins, ("new", *found.digests[1:]))
    assert len({split(x).digest for x in (found, relabelled, repainted)}) == 3
    other_seed = split(index(train=60, test=5), rule=SplitRule(seed=1))
    assert other_seed.digest != split(index(train=60, test=5)).digest


def test_the_digest_is_pinned():
    # A change here makes every result of every user stale: it must be meant.
    assert split(index(train=60, test=5)).digest == "eac4374d79cbda2a72ab9ab5fc46edb8"
