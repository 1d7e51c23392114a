"""Which call of a peer means the same as which of taskgrid's, and where they differ, why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Peer = Literal["fusion_bench", "mergekit"]


@dataclass(frozen=True)
class Case:
    """Two calls.

    Attributes:
        method: taskgrid's method.
        options: its options.
        peer: the other program.
        call: what is called there: a class of ``fusion_bench.method``, a formula, a method of mergekit.
        given: its arguments.
        scale: lambda of taskgrid's merge.
        tasks: how many of the experts are merged; None takes all.
        compare: all weights; only the entries that both keep; or the sums of magnitudes of every tensor,
            which is what is left to compare of random draws.
        cuts: shares of a tensor's entries, from the largest on, after each of which there is a cut. Of
            entries of the same magnitude there mergekit keeps those that its sorting happens to put
            first: they are left out.
        double: whether the peer is given float64, where its float32 would be all that is compared.
        why: towers -> why they differ there; on others all is to be equal.
    """

    method: str
    options: Mapping[str, Any]
    peer: Peer
    call: str
    given: Mapping[str, Any]
    scale: float = 0.3
    tasks: int | None = None
    compare: Literal["weights", "kept", "sums"] = "weights"
    cuts: tuple[float, ...] = ()
    double: bool = False
    why: Mapping[str, str] = field(default_factory=dict)


def _fusion_bench(
    method: str, call: str, given: Mapping[str, Any], scale: float = 0.3, **more: Any
) -> Case:
    options, rest = more.pop("options", {}), more
    return Case(method, options, "fusion_bench", call, given, scale, **rest)


def _mergekit(
    method: str, call: str, given: Mapping[str, Any], scale: float = 1.0, **more: Any
) -> Case:
    options, rest = more.pop("options", {}), more
    return Case(method, options, "mergekit", call, given, scale, **rest)


_FROZEN = {"awkward": "mergekit raises where a tensor is frozen in all experts"}
_NO_NORM = {
    "awkward": "FusionBench divides by the norm of a matrix that a task left alone: no numbers"
}
_SMALL = {
    "trained": "mergekit takes products of lengths below 1e-6 for 1e-6, which rows of trained experts have"
}

CASES: tuple[Case, ...] = (
    _fusion_bench(
        "task_arithmetic",
        "task_arithmetic.TaskArithmeticAlgorithm",
        {"scaling_factor": 0.3},
    ),
    _mergekit(
        "task_arithmetic",
        "task_arithmetic",
        {"lambda": 0.3, "each": {"weight": 1.0}},
        0.3,
    ),
    _mergekit(
        "task_arithmetic",
        "task_arithmetic",
        {"lambda": 0.3, "normalize": True, "each": {"weight": 1.0}},
        0.3,
        options={"normalize": True},
    ),
    _fusion_bench("average", "SimpleAverageAlgorithm", {}, 1.0),
    _mergekit("average", "linear", {"base": None, "each": {"weight": 1.0}}),
    *(
        _fusion_bench(
            "ties",
            "ties_merging.TiesMergingAlgorithm",
            {"scaling_factor": 0.3, "threshold": 20, "remove_keys": [], "merge_func": combine},
            options={"combine": combine},
        )
        for combine in ("mean", "sum", "max")
    ),
    *(
        _mergekit(
            "ties",
            "ties",
            {"lambda": 0.3, "normalize": normalize, "each": {"weight": 1.0, "density": 0.2}},
            0.3,
            options={"trim": "tensor", "zero_sign": "positive", "combine": combine},
            cuts=(0.2,),
        )
        for normalize, combine in ((True, "mean"), (False, "sum"))
    ),
    _fusion_bench(
        "dare",
        "dare.DareTaskArithmetic",
        {"scaling_factor": 1.0, "sparsity_ratio": 0.9, "only_on_linear_weights": False},
        1.0,
        tasks=1,
        compare="kept",
    ),
    _fusion_bench(
        "dare",
        "dare.DareTaskArithmetic",
        {"scaling_factor": 0.3, "sparsity_ratio": 0.0, "only_on_linear_weights": False},
        options={"drop": 0.0},
    ),
    _mergekit(
        "dare",
        "dare_linear",
        {"rescale": False, "each": {"weight": 1.0, "density": 0.1}},
        tasks=1,
        compare="kept",
        options={"rescale": "none"},
    ),
    _mergekit(
        "dare",
        "dare_linear",
        {"rescale": True, "each": {"weight": 1.0, "density": 0.1}},
        tasks=1,
        compare="sums",
        options={"rescale": "l1"},
    ),
    _mergekit(
        "della",
        "della_linear",
        {"rescale": False, "each": {"weight": 1.0, "density": 0.3, "epsilon": 0.15}},
        tasks=1,
        compare="kept",
        options={"rescale": "none"},
    ),
    _mergekit(
        "della",
        "della_linear",
        {"rescale": True, "each": {"weight": 1.0, "density": 0.3, "epsilon": 0.15}},
        tasks=1,
        compare="sums",
        options={"rescale": "l1"},
    ),
    *(
        _mergekit(
            "breadcrumbs",
            "breadcrumbs",
            {"each": {"weight": 1.0, "density": keep, "gamma": remove}},
            options={"scope": "tensor", "keep": keep, "remove": remove},
            cuts=(remove, keep),
        )
        for keep, remove in ((0.2, 0.1), (0.85, 0.01), (0.5, 0.0))
    ),
    _fusion_bench("magmax", "magmax.MagMaxAlgorithm", {"scaling_factor": 0.5}, 0.5),
    _fusion_bench(
        "emr",
        "emr_merging.EMRMerging",
        {},
        1.0,
        options={"rescale": "means", "zero_sign": "negative"},
    ),
    *(
        _fusion_bench("model_stock", "model_stock.ModelStock", {}, 1.0, tasks=count)
        for count in (2, None)
    ),
    *(
        _mergekit(
            "model_stock",
            "model_stock",
            {"filter_wise": rows},
            options={"mean_of": "cosines", "rows": rows},
            why=_SMALL if rows else {},
        )
        for rows in (False, True)
    ),
    _mergekit(
        "slerp", "slerp", {"t": 0.3, "base": "first"}, tasks=2, options={"on": "weights", "t": 0.3}
    ),
    _fusion_bench(
        "slerp",
        "slerp.SlerpMergeAlgorithm",
        {"t": 0.3},
        1.0,
        tasks=2,
        options={"on": "weights", "t": 0.3},
    ),
    _mergekit("slerp", "nuslerp", {"each": {"weight": 1.0}}, tasks=2),
    _mergekit("multi_slerp", "multislerp", {"each": {"weight": 1.0}}, why=_FROZEN),
    _mergekit(
        "multi_slerp",
        "multislerp",
        {"base": None, "each": {"weight": 1.0}},
        options={"on": "weights"},
    ),
    _mergekit("karcher", "karcher", {"base": None}, options={"on": "weights"}),
    _fusion_bench("tsv_m", "task_singular_vector.TaskSingularVectorMerging", {"alpha": 1.0}, 1.0),
    _fusion_bench(
        "iso_c",
        "isotropic_merging.IsotropicMergingInCommonSubspace",
        {"scaling_factor": 1.0},
        1.0,
    ),
    _fusion_bench(
        "iso_cts",
        "isotropic_merging.IsotropicMergingInCommonAndTaskSubspace",
        {"scaling_factor": 1.0, "common_space_fraction": 0.8},
        1.0,
        double=True,
    ),
    *(
        _fusion_bench(
            "svc",
            "singular_value_calibration.SingularValueCalibrationArithmeticTask",
            {"scaling_factor": 0.3, "alpha": alpha},
            options={"alpha": alpha},
        )
        for alpha in (1.0, 0.1)
    ),
    _fusion_bench(
        "wudi",
        "wudi.WUDIMerging",
        {"iter_num": 300},
        1.0,
        options={"tensors": "matrices"},
        why=_NO_NORM,
    ),
    _fusion_bench("tall_mask", "tall_mask", {"mask_lambda": 0.4}, 1.0),
    _fusion_bench(
        "fisher",
        "fisher",
        {"normalize_fisher_weight": False},
        1.0,
        options={"normalize": False},
    ),
    _fusion_bench(
        "fisher",
        "fisher",
        {"normalize_fisher_weight": True},
        1.0,
        options={"normalize": True},
    ),
    _fusion_bench(
        "regmean",
        "regmean",
        {"reduce_non_diagonal_ratio": 0.95},
        1.0,
        double=True,
        options={"layers": "blocks"},
    ),
)
