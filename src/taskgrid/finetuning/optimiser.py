"""The optimiser of a training: AdamW with the recipe's learning rates and clipping."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from taskgrid.finetuning.recipe import Recipe
from taskgrid.store.weights import State


class Optimiser:
    """AdamW over named parameters.

    Args:
        parameters: what trains, by name.
        recipe: the recipe.
        total: steps in all, which the learning rate depends on.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], recipe: Recipe, total: int) -> None:
        self._names = list(parameters)
        self._parameters = list(parameters.values())
        self._recipe = recipe
        self._total = total
        self._adamw = torch.optim.AdamW(
            self._parameters, lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True
        )

    def begin(self, step: int) -> None:
        """Take the learning rate of update ``step`` (counted from 0) and forget the last gradient."""
        self._adamw.param_groups[0]["lr"] = self._recipe.learning_rate(step, self._total)
        self._adamw.zero_grad(set_to_none=True)

    def update(self) -> torch.Tensor:
        """Clip the gradient and take the step; return the L2 norm before clipping, on the device."""
        limit = self._recipe.clip_norm if self._recipe.clip_norm is not None else float("inf")
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, limit)
        self._adamw.step()
        return norm

    @contextmanager
    def resting(self) -> Iterator[None]:
        """Within the block, the parameters are as frozen as those of an encoder that is evaluated.

        The last bits of features depend on it (see ``ImageEncoder``).
        """
        self._let_train(False)
        try:
            yield
        finally:
            self._let_train(True)

    def pack(self) -> State:
        """Return the moments as ``<entry>/<parameter>``."""
        return {
            f"{entry}/{self._names[index]}": torch.as_tensor(value)
            for index, entries in self._adamw.state_dict()["state"].items()
            for entry, value in entries.items()
        }

    def restore(self, packed: Mapping[str, torch.Tensor]) -> None:
        """Put back what ``pack`` took out."""
        place = {name: index for index, name in enumerate(self._names)}
        state: dict[int, dict[str, torch.Tensor]] = {}
        for key, tensor in packed.items():
            entry, name = key.split("/", 1)
            state.setdefault(place[name], {})[entry] = tensor
        groups = self._adamw.state_dict()["param_groups"]
        self._adamw.load_state_dict({"state": state, "param_groups": groups})

    def _let_train(self, train: bool) -> None:
        for parameter in self._parameters:
            parameter.requires_grad_(train)
