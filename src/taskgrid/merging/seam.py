"""The merger seam: a lambda-free *prepare*, then a cheap *apply* for every lambda.

A method is one module with a ``MERGER`` and one line in ``taskgrid.plugins``. Nothing here assumes
that a merged model is affine in lambda, or that subsets have anything in common; a method that knows
better says so by what it inherits from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeAlias, cast

import torch

from taskgrid import plugins
from taskgrid.errors import ConfigError, LineageError
from taskgrid.lattice.subsets import canonical_subset
from taskgrid.plugins.options import Options as PluginOptions
from taskgrid.plugins.options import parse_options
from taskgrid.store.weights import State
from taskgrid.vectors import subtract

Prepared: TypeAlias = dict[str, torch.Tensor]
"""What *prepare* found out: named tensors, free of lambda, that can be stored as an artefact."""


@dataclass(frozen=True)
class MergeContext:
    """What *prepare* may look at.

    Attributes:
        base: theta_0; also tensors that are not floating, which methods leave alone.
        vectors: task -> float32 task vector over the floating tensors, in canonical order.
        options: the method's options.
        seed: for methods that draw; derive from it with ``provenance.derive_seed``.
        statistics: name -> statistic, for the names in the method's ``needs``.
    """

    base: Mapping[str, torch.Tensor]
    vectors: Mapping[str, State]
    options: PluginOptions = field(default_factory=PluginOptions)
    seed: int = 0
    statistics: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # One order for all: a merge does not depend on how the caller listed the tasks.
        ordered = {task: self.vectors[task] for task in canonical_subset(self.vectors)}
        object.__setattr__(self, "vectors", ordered)

    def alone(self, task: str) -> MergeContext:
        """Return the context of one of the tasks."""
        return replace(self, vectors={task: self.vectors[task]})

    def statistic(self, name: str) -> Any:
        """Return a statistic.

        Raises:
            LineageError: if it was not provided: the method does not declare it in ``needs``.
        """
        if name not in self.statistics:
            raise LineageError(
                f"statistic {name!r} was not computed; the merge method must declare it in `needs`"
            )
        return self.statistics[name]


class Merger(Protocol):
    """A merge method.

    Attributes:
        name: name in configurations and tables.
        Options: the model of its options, with defaults.
        needs: names of the statistics that ``prepare`` reads.

    A method may also say its ``scope``, what it must see at once (``windows.Scope``): merging from
    files takes tensors one by one, and a method that says nothing is not merged that way.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def Options(self) -> type[PluginOptions]: ...  # noqa: D102
    @property
    def needs(self) -> frozenset[str]: ...  # noqa: D102

    def prepare(self, context: MergeContext) -> Prepared:
        """Do all the work that lambda has no part in."""
        ...

    def apply(
        self,
        base: Mapping[str, torch.Tensor],
        prepared: Prepared,
        scale: float,
        options: PluginOptions,
        out: State | None = None,
    ) -> State:
        """Return the merged model at lambda = ``scale``, with the keys, shapes and dtypes of ``base``.

        Values are computed in float64 and rounded once.

        Args:
            base: theta_0.
            prepared: what ``prepare`` returned, on the device of ``base``.
            scale: lambda.
            options: the options given to ``prepare``.
            out: tensors to write into, e.g. those of a resident encoder; returned when given.
        """
        ...


@dataclass(frozen=True)
class MergeRecipe:
    """How task vectors are merged.

    Attributes:
        merger: the method.
        options: its options.
        seed: what its random draws come from.
    """

    merger: Merger
    options: PluginOptions
    seed: int = 0

    @classmethod
    def of(cls, method: str, options: Mapping[str, Any], seed: int = 0) -> MergeRecipe:
        """Return the recipe of a method by name.

        Raises:
            ConfigError: if there is no such method, or it has no such option.
        """
        merger = get_merger(method)
        return cls(merger, parse_options(f"merge method {method!r}", merger.Options, options), seed)

    def context(
        self, base: Mapping[str, torch.Tensor], vectors: Mapping[str, State]
    ) -> MergeContext:
        """Return what ``merger.prepare`` is to look at."""
        return MergeContext(base, vectors, self.options, self.seed)

    def prepare(self, base: Mapping[str, torch.Tensor], vectors: Mapping[str, State]) -> Prepared:
        """Prepare the merge of some task vectors."""
        return self.merger.prepare(self.context(base, vectors))


def methods() -> tuple[str, ...]:
    """Return the names of all merge methods, sorted."""
    return tuple(sorted(plugins.names("merger")))


def get_merger(name: str) -> Merger:
    """Return a merge method by name.

    Raises:
        ConfigError: if there is none of that name; the text lists those that exist.
    """
    return cast(Merger, plugins.load("merger", name).MERGER)


def merge(
    method: str,
    base: Mapping[str, torch.Tensor],
    experts: Mapping[str, Mapping[str, torch.Tensor]],
    scale: float = 0.3,
    *,
    seed: int = 0,
    **options: Any,
) -> State:
    """Merge experts into one model.

    Args:
        method: name of a merge method; see ``methods()``.
        base: theta_0, the state all experts started from.
        experts: task -> theta_t, with the keys, shapes and dtypes of ``base``. Their order does not
            matter.
        scale: the scaling coefficient lambda.
        seed: for methods that draw.
        **options: the method's own options.

    Returns:
        A state with the keys, shapes and dtypes of ``base``; no memory is shared with the inputs.

    Raises:
        ConfigError: if the method or an option is unknown, a value does not fit, no expert is
            given, or the method needs statistics of data.
        LineageError: if an expert does not fit the base; names the key and both values.
    """
    recipe = MergeRecipe.of(method, options, seed)
    if not experts:
        raise ConfigError("merge needs at least one expert; for the base alone, use the base")
    if recipe.merger.needs:
        raise ConfigError(
            f"merge method {method!r} needs statistics of data ({', '.join(sorted(recipe.merger.needs))}); "
            "use it through the workflow, or call its prepare with a MergeContext that has them"
        )
    vectors = {task: subtract(base, expert, task) for task, expert in experts.items()}
    prepared = recipe.prepare(base, vectors)
    return recipe.merger.apply(base, prepared, scale, recipe.options)
