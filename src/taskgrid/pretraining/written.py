"""The built-in model as files: its weights, and a datasheet of how they came to be."""

from __future__ import annotations

import hashlib
import json
import platform
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import open_clip
import torch

from taskgrid.pretraining import contrastive, corpus, model, probe
from taskgrid.store.atomic import write_json


def pretrain(
    architecture_config: Path,
    settings: contrastive.PretrainingSettings,
    output: Path,
    datasheet: Path,
    *,
    workers: int = 1,
    say: Callable[[object], None] = lambda _: None,
) -> None:
    """Render the corpus, train, probe, write.

    Args:
        architecture_config: the architecture, in open_clip's form.
        settings: settings of the training.
        output: the weights, as safetensors.
        datasheet: JSON: settings, digests, versions, probe accuracies.
        workers: processes that render.
        say: is told how far it is.

    Raises:
        ArtifactError: if a file cannot be read or written.
    """
    architecture = model.read_architecture(architecture_config)
    clip = model.new_model(architecture, settings.seed)
    started = time.perf_counter()
    pairs = corpus.build(
        settings.seed, settings.images, architecture.side + settings.margin, workers
    )
    say(f"{len(pairs)} images rendered in {time.perf_counter() - started:.0f} s")
    loss = contrastive.train(
        clip,
        model.tokenizer(architecture),
        pairs,
        settings,
        side=architecture.side,
        mean=architecture.preprocess["mean"],
        std=architecture.preprocess["std"],
        on_progress=say,
    )
    spent = time.perf_counter() - started
    metadata = {
        "format": "pt",
        "architecture": architecture.name,
        "seed": str(settings.seed),
        "settings": json.dumps(asdict(settings)),
        "torch": torch.__version__,
        "open_clip": open_clip.__version__,
        "step": str(settings.steps),
    }
    model.save_weights(clip, output, metadata)
    write_json(
        datasheet,
        {
            "architecture": architecture.name,
            "settings": asdict(settings),
            "loss": loss,
            "seconds": round(spent),
            "sha256": hashlib.sha256(output.read_bytes()).hexdigest(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "open_clip": open_clip.__version__,
            "tasks": probe.report(model.load_weights(architecture, output), architecture),
        },
    )
