"""TIES: trim each task vector, elect a sign per weight, merge the entries that have it.

Yadav et al., "TIES-Merging: Resolving Interference When Merging Models" (NeurIPS 2023), section 3 and
algorithm 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

import torch

from taskgrid.merging.bases.additive import Line, given_weight
from taskgrid.merging.bases.algebra import Fold
from taskgrid.merging.bases.election import Combine, Voter, elect, thresholds
from taskgrid.merging.bases.votes import outcome, taken_in, votes
from taskgrid.merging.seam import MergeContext, Prepared
from taskgrid.plugins.cards import MergerCard, Scope
from taskgrid.plugins.options import Option, Options

CARD = MergerCard(
    title="TIES",
    paper="Yadav et al., TIES-Merging, NeurIPS 2023, section 3",
    options={
        "density": Option(
            default=0.2,
            above=0,
            most=1,
            about="share of each task vector's entries that trimming keeps",
            origin="the paper's k = 20 %",
        ),
        "trim": Option(
            default="global",
            choices=("global", "tensor"),
            about="whether that share is of the whole vector or of every tensor",
            origin="the paper; mergekit trims every tensor",
        ),
        "combine": Option(
            default="mean",
            choices=("mean", "sum", "max"),
            about="what becomes of the entries of the elected sign",
            origin="the paper; FusionBench sums",
        ),
        "zero_sign": Option(
            default="majority",
            choices=("majority", "positive"),
            about="the sign where the entries add up to exactly zero",
            origin="the paper's code; mergekit takes +",
        ),
        "weights": Option(
            default=None,
            kind="numbers",
            about="weight of each task, by name, in the election and in what is combined; null gives 1",
            origin="mergekit",
        ),
    },
)


class Ties(Fold, Line):
    """Adds the merged direction, times lambda.

    A subset takes four accumulators from a smaller one: what is trimmed depends on a task alone.
    """

    weighs = True
    lean = True

    def scope(self, options: Options) -> Scope:
        """Return what must be seen at once: global trimming and majorities need the whole model."""
        whole = options.trim == "global" or options.zero_sign == "majority"
        return "model" if whole else "tensor"

    def lift(self, alone: MergeContext) -> Prepared:
        """Return the vector, from which magnitude on its entries are kept, and what they count."""
        ((task, vector),) = alone.vectors.items()
        options = alone.options
        factor, counted = given_weight(options, task), torch.int16
        if options.weights is not None:
            counted = torch.float64
        least = thresholds(vector, options.density, options.trim)
        return (
            dict(vector)
            | {f"{_LEAST}/{name}": each for name, each in least.items()}
            | {f"{_FACTOR}/": torch.tensor(factor, dtype=torch.float64)}
            | {f"{_WEIGHT}/{options.combine}": torch.tensor(abs(factor), dtype=counted)}
        )

    def begin(self, lifted: Prepared) -> Prepared:
        """Return the votes of one task."""
        return {
            f"{what}/{name}": part for name, own in _votes(lifted) for what, part in own.items()
        }

    def step(self, total: Prepared, lifted: Prepared, *, reuse: bool) -> Prepared:
        """Take in the votes of one more, one tensor after the other."""
        found: Prepared = {}
        for name, own in _votes(lifted):
            before = {what: total[f"{what}/{name}"] for what in own}
            after = taken_in(before, own, reuse=reuse)
            found |= {f"{what}/{name}": part for what, part in after.items()}
        return found

    def finish(self, total: Prepared, tasks: Sequence[str], options: Options) -> Prepared:
        """Return the direction."""
        counted: dict[str, Prepared] = {}
        for key, part in total.items():
            what, _, name = key.partition("/")
            counted.setdefault(name, {})[what] = part
        return outcome(counted.items(), options.combine, options.zero_sign)

    def prepare(self, context: MergeContext) -> Prepared:
        """Return the direction, with the accumulators of one tensor at a time.

        A point's coefficients count in the election, not in a mean.
        """
        options, voters = context.options, []
        for task, vector in context.vectors.items():
            weight = given_weight(options, task)
            least = thresholds(vector, options.density, options.trim)
            voters.append(Voter(vector, least, weight * context.coefficient(task), abs(weight)))
        return elect(voters, options.combine, options.zero_sign)


_LEAST, _FACTOR, _WEIGHT = "least", "factor", "weight"


def _votes(lifted: Prepared) -> Iterator[tuple[str, Prepared]]:
    """Yield the votes of a task, tensor by tensor."""
    parts: dict[str, Prepared] = {_LEAST: {}, _FACTOR: {}, _WEIGHT: {}}
    for key, part in lifted.items():
        what, slash, name = key.partition("/")
        if slash and what in parts:
            parts[what][name] = part
    ((combine, weight),) = parts[_WEIGHT].items()
    voter = Voter(lifted, parts[_LEAST], float(parts[_FACTOR][""]))
    for name in parts[_LEAST]:
        yield name, votes(voter.kept(name), weight, cast(Combine, combine))


MERGER = Ties()
