"""Mean norm of the features that an expert gives images of its task."""

from __future__ import annotations

import torch

from taskgrid.plugins.cards import StatisticCard
from taskgrid.plugins.options import Option
from taskgrid.statistics.seam import IMAGES, StatisticContext
from taskgrid.store.weights import State

CARD = StatisticCard(
    title="Mean norm of features",
    options={
        "images": Option(default=32, kind="integer", least=0, about="of each task; 0 takes all"),
        "split": Option(
            default="train", choices=("train", "val", "test"), about="where they are from"
        ),
    },
    head=False,
)


class Norms:
    def compute(self, context: StatisticContext) -> State:
        total, count = torch.zeros((), dtype=torch.float64), 0
        for batch in context.batches():
            with torch.no_grad():
                total += context.encoder(batch.inputs).double().norm(dim=-1).sum().cpu()
            count += len(batch.labels)
        return {"norm": total / count, IMAGES: torch.tensor(count)}


STATISTIC = Norms()
