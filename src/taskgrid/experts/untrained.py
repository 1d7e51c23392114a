"""An expert that was not trained here, as the files that a fine-tuning writes."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from taskgrid.store.atomic import write_json
from taskgrid.store.tables import write_table
from taskgrid.store.weights import save_state

_HISTORY = pa.schema([("step", pa.int64()), ("metric", pa.string()), ("value", pa.float64())])


@dataclass(frozen=True)
class UntrainedFiles:
    """What is written.

    Attributes:
        expert: theta_t.
        manifest: what it was made from, and its digest.
        history: curves, of no steps.
        timing: how long it took.
    """

    expert: Path
    manifest: Path
    history: Path
    timing: Path

    def write(
        self,
        state: Mapping[str, torch.Tensor],
        lineage: Mapping[str, str],
        started: float,
        **more: Any,
    ) -> str:
        """Write an expert.

        Args:
            state: theta_t.
            lineage: what it was made from.
            started: when the work on it began, by ``time.perf_counter``.
            **more: what else is known, for the manifest.

        Returns:
            The digest of the state.
        """
        digest = save_state(self.expert, state, lineage)
        write_table(self.history, _HISTORY.empty_table())
        write_json(self.manifest, {**lineage, "digest": digest, **more})
        write_json(
            self.timing,
            {
                "seconds": time.perf_counter() - started,
                "images_per_second": None,
                "device": "cpu",
                "torch": torch.__version__,
                "host": platform.node(),
            },
        )
        return digest
