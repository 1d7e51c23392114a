"""Splits: which image trains, which one selects, which one tests.

What a source provides is taken as it is. What it lacks is cut from its training images with a fixed
permutation, as the task-arithmetic papers do (Ilharco et al. 2023; Ortiz-Jimenez et al. 2023):

* no validation split: ``min(10 %, 5000)`` of the training images, chosen by
  ``torch.utils.data.random_split`` with seed 0 over the source's own order;
* no test split: a fifth of the training images in the same way, before validation is cut from the
  rest.
  A source's validation split never becomes its test split, nor the other way round.

**Overlap.** No image may stand in two splits, by id or by the pixels as decoded.

* Between splits that the *source* provides, an overlap is a leak in the data: `SplitError`, unless
  the task says ``allow_overlap: true``, or ``duplicates: drop_from_train``: then the source's training
  images that its own validation or test images repeat are ``dropped``, whether they would train or
  were cut from train. All others stay where the papers' permutation puts them.
* Where the cut is *ours*, duplicates among the training images are nobody's mistake (real data sets
  hold a few). Grouping them would change the papers' permutation, so the held-out images stay as
  the papers have them, and their duplicates leave the training split. The manifest lists these
  images as ``dropped``. With ``allow_overlap: true`` nothing is dropped: exactly the papers' split.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch

from taskgrid.data.manifest import SplitManifest, split_digest
from taskgrid.errors import SplitError
from taskgrid.store.images import SPLITS, ImageIndex, Split


@dataclass(frozen=True)
class SplitRule:
    """How missing splits are cut from the training images.

    Attributes:
        fraction: share of the training images that becomes the validation split.
        limit: largest number of validation images.
        seed: seed of the permutation.
        test_fraction: share that becomes the test split, where the source has none.
    """

    fraction: float = 0.1
    limit: int = 5000
    seed: int = 0
    test_fraction: float = 0.2


def make_split(
    task: str,
    index: ImageIndex,
    classes: Sequence[str],
    rule: SplitRule | None = None,
    *,
    allow_overlap: bool = False,
    drop_duplicates: bool = False,
    partial: bool = False,
) -> SplitManifest:
    """Split a task's images; see the module's text for the rules.

    Args:
        task: name of the task, for the manifest and for messages.
        index: the images in the source's order, with their origins and pixel digests.
        classes: class names in label order.
        rule: how missing splits are cut; the papers' by default.
        allow_overlap: accept overlap between the source's own splits, and drop no duplicates.
        drop_duplicates: drop the source's training images that its own other splits repeat.
        partial: accept that a class is left without a training image, because just some of the
            task's images were taken.

    Raises:
        SplitError: if there are no training images or too few to cut from, the source's own splits
            overlap, or a class has training images in the source and none after the cut.
    """
    rule = rule or SplitRule()
    rows: dict[Split, list[int]] = {
        split: [row for row, origin in enumerate(index.origins) if origin == split]
        for split in SPLITS
    }
    if not rows["train"]:
        raise SplitError(f"task {task!r} has no training images")
    own = _own_digests(task, index, rows) if drop_duplicates else frozenset[str]()
    if not (allow_overlap or drop_duplicates):
        _refuse_overlap(task, index, rows, SPLITS)
    words: list[str] = []
    dropped: list[int] = []
    for cut in (_Cut("test", rule.test_fraction, None), _Cut("val", rule.fraction, rule.limit)):
        if rows[cut.split]:
            words.append(f"{cut.split}: the source's own")
            continue
        rest, held = _cut(task, rows["train"], cut, rule.seed)
        seen = set() if allow_overlap else {index.digests[row] for row in held} - own
        twins = [row for row in rest if index.digests[row] in seen]
        rows[cut.split] = held
        rows["train"] = sorted(set(rest) - set(twins))
        if not rows["train"]:
            raise SplitError(
                f"task {task!r}: every training image has a duplicate in the {cut.split} split "
                "that was cut from them; take the duplicates out"
            )
        dropped += twins
        note = "duplicates allowed" if allow_overlap else f"{len(twins)} duplicates left train"
        words.append(f"{cut.words}, fixed permutation with seed {rule.seed}, {note}")
    if drop_duplicates:
        twins = _take_twins(task, index, rows, own)
        dropped += twins
        words.append(f"{len(twins)} training images dropped that the source's own others repeat")
    if not partial:
        _refuse_lost(task, index, classes, rows["train"])
    ids = {split: tuple(sorted(index.ids[row] for row in rows[split])) for split in SPLITS}
    dataset = index.content_digest()
    return SplitManifest(
        task=task,
        train=ids["train"],
        val=ids["val"],
        test=ids["test"],
        classes=tuple(classes),
        dropped=tuple(sorted(index.ids[row] for row in dropped)),
        dataset=dataset,
        digest=split_digest(dataset, ids),
        rule="; ".join(words),
    )


@dataclass(frozen=True)
class _Cut:
    split: Split
    fraction: float
    limit: int | None

    @property
    def words(self) -> str:
        """Say what is cut: "val: 10%, at most 5000, of the training images"."""
        limit = f", at most {self.limit}," if self.limit is not None else ""
        return f"{self.split}: {self.fraction:.0%}{limit} of the training images"


def _cut(task: str, pool: list[int], cut: _Cut, seed: int) -> tuple[list[int], list[int]]:
    """Part rows into those that stay and those held out."""
    count = held_out_count(len(pool), cut.fraction, cut.limit)
    if not 0 < count < len(pool):
        raise SplitError(
            f"task {task!r} has {len(pool)} training images, too few to cut a {cut.split} split of "
            f"{cut.fraction:.0%} from them; add images, or a {cut.split} split of your own"
        )
    kept, held = hold_out(len(pool), count, seed)
    return [pool[i] for i in kept], [pool[i] for i in held]


def held_out_count(total: int, fraction: float, limit: int | None) -> int:
    """Return ``min(int(fraction * total), limit)``, the papers' size of a held-out split."""
    count = int(fraction * total)
    return count if limit is None else min(count, limit)


def hold_out(total: int, count: int, seed: int) -> tuple[list[int], list[int]]:
    """Part ``range(total)`` as ``torch.utils.data.random_split`` does with a seeded generator.

    Returns:
        The kept and the ``count`` held-out numbers, both in the permutation's order. For 60,000
        images, 5,000 of them held out with seed 0 (MNIST), the first kept number is 36,044.
    """
    order = torch.randperm(total, generator=torch.Generator().manual_seed(seed)).tolist()
    return order[: total - count], order[total - count :]


def _refuse_lost(
    task: str, index: ImageIndex, classes: Sequence[str], train: Sequence[int]
) -> None:
    """Refuse classes whose training images are all cut away: they could not be learnt."""
    left = {index.labels[row] for row in train}
    had = Counter(
        label
        for label, origin in zip(index.labels, index.origins, strict=True)
        if origin == "train"
    )
    for label in sorted(had.keys() - left):
        raise SplitError(
            f"task {task!r}: the class {classes[label]!r} has {had[label]} training image"
            f"{'' if had[label] == 1 else 's'}, and none is left in train once validation and test are cut "
            "from them; add images of it, or bring validation and test images of your own"
        )


def _own_digests(
    task: str, index: ImageIndex, rows: Mapping[Split, Sequence[int]]
) -> frozenset[str]:
    """Return the pixels of the source's own held-out images; refuse what leaving train cannot mend."""
    _refuse_overlap(task, index, rows, ("val", "test"))
    known = dict(zip(index.ids, index.digests, strict=True))
    held = [(split, row) for split in ("val", "test") for row in rows[split]]
    for split, row in held:
        # So an id is written that stood in another split before.
        name = index.ids[row].removeprefix(f"{split}:")
        if known.get(name, index.digests[row]) != index.digests[row]:
            raise SplitError(
                f"task {task!r}: the id {name!r} stands in two of the source's splits, with other pixels in "
                f"{split}; rename one, or set `allow_overlap: true` on the task instead of `duplicates`"
            )
    return frozenset(index.digests[row] for _, row in held)


def _take_twins(
    task: str, index: ImageIndex, rows: dict[Split, list[int]], own: Collection[str]
) -> list[int]:
    """Take the source's training images with some pixels out of all splits, and return them."""
    taken: list[int] = []
    for split in SPLITS:
        twins = {
            row
            for row in rows[split]
            if index.origins[row] == "train" and index.digests[row] in own
        }
        rows[split] = [row for row in rows[split] if row not in twins]
        if not rows[split]:
            raise SplitError(
                f"task {task!r}: `duplicates: drop_from_train` leaves no image in {split}: the source's own "
                "validation or test images repeat all of them; take the duplicates out"
            )
        taken += sorted(twins)
    return taken


def _refuse_overlap(
    task: str, index: ImageIndex, rows: Mapping[Split, Sequence[int]], among: Sequence[Split]
) -> None:
    for first, second in combinations(among, 2):
        for keys, what in ((index.ids, "the same id"), (index.digests, "the same pixels")):
            known = {keys[row]: row for row in reversed(rows[first])}
            pairs = [(known[keys[row]], row) for row in rows[second] if keys[row] in known]
            if pairs:
                left, right = (index.ids[row] for row in pairs[0])
                more = f" (and {len(pairs) - 1} more)" if len(pairs) > 1 else ""
                mended = first == "train" and keys is index.digests
                way = "set `duplicates: drop_from_train` to train without it, " if mended else ""
                raise SplitError(
                    f"task {task!r}: {left!r} in {first} and {right!r} in {second} have {what}{more}; "
                    f"take one out, {way}or set `allow_overlap: true` on the task to accept it"
                )
