"""Pre-train a built-in model and write its weights.

Example::

    python scripts/pretrain.py --architecture-config resources/models/taskgrid-vit-4.json \
        --settings '{"seed": 0}' --output taskgrid-vit-4-s0.safetensors --datasheet taskgrid-vit-4-s0.json
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import time
from dataclasses import asdict
from pathlib import Path

import open_clip
import torch

from taskgrid.pretraining import contrastive, corpus, model, probe
from taskgrid.store.atomic import write_json


def settings_argument(text: str) -> contrastive.PretrainingSettings:
    """Return settings from a JSON object, or from the file that holds one."""
    return contrastive.settings_from(
        json.loads(text if text.lstrip().startswith("{") else Path(text).read_text())
    )


def main() -> None:
    """Render the corpus, train, probe, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--architecture-config", type=Path, required=True)
    parser.add_argument(
        "--settings", type=settings_argument, default=contrastive.PretrainingSettings()
    )
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument(
        "--datasheet", type=Path, help="JSON: settings, digests, versions, probe accuracies"
    )
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="processes that render"
    )
    parser.add_argument("--threads", type=int, help="torch threads; changes sums in the last bits")
    parser.add_argument(
        "--checkpoint-every", type=int, default=0, help="also write the weights every so many steps"
    )
    arguments = parser.parse_args()
    settings: contrastive.PretrainingSettings = arguments.settings
    if arguments.threads:
        torch.set_num_threads(arguments.threads)

    architecture = model.read_architecture(arguments.architecture_config)
    clip = model.new_model(architecture, settings.seed)
    tokens = model.tokenizer(architecture)
    started = time.perf_counter()
    pairs = corpus.build(
        settings.seed, settings.images, architecture.side + settings.margin, arguments.workers
    )
    print(f"{len(pairs)} images rendered in {time.perf_counter() - started:.0f} s", flush=True)
    metadata = {
        "format": "pt",
        "architecture": architecture.name,
        "seed": str(settings.seed),
        "settings": json.dumps(asdict(settings)),
        "torch": torch.__version__,
        "open_clip": open_clip.__version__,
    }

    def checkpoint(step: int) -> None:
        model.save_weights(clip, arguments.output, {**metadata, "step": str(step)})

    loss = contrastive.train(
        clip,
        tokens,
        pairs,
        settings,
        side=architecture.side,
        mean=architecture.preprocess["mean"],
        std=architecture.preprocess["std"],
        on_progress=lambda progress: print(progress, flush=True),
        on_checkpoint=checkpoint,
        checkpoint_every=arguments.checkpoint_every,
    )
    spent = time.perf_counter() - started
    checkpoint(settings.steps)
    if arguments.datasheet:
        rounded = model.load_weights(architecture, arguments.output)
        write_json(
            arguments.datasheet,
            {
                "architecture": architecture.name,
                "settings": asdict(settings),
                "loss": loss,
                "seconds": round(spent),
                "sha256": hashlib.sha256(arguments.output.read_bytes()).hexdigest(),
                "python": platform.python_version(),
                "torch": torch.__version__,
                "open_clip": open_clip.__version__,
                "tasks": probe.report(rounded, architecture),
            },
        )


if __name__ == "__main__":
    main()
