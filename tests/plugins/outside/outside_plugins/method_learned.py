"""One coefficient for all tasks: of a few, the one whose predictions are the surest on validation images."""

from __future__ import annotations

import numpy as np
import torch

from taskgrid.machine.meter import Tally
from taskgrid.merging.bases.additive import Line, add_direction, weighted_sum
from taskgrid.merging.learning import Learning, LearningProblem
from taskgrid.merging.seam import MergeContext, Prepared
from taskgrid.plugins.cards import MergerCard
from taskgrid.plugins.options import Option, Options

CARD = MergerCard(
    title="The surest coefficient",
    options={
        "count": Option(default=16, kind="integer", least=1, about="images of each task"),
        "images": Option(default="val", choices=("val", "test"), about="where they come from"),
    },
    coefficient="none",
    learned=True,
    scope="element",
)

TRIED = (0.0, 0.25, 0.5, 0.75, 1.0)


class Surest(Line):
    def prepare(self, context: MergeContext) -> Prepared:
        assert context.learned is not None
        terms = [(float(context.learned[task]), context.vectors[task]) for task in context.tasks]
        return weighted_sum(terms)

    def images_to_pass(self, problem: LearningProblem, options: Options) -> int:
        return int(len(TRIED) * len(problem.tasks) * options.count)

    def learn(
        self, problem: LearningProblem, options: Options, seed: int, tally: Tally
    ) -> Learning:
        direction = weighted_sum([(1.0, found.vector) for found in problem.tasks.values()])
        history = []
        for step, scale in enumerate(TRIED):
            state, loss = add_direction(problem.base, direction, scale), 0.0
            for task, found in problem.tasks.items():
                rows = np.arange(min(found.count, options.count))
                with torch.no_grad():
                    logs = problem.logits(state, task, rows).log_softmax(dim=-1)
                loss -= float((logs.exp() * logs).sum(dim=-1).mean())
                tally.advance(options.count)
            history.append((step, loss))
        best = TRIED[min(history, key=lambda one: one[1])[0]]
        chosen = torch.tensor(best, dtype=torch.float64)
        return Learning({task: chosen.clone() for task in problem.tasks}, tuple(history))


MERGER = Surest()
