"""ZipIt!: channels that see the same, across experts and within each, become one.

    W = sum_t M_t W_t U_t,    (M_1 ... M_T) averages groups of channels, U_t gives each of theirs its group's

Stoica et al., "ZipIt! Merging Models from Different Tasks without Training" (ICLR 2024), section 4. Groups
are found greedily in the correlations of what all experts make of the same images. A transformer is zipped
where that is exact: hidden units behind the activation, and values inside paired heads. Queries and keys are
renamed, for an average of two would change their products, and so is the residual stream if asked to; zipped
it is an approximation, because a LayerNorm stands before all that reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from taskgrid.alignment.maps import Axes
from taskgrid.alignment.spaces import RES, Pair, Spaces, attention_spaces, mlp_space, vit_spaces
from taskgrid.alignment.taps import Moments, listening, space_of, stream_tap
from taskgrid.alignment.zipping import apart, renamed, together, zip_attention, zip_space
from taskgrid.errors import ConfigError, LineageError, TrainingError
from taskgrid.lattice.subsets import subset_name
from taskgrid.machine.meter import Tally
from taskgrid.merging.bases.additive import add_direction, weighted_sum
from taskgrid.merging.learning import Learning, LearningProblem
from taskgrid.merging.seam import MergeContext, Prepared, learned_names
from taskgrid.models.layout import layer_of, layers
from taskgrid.plugins.cards import MergerCard
from taskgrid.plugins.options import Option, Options
from taskgrid.plugins.storage import Storage
from taskgrid.provenance.digests import derive_seed
from taskgrid.store.weights import State

CARD = MergerCard(
    title="ZipIt!",
    paper="Stoica et al., ZipIt!, ICLR 2024, section 4",
    options={
        "layers": Option(
            default="all",
            kind="integer",
            least=0,
            words=("all",),
            about="how many blocks are zipped, from the pixels on; behind them each task keeps its own, and "
            "with `all` there is nothing behind",
            origin="the paper's full zip",
        ),
        "res": Option(
            default="identity",
            choices=("identity", "permutation", "zip"),
            about="what becomes of the channels of the residual stream: they keep their names, as of experts "
            "of one base; are renamed to those of the first expert; or are zipped, which is not exact",
        ),
        "alpha": Option(
            default=0.3,
            least=0,
            most=1,
            about="what a merged group is worth beside one that is not",
            origin="the paper's code",
        ),
        "beta": Option(
            default=0.125,
            least=0,
            most=1,
            about="share of half an expert's channels that may be merged among themselves; 0 merges across "
            "experts only",
            origin="the paper's code",
        ),
        "images": Option(
            default="train",
            choices=("train", "val", "test"),
            about="whose images are looked at, never their labels; `test` makes the rows transductive",
            origin="the paper",
        ),
        "count": Option(
            default=256,
            kind="integer",
            least=1,
            about="images of each task, drawn from the run's seed; all where there are fewer",
        ),
        "batch_size": Option(default=32, kind="integer", least=1, about="images of a pass"),
        "at_once": Option(
            default=1,
            kind="integer",
            least=1,
            about="blocks whose correlations are held at once; images pass again for the next ones",
        ),
    },
    gives="per_task",
    coefficient="none",
    learned=True,
    storage=Storage(task=32, single_if={"layers": "all"}),
)


class ZipIt:
    """Merges what is in front, and keeps for each task what is behind."""

    weighs = False

    def prepare(self, context: MergeContext) -> Prepared:
        """Return what is added to theta_0: once for the front, for each task behind it.

        A space of which nothing was learned keeps its channels, so that experts are averaged there.
        """
        front, groups = _front(context.base, context.options), _groups(context)
        stream = {space: found for space, found in groups.items() if space == RES}
        names, prepared = learned_names(context.base), dict[str, torch.Tensor]()
        for layer in layers(names):
            inside = [name for name in names if layer_of(name) == layer]
            if layer in front:
                moved = _moved(context, inside, groups, together)
                mean = weighted_sum([(1 / len(moved), one) for one in moved.values()])
                prepared |= {f"front/{name}": tensor for name, tensor in mean.items()}
            else:
                for task, one in _moved(context, inside, stream, apart).items():
                    prepared |= {f"tail/{task}/{name}": tensor for name, tensor in one.items()}
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
        """Return the zip, and behind it the task's own blocks; there is no lambda."""
        direction = {
            name: prepared[place]
            for name in base
            for place in (f"front/{name}", f"tail/{task}/{name}")
            if place in prepared
        }
        return add_direction(base, direction, 1.0, out)

    def images_to_pass(self, problem: LearningProblem, options: Options) -> int:
        """Return the images of all tasks, for each expert as often as they pass."""
        images = sum(min(found.count, options.count) for found in problem.tasks.values())
        return int(images * len(problem.tasks) * len(_passes(problem.base, options)))

    def learn(
        self, problem: LearningProblem, options: Options, seed: int, tally: Tally
    ) -> Learning:
        """Return the group of every channel, ``groups/SPACE/TASK``, int64.

        Raises:
            ConfigError: if the network is a tangent model, or has fewer blocks than are to be zipped.
            LineageError: if it is no vision transformer of open_clip.
            TrainingError: if what an expert makes of images is not finite.
        """
        if problem.tower is None:
            raise ConfigError(
                "merge method 'zipit' pairs what layers of the experts hand on, and a tangent model has no "
                "layers of its own; use 'average'"
            )
        tower: Any = problem.tower
        spaces, alpha, beta = _spaces(problem.base), options.alpha, options.beta
        spaces = replace(spaces, heads=tower.transformer.resblocks[0].attn.num_heads)
        look = _looking(problem, options, seed, tally)
        stream: list[Moments] = []
        groups: dict[str, torch.Tensor] = {}
        for blocks in _passes(problem.base, options):
            seen = look(blocks)
            for block in blocks:
                hidden = mlp_space(block)
                groups |= zip_attention(spaces, block, seen, alpha, beta)
                groups[hidden] = zip_space([seen[hidden]], spaces.sizes[hidden], alpha, beta)
            stream += [one for tap, one in seen.items() if space_of(tap) == RES]
        if stream and options.res == "zip":
            groups[RES] = zip_space(stream, spaces.sizes[RES], alpha, beta)
        elif stream:
            groups[RES] = renamed(spaces, {RES: stream})[RES].argsort(dim=1)
        return Learning(
            {},
            tensors={
                f"groups/{space}/{task}": one.clone()
                for space, found in groups.items()
                for task, one in zip(problem.tasks, found, strict=True)
            },
        )


MERGER = ZipIt()


def _looking(
    problem: LearningProblem, options: Options, seed: int, tally: Tally
) -> Callable[[Sequence[int]], dict[str, Moments]]:
    """Return what shows all experts the same images, and listens in some blocks."""
    experts = [
        add_direction(problem.base, weighted_sum([(1.0, found.vector)]), 1.0)
        for found in problem.tasks.values()
    ]

    def look(blocks: Sequence[int]) -> dict[str, Moments]:
        """Return moments of the channels of all experts, one after another, with themselves, by tap."""
        found: dict[str, Moments] = {}
        taps = [tap for block in blocks for tap in (*attention_spaces(block), mlp_space(block))]
        taps += [stream_tap(block) for block in blocks if options.res != "identity"]
        heard: dict[str, list[torch.Tensor]] = {tap: [] for tap in taps}

        def hear(tap: str, seen: torch.Tensor) -> None:
            if tap in heard:
                heard[tap].append(seen)

        assert problem.tower is not None
        with torch.no_grad(), listening(problem.tower, hear):
            for images in _images(problem, options, seed):
                for expert in experts:
                    problem.features(expert, images)
                    tally.advance(len(images))
                for tap, each in heard.items():
                    joint = torch.cat(each, dim=-1)
                    each.clear()
                    if tap not in found:
                        found[tap] = Moments.between(joint, joint)
                    found[tap].add(joint, joint)
        for tap, one in found.items():
            if not torch.isfinite(one.products).all():
                raise TrainingError(
                    f"what the experts of {subset_name(problem.tasks)} make of images is not finite at "
                    f"{tap!r}; see whether one of them diverged"
                )
        return found

    return look


def _images(problem: LearningProblem, options: Options, seed: int) -> Iterator[torch.Tensor]:
    """Yield images of all tasks, as the network takes them; the same ones at every call."""
    for task, found in problem.tasks.items():
        drawing = np.random.default_rng(derive_seed("zipit", seed, task))
        rows = np.sort(drawing.permutation(found.count)[: options.count])
        for start in range(0, len(rows), options.batch_size):
            yield found.inputs(rows[start : start + options.batch_size])


def _spaces(base: Mapping[str, torch.Tensor]) -> Spaces:
    # How many heads there are matters to who pairs channels, not to who merges them.
    return vit_spaces({name: tuple(base[name].shape) for name in learned_names(base)}, heads=1)


def _front(base: Mapping[str, torch.Tensor], options: Options) -> tuple[str, ...]:
    """Return the layers that are zipped, from the pixels on.

    Raises:
        ConfigError: if there are fewer.
    """
    every = layers(learned_names(base))
    blocks = sum(layer.startswith(_BLOCK) for layer in every)
    wanted = blocks if options.layers == "all" else options.layers
    if wanted > blocks:
        raise ConfigError(
            f"option 'layers' of merge method 'zipit' is {wanted}, but the tower has {blocks} blocks; give "
            "no more, or `all`"
        )
    if wanted == blocks:
        return every
    # The embedding comes with the first block.
    return every[: 1 + wanted] if wanted else ()


_BLOCK = "block "


def _passes(base: Mapping[str, torch.Tensor], options: Options) -> list[range]:
    """Return the blocks that are zipped, those of a pass together."""
    depth = sum(layer.startswith(_BLOCK) for layer in _front(base, options))
    every = range(depth)
    return [every[at : at + options.at_once] for at in range(0, depth, options.at_once)]


def _groups(context: MergeContext) -> dict[str, torch.Tensor]:
    """Return what was learned: space -> groups ``(T, n)``, in the order of the tasks."""
    found: dict[str, dict[str, torch.Tensor]] = {}
    for name, one in (context.learned or {}).items():
        if name.startswith("groups/"):
            _, space, task = name.split("/", 2)
            found.setdefault(space, {})[task] = one.cpu()
    for each in found.values():
        if each.keys() != {*context.tasks}:
            raise LineageError(
                f"groups of channels were learned for {subset_name(each)}, and {subset_name(context.tasks)} "
                "is merged; learn them for these tasks"
            )
    return {
        space: torch.stack([each[task] for task in context.tasks]) for space, each in found.items()
    }


def _moved(
    context: MergeContext,
    names: Sequence[str],
    groups: Mapping[str, torch.Tensor],
    maps: Callable[[torch.Tensor], list[Pair]],
) -> dict[str, Mapping[str, torch.Tensor]]:
    """Return T_t(theta_t) - theta_0 for each task, and tau_t itself where there are no groups.

    Args:
        context: base and vectors.
        names: the tensors.
        groups: space -> ``(T, n)``.
        maps: makes of them what T_t does to a space, for each task.
    """
    found: dict[str, Mapping[str, torch.Tensor]] = {
        task: {name: vector[name] for name in names} for task, vector in context.vectors.items()
    }
    if not groups:
        return found
    spaces, base = _spaces(context.base), {name: context.base[name].double() for name in names}
    touched = {
        space for name in names for axis in spaces.axes[name] if axis for space in axis.spaces
    }
    pairs = {space: maps(one) for space, one in groups.items() if space in touched}
    for at, (task, vector) in enumerate(found.items()):
        axes = spaces.axes_by({space: each[at] for space, each in pairs.items()})
        carry = Axes({name: axes[name] for name in names})
        expert = carry({name: base[name] + vector[name] for name in names})
        found[task] = {name: expert[name] - base[name] for name in names}
    return found
