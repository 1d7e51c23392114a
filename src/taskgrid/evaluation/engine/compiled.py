"""An encoder whose whole batches pass through ``torch.compile``: CUDA graphs on a GPU.

Weights are inputs of the compiled code, so what is written into the tower in place is what it computes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import cast

import torch

from taskgrid.models.encoder import ImageEncoder


class CompiledEncoder(ImageEncoder):
    """An encoder that shares another one's tower and compiles what it computes.

    Code is made for one number of images. The last batch of an image set, which is shorter, passes as
    it always did: code for each length would cost more than it could save. Where nothing can be
    compiled everything passes as it always did, and a warning says so once.

    Args:
        encoder: the encoder; its tower is shared, not copied.
        whole: gives the number of images of a whole batch.

    Attributes:
        gave_up: whether it was found that nothing can be compiled.
    """

    def __init__(self, encoder: ImageEncoder, whole: Callable[[], int]) -> None:
        super().__init__(encoder.tower, encoder.card)
        self._whole = whole
        self._compiled: Callable[[torch.Tensor], torch.Tensor] | None = None
        self.gave_up = False

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return features ``(B, D)``, not normalised, of normalised images ``(B, 3, S, S)``."""
        if self.gave_up or len(images) != self._whole():
            return super().forward(images)
        try:
            return self._pass(images)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            # Whatever is no fault of the compiler happens again without it.
            self.gave_up, self._compiled = True, None
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            print(
                f"warning: evaluation.compile is on, but torch cannot compile here ({reason}); going on "
                "without",
                file=sys.stderr,
            )
            return super().forward(images)

    def _pass(self, images: torch.Tensor) -> torch.Tensor:
        if self._compiled is None:
            mode = "reduce-overhead" if images.device.type == "cuda" else "default"
            made = torch.compile(self.tower.forward, dynamic=False, mode=mode)
            self._compiled = cast(Callable[[torch.Tensor], torch.Tensor], made)
        # A graph writes each result over the one before.
        return self._compiled(images).clone()
