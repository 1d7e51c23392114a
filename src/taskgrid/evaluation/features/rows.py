"""What was seen, as rows of the tables of the study ``features``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations_with_replacement
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from taskgrid.evaluation.features.comparing import distances, linear_cka, mean_cosine
from taskgrid.evaluation.features.edits import EXPERT, Edit, Network
from taskgrid.evaluation.features.looking import Sight
from taskgrid.evaluation.features.weighing import weight_norms
from taskgrid.plugins.cards import study_card
from taskgrid.store.columns import card_schema
from taskgrid.store.images import Pixels
from taskgrid.store.weights import State

Row: TypeAlias = Mapping[str, Any]
"""Column -> value; arrays in some columns are as many rows as they are long."""


@dataclass(frozen=True)
class Seen:
    """What was seen on a task's images.

    Attributes:
        task: the task.
        n: how many images there were.
        first: the pixels of the first, ``(S, S, 3)`` uint8.
        networks: the base, then all others that were looked at.
        sights: what was seen of each.
    """

    task: str
    n: int
    first: Pixels
    networks: tuple[Network, ...]
    sights: tuple[Sight, ...]


def norm_rows(seen: Seen) -> Iterator[Row]:
    """Yield the norms of all tokens, of each network but the base, place by place."""
    base, *others = seen.sights
    for network, sight in zip(seen.networks[1:], others, strict=True):
        for place in base.sums:
            yield {
                **network.labels(),
                "chosen": network.chosen,
                **asdict(place),
                "task": seen.task,
                "token": np.arange(len(base.sums[place])),
                "n": seen.n,
                "norm_base": base.norms(place).cpu().numpy(),
                "norm_delta": sight.norms(place).cpu().numpy(),
                "sample_base": base.first[place].cpu().numpy(),
                "sample_delta": sight.first[place].cpu().numpy(),
            }


def pixel_rows(seen: Seen) -> Row:
    """Return the first image."""
    y, x = np.indices(seen.first.shape[:2]).reshape(2, -1)
    red, green, blue = seen.first.reshape(-1, 3).T
    return {"task": seen.task, "pixel_y": y, "pixel_x": x, "red": red, "green": green, "blue": blue}


def similarity_rows(seen: Seen) -> Iterator[Row]:
    """Yield every pair of networks, each with itself too, layer by layer."""
    labels = [network.labels() for network in seen.networks]
    for place in seen.sights[0].kept:
        features = [sight.features(place) for sight in seen.sights]
        cka = linear_cka(features)
        for i, j in combinations_with_replacement(range(len(features)), 2):
            yield {
                "task": seen.task,
                **asdict(place),
                **labels[i],
                **{f"other_{name}": value for name, value in labels[j].items()},
                "chosen": seen.networks[i].chosen and seen.networks[j].chosen,
                "n": seen.n,
                "cka": cka[i][j],
                "cosine": mean_cosine(features[i], features[j]),
            }


def bias_rows(seen: Seen) -> Iterator[Row]:
    """Yield how far the features of each network are from those of the task's expert."""
    output = [*seen.sights[0].kept][-1]
    found = [sight.features(output) for sight in seen.sights]
    expert = found[[*map(_is_expert, seen.networks)].index(True)]
    for network, features in zip(seen.networks, found, strict=True):
        l1, l2 = distances(features, expert)
        left: tuple[float | None, float | None] = (None, None)
        if network.edit is not None and network.edit.correct is not None:
            mended = network.edit.correct(network.point, seen.task, features)
            left = distances(mended, expert)
        yield {
            **network.labels(),
            "chosen": network.chosen,
            "task": seen.task,
            "n": seen.n,
            "l1": l1,
            "l2": l2,
            "l1_left": left[0],
            "l2_left": left[1],
        }


def weight_rows(base: State, edit: Edit) -> Iterator[Row]:
    """Yield the norms of an edit's weights at each of its coefficients, part by part."""
    for point in edit.weighed_at:
        for task in edit.subset if edit.per_task else edit.subset[:1]:
            labels = {**Network(edit, point).labels(), "task": task if edit.per_task else None}
            for norms in weight_norms(base, edit.state(point, task)):
                yield {**labels, **asdict(norms)}


def table_of(name: str, run: Mapping[str, Any], rows: Sequence[Row]) -> pa.Table:
    """Return rows as one of the study's tables.

    Args:
        name: which.
        run: model, mode and seed.
        rows: at least one; what the table has no column for is left out.
    """
    schema = card_schema(study_card("features").tables[name])
    lengths = [
        max((len(one) for one in row.values() if isinstance(one, np.ndarray)), default=1)
        for row in rows
    ]
    repeated = np.repeat(np.arange(len(rows)), lengths)

    def column(field: pa.Field) -> pa.Array:
        values = [{**run, **row}[field.name] for row in rows]
        if isinstance(values[0], np.ndarray):
            return pa.array(np.concatenate(values), field.type)
        return pa.array(values, field.type).take(pa.array(repeated))

    return pa.table([column(field) for field in schema], schema=schema)


def _is_expert(network: Network) -> bool:
    return network.edit is not None and network.edit.method == "expert" and network.point == EXPERT
