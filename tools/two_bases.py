"""What `docs/results.md` says of two bases: from tables and experts of a run of `presets/two-bases.yaml`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from scipy.optimize import linear_sum_assignment

from taskgrid.alignment import AlignContext
from taskgrid.alignment.images import Images
from taskgrid.alignment.sides import SideFiles
from taskgrid.data.manifest import SplitManifest
from taskgrid.results import read_frame, read_grid, read_selected
from taskgrid.statistics.seam import Examples
from taskgrid.store.images import ImageStore
from taskgrid.store.weights import load_state
from taskgrid.vectors import TaskVector
from tools.pages import interval, markdown, percent

_SOURCE, _TARGET, _OWN = "s0", "s1", "standard"

_HEAD = """
## Two bases

What are experts and task vectors of one base worth on another, which was pre-trained apart from it? Both
are shipped: s0 and s1, one architecture from other seeds. Means over both tasks, with 95 % intervals; λ
was chosen on validation.

"""

_MERGED = """### An expert of each base, merged

`street_digits` was fine-tuned from s1, `textures` from s0, carried whole by an aligner and brought under
the heads of s1 (`carry: model`, `output: heads`). *one base*: both were fine-tuned from s1.

"""

_BARRIERS = """
### Barriers

The highest excess of errors on the path between both experts over the line between their scores
([barriers](studies/barriers.md)); below zero the path is better than that line. Its place was looked for
on validation.

"""

_TRANSFER = """
### Task vectors of s0 on s1

*at 1*: the vector as it was brought. *at chosen λ*: at the λ that validation chose for each task. *over
direct*, *over few-shot*: the difference, at 1, from the vector as it is and from fine-tuning s1 with the
same images ([transfer](studies/transfer.md)).

"""

_WHY = """
### Why

What is brought should be like what s1 itself learns for the task: the cosine of the brought vector and
of the vector that was fine-tuned from s1, over all weights, is 1 for a vector of its own, and about 0
for one that has nothing to do with it.

"""


_CHANNELS = """
What the orthogonal maps gain is hardly the vector's: random numbers in its place gain about as much
([orthogonal](aligners/orthogonal.md)). And renaming can bring together only channels that both
bases have. Correlations of what the channels of s0 and s1 are on 64 training images of each task, means over
channels and blocks; of two numberings of one network they would be 1 when matched:

"""

_IMAGES = 64

_SPACES = {
    "res": "the residual stream",
    "q": "queries",
    "k": "keys",
    "v": "values",
    "mlp": "hidden units",
}


class Run(NamedTuple):
    """A finished run, as far as the page needs it."""

    grid: pd.DataFrame
    selected: pd.DataFrame
    curves: pd.DataFrame
    pairs: pd.DataFrame
    cosines: pd.DataFrame
    channels: pd.DataFrame


def read(results: Path) -> Run:
    """Read the tables of a run, and compare its vectors."""
    tables = results / "tables"
    return Run(
        read_grid(results),
        read_selected(results),
        read_frame(tables / "transfer" / "curves.parquet"),
        read_frame(tables / "barriers" / "pairs.parquet"),
        pd.DataFrame(cosines(results)),
        channels(results),
    )


def cosines(results: Path) -> Iterator[dict[str, Any]]:
    """Yield how alike each brought vector is to the one that the target's own expert has."""
    base, _ = load_state(results / "models" / _TARGET / "base.safetensors")

    def vector(file: Path) -> TaskVector:
        return TaskVector.between(base, load_state(file)[0])

    at = results / "experts" / _TARGET
    for own in sorted(at.glob(f"{_OWN}/0/*/expert.safetensors")):
        task, ours = own.parent.name, vector(own)
        for file in sorted(at.glob(f"*/0/{task}/expert.safetensors")):
            known = json.loads(file.with_name("expert.json").read_text())
            if known.get("carry") == "vector":
                found = vector(file).cosine(ours)
                yield {"mode": file.parents[2].name, "task": task, "cosine": found}


def channels(results: Path) -> pd.DataFrame:
    """Return how alike channels of both bases are on images: of one number, and matched one to one."""
    source, target = (
        SideFiles(at / "base.json", at / "base.safetensors").read()
        for at in (results / "models" / name for name in (_SOURCE, _TARGET))
    )
    shown = {}
    for file in sorted((results / "data").glob("*/*/images.arrow")):
        store = ImageStore.open(file)
        split = SplitManifest.read(results / "splits" / file.parts[-3] / f"{file.parts[-2]}.json")
        rows = store.rows(split.ids("train"))[:_IMAGES]
        shown[file.parts[-2]] = Examples(store.pixels[rows], store.labels[rows])
    found = AlignContext(source, target, images=Images(shown)).moments()
    alike = []
    for space, correlations in found.items():
        values = correlations.numpy()
        matched = values[linear_sum_assignment(values, maximize=True)]
        kind = _SPACES[space.rpartition(".")[2]]
        alike.append({"space": kind, "same": values.diagonal().mean(), "matched": matched.mean()})
    return pd.DataFrame(alike).groupby("space", sort=False, as_index=False).mean()


def section(run: Run) -> str:
    """Return the section."""
    test = run.grid[(run.grid["split"] == "test") & (run.grid["model"] == _TARGET)]
    base = test[test["method"] == "zeroshot"]["accuracy"].mean()
    own = test[(test["method"] == "expert") & (test["mode"] == _OWN)]
    ceiling = own[own["subset"] == own["task"]]["accuracy"].mean()
    return "".join(
        [
            _HEAD,
            f"Zero-shot, s1 has {percent(base)}, its own experts have {percent(ceiling)}.\n\n",
            _MERGED,
            markdown(("experts", "method", "λ", "accuracy"), _merged(run.selected)),
            _BARRIERS,
            markdown(("experts", "path", "first", "second", "t", "barrier"), _barriers(run.pairs)),
            _TRANSFER,
            markdown(
                (
                    "aligner",
                    "images",
                    "draws",
                    "at 1",
                    "at chosen λ",
                    "over direct",
                    "over few-shot",
                ),
                _transfer(run.curves),
            ),
            _WHY,
            markdown(("vectors", "cosine with s1's own"), _why(run.cosines)),
            _CHANNELS,
            markdown(("channels of", "of one number", "matched one to one"), _alike(run.channels)),
        ]
    )


def _set(mode: str) -> str:
    """Return what a set of one expert of each base is called."""
    return "one base" if mode == _OWN else f"two bases, {mode.removeprefix('both-')}"


def _is_set(mode: str) -> bool:
    return mode == _OWN or mode.startswith("both-")


def _merged(selected: pd.DataFrame) -> Iterator[Sequence[str]]:
    rows = selected[
        (selected["model"] == _TARGET)
        & (selected["study"] == "addition")
        & (selected["size"] == 2)
        & selected["mode"].map(_is_set)
    ]
    for row in rows.sort_values(["mode", "test_accuracy"], ascending=[False, False]).to_dict(
        "records"
    ):
        yield (
            _set(row["mode"]),
            f"[`{row['method']}`](methods/{row['method']}.md)",
            str(row["point"]),
            interval(row, "test_accuracy"),
        )


def _barriers(pairs: pd.DataFrame) -> Iterator[Sequence[str]]:
    rows = pairs[(pairs["model"] == _TARGET) & pairs["mode"].map(_is_set)]
    for row in rows.sort_values(["mode", "path"], ascending=False).to_dict("records"):
        yield (
            _set(row["mode"]),
            row["path"],
            percent(row["first"]),
            percent(row["second"]),
            f"{row['t']:.2f}",
            interval(row, "barrier", "low", "high"),
        )


def _transfer(curves: pd.DataFrame) -> Iterator[Sequence[str]]:
    one = curves[curves["coefficient"] == "one"]
    on = ["aligner", "options", "images"]
    chosen = curves[curves["coefficient"] == "chosen"].set_index(on)
    for row in one.to_dict("records"):
        at = tuple(row[name] for name in on)
        lines = chosen[
            (chosen.index.get_level_values("aligner") == at[0])
            & (chosen.index.get_level_values("options") == at[1])
        ]
        if not pd.isna(row["images"]):
            lines = lines[lines.index.get_level_values("images") == row["images"]]
        yield (
            _aligner(row),
            "" if pd.isna(row["images"]) else str(int(row["images"])),
            str(row["repeats"]),
            interval(row, "accuracy"),
            interval(lines.iloc[0].to_dict(), "accuracy") if len(lines) else "",
            interval(row, "over_direct"),
            interval(row, "over_few_shot"),
        )


def _aligner(row: dict[Any, Any]) -> str:
    options = json.loads(row["options"])
    by = {name: options[name] for name in ("by", "from") if name in options}
    words = ", ".join(str(value) for value in by.values())
    name = row["aligner"]
    shown = "none" if name == "none" else f"[`{name}`](aligners/{name}.md)"
    return f"{shown} ({words})" if words else shown


def _why(found: pd.DataFrame) -> Iterator[Sequence[str]]:
    found = found.assign(kind=found["mode"].str.replace(r"-\d+$", "", regex=True))
    for kind, part in found.groupby("kind", sort=False):
        lowest, highest = part["cosine"].min(), part["cosine"].max()
        yield str(kind), f"{part['cosine'].mean():.3f} ({lowest:.3f} to {highest:.3f})"


def _alike(found: pd.DataFrame) -> Iterator[Sequence[str]]:
    for row in found.to_dict("records"):
        yield str(row["space"]), f"{row['same']:.2f}", f"{row['matched']:.2f}"
