"""The figure of one run: the curve of a merge over lambda, or those of a training."""

from __future__ import annotations

import io
from collections.abc import Mapping

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from taskgrid.plots import style
from taskgrid.plots.sheet import PAGE
from taskgrid.tracking.building.merges import STEPS_PER_UNIT

Curve = Mapping[int, float]
"""Step -> value."""

_TASK = "val/accuracy/"
_HEIGHT = 2.6
_MEAN = style.Look((0.0, 0.0, 0.0), "o", "solid")


def merge_curve(name: str, curves: Mapping[str, Curve], numbers: Mapping[str, float]) -> str:
    """Return as SVG the accuracy of a merge on validation over lambda, with the chosen point.

    Args:
        name: what it is of.
        curves: ``val/mean_accuracy`` and ``val/accuracy/<task>``.
        numbers: ``lambda`` and ``chosen/test_accuracy`` with its interval, where there is a chosen point.
    """
    with style.paper_style():
        figure, axes = _panels(name, 1, right=0.72)
        tasks = sorted(key for key in curves if key.startswith(_TASK))
        looks = style.looks(tasks)
        for key in tasks if len(tasks) > 1 else ():
            _line(axes[0], curves[key], looks[key], label=key.removeprefix(_TASK), thin=True)
        _line(axes[0], curves["val/mean_accuracy"], _MEAN, label="mean on validation")
        at, test = numbers.get("lambda"), numbers.get("chosen/test_accuracy")
        if at is not None and test is not None:
            low, high = (
                numbers.get(f"chosen/test_accuracy_{end}", test) for end in ("low", "high")
            )
            error = [[100 * (test - low)], [100 * (high - test)]]
            axes[0].errorbar(
                [at], [100 * test], error, fmt="D", color="black", mfc="white", ms=4,
                label="chosen, on test", zorder=5,
            )  # fmt: skip
        axes[0].set_xlabel(style.LAMBDA_LABEL)
        axes[0].set_ylabel("accuracy [%]")
        axes[0].legend(loc="upper left", bbox_to_anchor=(1.01, 1.02))
        return _svg(figure)


def training_curve(name: str, curves: Mapping[str, Curve], numbers: Mapping[str, float]) -> str:
    """Return as SVG the loss of a training and its accuracy on validation over steps.

    Args:
        name: what it is of.
        curves: ``train/loss``, ``val/accuracy``.
        numbers: ``accuracy/test`` and ``accuracy/zeroshot_test``, where they are known.
    """
    with style.paper_style():
        figure, axes = _panels(name, 2, right=0.98)
        if "train/loss" in curves:
            loss = curves["train/loss"]
            axes[0].plot(list(loss), list(loss.values()), color="black", linewidth=0.8)
        axes[0].set_ylabel("loss")
        _line(axes[1], curves.get("val/accuracy", {}), _MEAN, label="on validation", unit=1)
        levels = {
            "expert, on test": "accuracy/test",
            "zero-shot, on test": "accuracy/zeroshot_test",
        }
        dashes = reversed(style.REFERENCE.values())
        for (label, key), dash in zip(levels.items(), dashes, strict=True):
            if key in numbers:
                axes[1].axhline(
                    100 * numbers[key], color="0.25", linestyle=dash, linewidth=1.0, label=label
                )
        axes[1].set_ylabel("accuracy [%]")
        axes[1].legend(loc="best")
        for each in axes:
            each.set_xlabel("step")
        return _svg(figure)


def _panels(name: str, count: int, right: float) -> tuple[Figure, list[Axes]]:
    # Margins of its own, for there is a figure for each run: laying one out takes longer than drawing it.
    figure = Figure(figsize=(PAGE.inches, _HEIGHT))
    figure.subplots_adjust(left=0.08, right=right, bottom=0.17, top=0.89, wspace=0.25)
    figure.suptitle(name if len(name) < 100 else f"{name[:99]}…")
    return figure, list(figure.subplots(1, count, squeeze=False)[0])


def _line(
    axes: Axes,
    curve: Curve,
    look: style.Look,
    *,
    label: str,
    unit: int = STEPS_PER_UNIT,
    thin: bool = False,
) -> None:
    steps = sorted(curve)
    axes.plot(
        [step / unit for step in steps],
        [100 * curve[step] for step in steps],
        **look.line(
            label=label,
            linewidth=0.8 if thin else 1.6,
            markersize=(2.2 if thin else 2.6) if len(steps) < 32 else 0,
        ),
    )


def _svg(figure: Figure) -> str:
    stream = io.StringIO()
    # Else the names of clipping paths are drawn by chance.
    with mpl.rc_context({"svg.hashsalt": "taskgrid"}):
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": "taskgrid"})
    return stream.getvalue()
