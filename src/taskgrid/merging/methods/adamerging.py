"""AdaMerging: coefficients that make the merged model sure of images without labels.

    theta(c) = theta_0 + lambda * sum_t c_t tau_t,
    c = argmin at lambda = 1 of sum_t mean_x H(softmax(h_t(f(x; theta(c)))))

H is the entropy of what head h_t says of an image x of task t; there is one c_t for the model, or one for
every tensor of it. AdaMerging++ takes the entries of tau_t that TIES elects. Yang et al., "AdaMerging:
Adaptive Model Merging for Multi-Task Learning" (ICLR 2024), section 3.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch.nn import functional

from taskgrid.machine.meter import Tally
from taskgrid.merging.bases.additive import Line, learned_sum
from taskgrid.merging.bases.descent import Rows, batches, begun, descend
from taskgrid.merging.bases.election import Voter, agreeing, thresholds
from taskgrid.merging.learning import Learning, LearningProblem
from taskgrid.merging.seam import MergeContext, Prepared
from taskgrid.plugins.cards import MergerCard, Scope
from taskgrid.plugins.options import Option, Options
from taskgrid.provenance.digests import derive_seed

CARD = MergerCard(
    title="AdaMerging",
    paper="Yang et al., AdaMerging, ICLR 2024, section 3.2",
    options={
        "level": Option(
            default="layer",
            choices=("layer", "task"),
            about="one coefficient for each task and tensor, or for each task",
            origin="the paper's layer-wise AdaMerging",
        ),
        "trim": Option(
            default="none",
            choices=("none", "ties"),
            about="`ties` takes the entries that TIES trims to and elects: AdaMerging++",
        ),
        "density": Option(
            default=0.2,
            above=0,
            most=1,
            about="with `trim: ties`, share of each task vector's entries that trimming keeps",
            origin="the paper's code, as TIES",
        ),
        "steps": Option(
            default=500,
            kind="integer",
            least=0,
            about="steps of Adam; each passes a batch of every task",
            origin="the paper's code; FusionBench takes 1,000",
        ),
        "lr": Option(default=1e-3, above=0, about="learning rate of Adam", origin="the paper"),
        "init": Option(default=0.3, about="where every coefficient begins", origin="the paper"),
        "batch_size": Option(
            default=16,
            kind="integer",
            least=1,
            about="images of each task in a step",
            origin="the paper",
        ),
        "images": Option(
            default="test",
            choices=("test", "val", "train"),
            about="whose images are looked at, never their labels; `test` makes the rows transductive",
            origin="the paper",
        ),
        "clamp": Option(
            default=True,
            about="keep coefficients between 0 and 1",
            origin="the paper's code; FusionBench does not",
        ),
    },
    learned=True,
)


class AdaMerging(Line):
    """Adds the task vectors, times what was learned and times lambda."""

    weighs = True

    def scope(self, options: Options) -> Scope:
        """Return what must be seen at once: TIES trims the whole vector."""
        return "model" if options.trim == "ties" else "element"

    def prepare(self, context: MergeContext) -> Prepared:
        """Return sum_t c_t tau_t in float64; a point's coefficients count after the election."""
        return learned_sum(replace(context, vectors=_used(context.vectors, context.options)))

    def images_to_pass(self, problem: LearningProblem, options: Options) -> int:
        """Return steps times tasks times images of a batch."""
        return int(options.steps * options.batch_size * len(problem.tasks))

    def learn(
        self, problem: LearningProblem, options: Options, seed: int, tally: Tally
    ) -> Learning:
        """Minimise the entropy with Adam."""
        vectors = _used({t: found.vector for t, found in problem.tasks.items()}, options)
        tasks = {t: replace(found, vector=vectors[t]) for t, found in problem.tasks.items()}
        problem = replace(problem, tasks=tasks)
        free = begun(problem, options.init, per_tensor=options.level == "layer")

        def allowed() -> dict[str, torch.Tensor]:
            return {task: one.clamp(0, 1) if options.clamp else one for task, one in free.items()}

        drawn = {
            task: batches(
                np.arange(found.count),
                options.batch_size,
                derive_seed("adamerging", seed, task),
            )
            for task, found in tasks.items()
        }
        optimiser = torch.optim.Adam(free.values(), lr=options.lr)
        history = descend(problem, optimiser, allowed, entropy, drawn, options.steps, tally)
        return Learning({t: one.detach().cpu() for t, one in allowed().items()}, history)


MERGER = AdaMerging()


def entropy(task: str, logits: torch.Tensor, rows: Rows) -> torch.Tensor:
    """Return the mean over images of the entropy, in nats, of predictions ``(B, C)``."""
    logs = functional.log_softmax(logits, dim=-1)
    return -(logs.exp() * logs).sum(dim=-1).mean()


def _used(
    vectors: Mapping[str, Mapping[str, torch.Tensor]], options: Options
) -> Mapping[str, Mapping[str, torch.Tensor]]:
    if options.trim == "none":
        return vectors
    voters = [
        Voter(vector, thresholds(vector, options.density, "global")) for vector in vectors.values()
    ]
    return dict(zip(vectors, agreeing(voters), strict=True))
