"""Section `evaluation`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StrictBool, StrictStr, field_validator
from pydantic.dataclasses import dataclass

from taskgrid.config.sections.values import MOST, SECTION, Number, Positive, Section, unique
from taskgrid.lattice.nodes import CurveSpec


def _batch(value: Any) -> Any:
    # Looked at before the union is, which would say one sentence per alternative.
    if value != "auto" and (type(value) is not int or not 1 <= value <= MOST):
        raise ValueError("write a whole number of 1 or more, or auto")
    return value


Batch = Annotated[Positive | Literal["auto"], BeforeValidator(_batch)]


@dataclass(frozen=True, config=SECTION)
class CurvesSpec(CurveSpec):
    """Interpolated sweeps over lambda: docs/studies/interpolation.md."""

    interpolate: StrictBool = False
    """Evaluate few coefficients and interpolate the others, with a bound."""


class ProofSpec(Section):
    """What a reduced precision must show before anything is evaluated in it: docs/precision.md."""

    images: Positive = 512
    """Validation images per task, at most, that pass in both precisions."""
    tolerance: Annotated[Number, Field(ge=0, lt=1)] = 0.01
    """Largest difference of an accuracy from fp32, beside what chance explains."""


class EvaluationSpec(Section):
    """How grid points are evaluated."""

    batch_size: Batch = "auto"
    """Images per forward pass; halved when memory runs out. `auto` is 128 on a CPU; on a GPU it takes what
    fits into the free memory."""
    compile: StrictBool = False
    """Whole batches pass through `torch.compile` (CUDA graphs on a GPU). Does not pay on a CPU, see
    docs/performance.md; tangent models never do."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """`bf16` runs the encoder under autocast, on any device, once it is proven against fp32: see
    `docs/precision.md`."""
    proof: ProofSpec = Field(default_factory=ProofSpec)
    """What is asked of `bf16`."""
    posthoc: StrictStr | None = None
    """A mode (or the name of ready-made experts) whose experts are also evaluated as tangent models; in
    paths and tables such a run has the mode `posthoc`."""
    outside: StrictBool = False
    """Also evaluate a merge on the tasks outside its subset (test split)."""
    curves_on: list[Literal["val", "test"]] = Field(["val"], min_length=1)
    """Splits on which every lambda is evaluated. Selection is on `val` always; `test` beside it draws
    curves that were read from the test split."""
    curves: CurvesSpec = Field(default_factory=CurvesSpec)
    """Interpolation between coefficients."""

    @field_validator("curves_on")
    @classmethod
    def _val_is_needed(cls, value: list[str]) -> list[str]:
        if "val" not in value:
            raise ValueError("keep `val` in the list: lambda is selected on it")
        return unique(value)
