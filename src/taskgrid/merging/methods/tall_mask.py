"""TALL masks: each task gets those entries of the merged vector that matter to it.

Wang et al., "Localizing Task Information for Improved Model Merging and Compression" (ICML 2024),
equation 4: m_t = 1[|tau_t| > lambda_t |tau_MTL - tau_t|], theta_t = theta_0 + m_t * tau_MTL.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from taskgrid.merging.bases.additive import add_direction
from taskgrid.merging.bases.inner import merged_vector, scope_of
from taskgrid.merging.bases.masks import masked_direction, matters, pack
from taskgrid.merging.bases.thresholds import LearnedThresholds, threshold
from taskgrid.merging.seam import MergeContext, Prepared
from taskgrid.plugins.cards import MergerCard, Scope
from taskgrid.plugins.options import Option, Options
from taskgrid.plugins.storage import Storage
from taskgrid.store.weights import State

CARD = MergerCard(
    title="TALL masks",
    paper="Wang et al., Localizing Task Information, ICML 2024, equation 4",
    options={
        "mask_lambda": Option(
            default=0.4,
            least=0,
            words=("auto",),
            about="how much larger than its distance to the merged entry a task's own entry must be; `auto` "
            "chooses per task on validation, of 0.2 ... 0.6",
            origin="the middle of what the paper chooses from",
        ),
        "of": Option(
            default="sum",
            choices=("sum", "ties"),
            about="what is masked: the sum of the task vectors, or their merge by TIES",
            origin="the paper shows both",
        ),
        "density": Option(
            default=0.2,
            above=0,
            most=1,
            about="with `ties`: share that trimming keeps",
            origin="TIES",
        ),
        "combine": Option(
            default="sum",
            choices=("sum", "mean", "max"),
            about="with `ties`: what becomes of the entries of the elected sign",
            origin="the paper's code",
        ),
    },
    gives="per_task",
    coefficient="none",
    learned_if={"mask_lambda": "auto"},
    labels=True,
    storage=Storage(shared=32, task=1),
)


class TallMask(LearnedThresholds):
    """Keeps the merged vector once, and a bit per weight and task."""

    weighs = False

    def scope(self, options: Options) -> Scope:
        """Return what must be seen at once."""
        return scope_of(options)

    def prepare(self, context: MergeContext) -> Prepared:
        """Return the merged vector, float64, and the packed masks of all tasks."""
        merged = merged_vector(context)
        prepared = {f"merged/{name}": tensor for name, tensor in merged.items()}
        for task, vector in context.vectors.items():
            for name, tensor in vector.items():
                mask = matters(tensor, merged[name], threshold(context, task, name))
                prepared[f"mask/{task}/{name}"] = pack(mask)
        return prepared

    def apply_task(
        self,
        base: Mapping[str, torch.Tensor],
        prepared: Prepared,
        task: str,
        scale: float,
        options: Options,
        out: State | None = None,
    ) -> State:
        """Return theta_0 + m_t * tau_MTL; there is no lambda."""
        return add_direction(base, masked_direction(prepared, "merged", task, base), 1.0, out)


MERGER = TallMask()
