"""What the preparations of many subsets have in common: folds over tasks, factors per task.

A method says by its base class how a lattice of subsets may be walked (``merging.walks``): sums
(``Additive``) and other ``Fold`` methods make each subset from a smaller one, a ``Factored`` method does
its dear work once per task, and any other is run anew for every subset.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from taskgrid.merging.seam import MergeContext, Prepared
from taskgrid.plugins.options import Options


class Lifted:
    """A method with work that a task costs once, whatever subsets it is in.

    Where a point names coefficients it is done anew for the vector times its coefficient, unless the
    method ``weighs``: then ``lift`` sees the vector itself, and ``join`` asks the context.
    """

    weighs = False

    def lift(self, alone: MergeContext) -> Prepared:
        """Return what a subset needs of one task; the task vector itself where nothing is to be done.

        Args:
            alone: a context with a single vector.
        """
        (vector,) = alone.vectors.values()
        return dict(vector)


class Fold(Lifted, ABC):
    """A method whose preparation takes one task after the other into a total.

    prepare(a, b, c) = finish(step(step(begin(a), b), c)), each of them lifted. Being always folded in
    canonical order it need not be associative to the last bit: a walk takes the same steps.

    Attributes:
        lean: whether ``prepare`` does with less memory than one total. Such a method is not folded by a
            walk that has no room for totals.
    """

    lean = False

    @abstractmethod
    def begin(self, lifted: Prepared) -> Prepared:
        """Return the total of one task, with memory of its own."""

    @abstractmethod
    def step(self, total: Prepared, lifted: Prepared, *, reuse: bool) -> Prepared:
        """Return the total with one more task.

        Args:
            total: the total so far.
            lifted: the task to take in.
            reuse: whether ``total`` may be written over; else it stays as it is.
        """

    def finish(self, total: Prepared, tasks: Sequence[str], options: Options) -> Prepared:
        """Return the preparation that a total stands for; the total is not changed."""
        return total

    def prepare(self, context: MergeContext) -> Prepared:
        """Fold the tasks in canonical order."""
        first, *others = context.vectors
        total = self.begin(self.lift(context.alone(first)))
        for task in others:
            total = self.step(total, self.lift(context.alone(task)), reuse=True)
        return self.finish(total, context.tasks, context.options)


class Factored(Lifted, ABC):
    """A method that joins factors, one per task: prepare(S) = join of lift(t) for t in S."""

    @abstractmethod
    def join(self, factors: Mapping[str, Prepared], context: MergeContext) -> Prepared:
        """Return the preparation of a subset.

        Args:
            factors: task -> what ``lift`` returned, in canonical order; not to be changed.
            context: the subset's.
        """

    def prepare(self, context: MergeContext) -> Prepared:
        """Make the factors of all tasks and join them."""
        factors = {task: self.lift(context.alone(task)) for task in context.vectors}
        return self.join(factors, context)
