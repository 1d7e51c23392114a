"""Search: a coefficient for each task, found on labelled validation images.

    theta(c) = theta_0 + lambda * sum_t c_t tau_t,    0 <= c_t <= most

Of networks, c maximises the mean over tasks of validation accuracy, as far as a number of trials finds it:
Akiba et al., "Optuna" (KDD 2019). Of tangent models, whose features are affine in c, it is the global
minimum of a convex function; see ``affine_search``.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from typing import Any

import torch

from taskgrid.errors import ConfigError
from taskgrid.machine.meter import Tally
from taskgrid.merging.bases.additive import Line, learned_sum
from taskgrid.merging.bases.affine_search import solved
from taskgrid.merging.bases.passes import mean_accuracy
from taskgrid.merging.learning import Learning, LearningProblem
from taskgrid.merging.seam import MergeContext, Prepared
from taskgrid.plugins.cards import MergerCard
from taskgrid.plugins.options import Option, Options
from taskgrid.provenance.digests import derive_seed

CARD = MergerCard(
    title="Search",
    paper="Akiba et al., Optuna, KDD 2019",
    options={
        "sampler": Option(
            default="tpe",
            choices=("tpe", "cmaes"),
            about="what proposes coefficients: a tree of Parzen estimators, or CMA-ES",
            origin="Optuna",
        ),
        "trials": Option(
            default=100,
            kind="integer",
            least=1,
            about="merges that are measured on all validation images",
        ),
        "seed": Option(
            default=0,
            kind="integer",
            least=0,
            about="what proposals are drawn from, with the run's seed",
        ),
        "init": Option(
            default=0.3,
            least=0,
            about="the first trial: every coefficient, or `most` where that is less",
            origin="task arithmetic",
        ),
        "most": Option(default=1.0, above=0, about="coefficients lie between 0 and this"),
        "batch_size": Option(default=128, kind="integer", least=1, about="images of a pass"),
    },
    learned=True,
    labels=True,
    scope="element",
)


class Search(Line):
    """Adds the task vectors, times what was found and times lambda."""

    weighs = True

    def prepare(self, context: MergeContext) -> Prepared:
        """Return sum_t c_t tau_t in float64."""
        return learned_sum(context)

    def images_to_pass(self, problem: LearningProblem, options: Options) -> int:
        """Return the images of all tasks, once for each trial; of tangent models, for each direction."""
        images = sum(found.count for found in problem.tasks.values())
        return int(images * (len(problem.tasks) + 1 if problem.tangent else options.trials))

    def learn(
        self, problem: LearningProblem, options: Options, seed: int, tally: Tally
    ) -> Learning:
        """Return the best coefficients; losses are the errors of what was tried, or the convex function's."""
        if problem.tangent:
            return solved(problem, options.most, options.batch_size, tally)
        tried: list[tuple[Fraction, dict[str, float]]] = []
        study, ranges = _study(
            list(problem.tasks), options, derive_seed("search", seed, options.seed)
        )
        for _ in range(options.trials):
            trial = study.ask(ranges)
            tried.append(
                (mean_accuracy(problem, trial.params, tally, options.batch_size), trial.params)
            )
            study.tell(trial, float(tried[-1][0]))
        # Of equally good ones the first: the others know no better.
        _, best = max(tried, key=lambda one: one[0])
        found = {task: torch.tensor(best[task], dtype=torch.float64) for task in problem.tasks}
        return Learning(found, tuple((step, float(1 - one)) for step, (one, _) in enumerate(tried)))


MERGER = Search()


def _study(tasks: Iterable[str], options: Options, seed: int) -> tuple[Any, dict[str, Any]]:
    """Return a study that knows its first trial, and where coefficients lie."""
    optuna = _optuna(options.sampler)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    first = dict.fromkeys(tasks, min(options.init, options.most))
    # Its seeds have 32 bits.
    seed %= 2**32
    if options.sampler == "tpe":
        sampler = optuna.samplers.TPESampler(seed=seed)
    else:
        # It does not know one dimension, and draws there; that needs no warning.
        sampler = optuna.samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.enqueue_trial(first)
    return study, {
        task: optuna.distributions.FloatDistribution(0.0, options.most) for task in first
    }


def _optuna(sampler: str) -> Any:
    try:
        import optuna

        if sampler == "cmaes":
            import cmaes  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"merge method 'search' needs the package {error.name}, which is not installed here; install "
            "it with `pip install optuna cmaes`"
        ) from None
    return optuna
