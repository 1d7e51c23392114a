"""What ``evaluate_grid`` is asked for, read before anything is measured: one sentence per mistake."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral
from typing import Any, get_args

import numpy as np
import torch

from taskgrid.errors import ConfigError, DataError, DeviceError
from taskgrid.evaluation.plan.setting import SPLITS, Evaluation
from taskgrid.lattice.nodes import CurveSpec
from taskgrid.lattice.points import point_text
from taskgrid.lattice.subsets import parse_subset, subset_name

PRECISIONS = ("fp32", "bf16")


def check_choices(
    *, batch_size: Any, precision: Any, evaluation: Any, curves_on: Sequence[str], curves: Any
) -> None:
    """Refuse single values that cannot be.

    Raises:
        ConfigError: if one of them cannot.
    """
    whole = isinstance(batch_size, Integral) and not isinstance(batch_size, bool)
    if batch_size != "auto" and not (whole and batch_size >= 1):
        raise ConfigError(
            f"batch_size is {batch_size!r}; give a whole number of 1 or more, or 'auto'"
        )
    _check_one("precision", precision, PRECISIONS)
    _check_one("evaluation", evaluation, get_args(Evaluation))
    for split in curves_on:
        _check_one("curves_on", split, SPLITS)
    if curves is not None and not isinstance(curves, CurveSpec):
        raise ConfigError(
            f"curves is {curves!r}; give a CurveSpec, such as CurveSpec(nodes=7, tolerance=0.005)"
        )


def read_names(key: str, values: Any) -> tuple[str, ...]:
    """Return names as they were given.

    Raises:
        ConfigError: if it is no list of names; a single text is none.
    """
    names = tuple(_listed(key, values, "names"))
    for name in names:
        if not isinstance(name, str):
            raise ConfigError(f"{key} holds {name!r}; give names")
    return names


def read_subsets(subsets: Any) -> tuple[str, ...]:
    """Return the names of subsets that were given as names (``a+b``) or as lists of tasks.

    Raises:
        ConfigError: if it is no list of subsets, or an empty one.
    """
    names = tuple(
        subset_name(parse_subset(one) if isinstance(one, str) else read_names("a subset", one))
        for one in _listed("subsets", subsets, "subsets, or None for all of them")
    )
    if not names:
        raise ConfigError("subsets is empty; give at least one, or None for all of them")
    return names


def read_points(lambdas: Any) -> tuple[tuple[str, ...], dict[str, tuple[str, ...]]]:
    """Return scaling coefficients as text: those of all tasks, and points by the name of their subset.

    Raises:
        ConfigError: if it is no list of numbers and mappings from tasks to numbers.
    """
    scales: list[str] = []
    points: dict[str, tuple[str, ...]] = {}
    for value in _listed("lambdas", lambdas, "numbers"):
        if isinstance(value, Mapping):
            name = subset_name(value)
            points[name] = (*points.get(name, ()), _point(value))
        else:
            scales.append(_point(value))
    return tuple(scales), points


def read_named(key: str, values: Any) -> tuple[tuple[str, Mapping[str, Any]], ...]:
    """Return plug-ins that were given by name, or by name with options, as pairs of both.

    Raises:
        ConfigError: if it is neither.
    """
    if isinstance(values, Mapping):
        return tuple((str(name), dict(options)) for name, options in values.items())
    return tuple((name, {}) for name in read_names(key, values))


def check_examples(
    task: str, split: str, pixels: Any, labels: Any, *, size: int, classes: int
) -> None:
    """Refuse images that the model would read as others, or not at all.

    Args:
        task: whose images they are.
        split: of which split.
        pixels: should be ``(n, size, size, 3)`` uint8, RGB, not normalised.
        labels: should be ``(n,)`` whole numbers below ``classes``.
        size: the model's side in pixels.
        classes: how many classes the head has.

    Raises:
        DataError: if they are not; says how they become so.
    """
    what = f"task {task!r}: its {split} images"
    if not isinstance(pixels, np.ndarray):
        raise DataError(f"{what} are a {type(pixels).__name__}; give a NumPy array of uint8")
    if pixels.dtype != np.uint8:
        raise DataError(
            f"{what} are {pixels.dtype}; give uint8 from 0 to 255, not normalised: of numbers from 0 to 1 "
            "that is (255 * images).round().astype('uint8')"
        )
    if pixels.shape[1:] != (size, size, 3) or not len(pixels):
        raise DataError(
            f"{what} have the shape {pixels.shape}, but the model takes (n, {size}, {size}, 3); "
            f"{_reshaped(pixels.shape, size)}"
        )
    found = np.asarray(labels)
    if found.ndim != 1 or found.dtype.kind not in "iu":
        raise DataError(
            f"{what} have labels that are {found.dtype} of shape {found.shape}; give a whole number for each"
        )
    if len(found) != len(pixels):
        raise DataError(f"task {task!r} has {len(pixels)} {split} images, but {len(found)} labels")
    if not 0 <= found.min() <= found.max() < classes:
        wrong = found.min() if found.min() < 0 else found.max()
        raise DataError(
            f"{what} have the label {wrong}, but its head has {classes} classes: labels run from 0 to "
            f"{classes - 1}"
        )


def _reshaped(shape: tuple[int, ...], size: int) -> str:
    if not shape or not shape[0]:
        return "give at least one image"
    if len(shape) == 4 and shape[1] == 3 and shape[2] == shape[3]:
        return "channels come last: images.transpose(0, 2, 3, 1)"
    if len(shape) == 3:
        return "grey is repeated: images[..., None].repeat(3, axis=-1)"
    if len(shape) == 4 and shape[3] == 3:
        return f"resize each by taskgrid.data.preprocess.prepare(image, {size})"
    return "give RGB images of its size"


def read_device(device: torch.device | str) -> torch.device:
    """Return a device.

    Raises:
        DeviceError: if there is none of that name.
    """
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise DeviceError(f"device {device!r} is unknown; give cpu or cuda") from error
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise DeviceError(
            f"device {str(found)!r} is asked for, but torch sees no such GPU; give cpu"
        )
    return found


def _point(value: Any) -> str:
    try:
        return point_text(value)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"lambdas holds {value!r}; give numbers") from error


def _check_one(key: str, value: Any, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ConfigError(f"{key} cannot be {value!r}; choose {' or '.join(map(repr, allowed))}")


def _listed(key: str, values: Any, what: str) -> Iterable[Any]:
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise ConfigError(f"{key} is {values!r}; give a list of {what}")
    return values
