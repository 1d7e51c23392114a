"""Section `models`."""

from __future__ import annotations

from taskgrid.config.sections.values import Name, Place, Section, Text


class ModelSpec(Section):
    """A base model: theta_0 and its text tower."""

    name: Name
    """Name in paths and tables."""
    architecture: Text
    """An open_clip architecture (`ViT-B-32-quickgelu`), a model config shipped in `resources/models`
    (`taskgrid-vit-4`), or the path of your own (`my/model.json`, docs/models.md)."""
    pretrained: Place
    """An open_clip tag (`openai`), a shipped tag (`s0`), the path of a safetensors file or of an index of
    shards, `hf-hub:owner/name@revision`, or `random`: weights that nobody trained, to try a machine."""
