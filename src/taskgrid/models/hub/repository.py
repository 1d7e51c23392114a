"""Weights of whole CLIPs in repositories of the Hugging Face hub, and what lies beside the weights.

Two layouts are known: open_clip's (``open_clip_config.json`` with ``open_clip_model.safetensors`` or
``open_clip_pytorch_model.bin``) and transformers' (``config.json`` with ``model.safetensors`` or
``pytorch_model.bin``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from taskgrid.errors import ConfigError, LineageError, RemoteError
from taskgrid.models.hub.declared import OPEN_CLIP_CONFIG, TRANSFORMERS_CONFIG
from taskgrid.remote.cache import HUB
from taskgrid.remote.hub import HubFiles, fetch
from taskgrid.store.atomic import read_foreign_json

_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_PREPROCESSOR: Final = "preprocessor_config.json"
_WEIGHTS: Final = {
    OPEN_CLIP_CONFIG: ("open_clip_model.safetensors", "open_clip_pytorch_model.bin"),
    TRANSFORMERS_CONFIG: ("model.safetensors", "pytorch_model.bin"),
}
_RESAMPLING: Final = {2: "bilinear", 3: "bicubic"}


@dataclass(frozen=True)
class Reference:
    """A repository at a revision.

    Attributes:
        repository: its name, ``owner/name``.
        revision: commit, tag or branch; None is the newest commit.
    """

    repository: str
    revision: str | None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Read ``hf-hub:owner/name@revision``; the revision may be left out.

        Raises:
            ConfigError: if it is none.
        """
        name, at, revision = text.removeprefix(HUB).partition("@")
        if not _NAME.fullmatch(name) or (at and not revision):
            raise ConfigError(
                f"{text!r} is no repository of the hub; write {HUB}owner/name@revision"
            )
        return cls(name, revision or None)


@dataclass(frozen=True)
class Surroundings:
    """What lies beside some weights and describes them.

    Attributes:
        declared: the configuration, as in ``models.declared``; None where there is none.
        source: its file name.
        preprocess: entries for open_clip's preprocessing config.
    """

    declared: Mapping[str, Any] | None = None
    source: str = ""
    preprocess: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class HubWeights:
    """Weights that came from the hub.

    Attributes:
        path: the file of weights.
        surroundings: what the repository says of them.
        pretrained: the reference with the commit in place of a branch or tag.
    """

    path: Path
    surroundings: Surroundings
    pretrained: str


def fetch_weights(reference: Reference) -> HubWeights:
    """Return a CLIP's weights from the hub, or from its cache, with their configuration.

    Raises:
        RemoteError: if the repository or revision does not exist or cannot be reached, or holds no
            weights in a layout that is known.
        ArtifactError: if a file is damaged.
        LineageError: if nothing in the repository describes the weights.
    """
    config = _config(reference)
    files = None
    for name in _WEIGHTS[config]:
        try:
            files = _fetch(reference, config, name)
            break
        except RemoteError:
            # The next kind of file; the last one's error is the one to tell.
            if name == _WEIGHTS[config][-1]:
                raise
    assert files is not None
    found = {file.name: file.path for file in files.files}
    around = surroundings(found[config].parent, only=config)
    if around.declared is None:
        raise LineageError(
            f"nothing in {reference.repository} says which activation its weights were trained with "
            f"(no {OPEN_CLIP_CONFIG}, and its {config} is not transformers'); download the weights and "
            "give their path, with the architecture that they were made for"
        )
    return HubWeights(
        path=next(found[name] for name in _WEIGHTS[config] if name in found),
        surroundings=around,
        pretrained=f"{HUB}{reference.repository}@{files.commit}",
    )


def surroundings(folder: Path, *, only: str | None = None) -> Surroundings:
    """Return what the files of a folder say of the weights in it.

    Args:
        folder: the folder.
        only: the name of the one configuration to look at; by default open_clip's comes first.

    Raises:
        ArtifactError: if a configuration is damaged.
    """
    for name in (only,) if only else (OPEN_CLIP_CONFIG, TRANSFORMERS_CONFIG):
        path = folder / name
        if not path.is_file():
            continue
        declared = read_foreign_json(path)
        if not isinstance(declared, dict):
            raise LineageError(f"{path} is no model configuration; put the right file there")
        if name == OPEN_CLIP_CONFIG:
            return Surroundings(declared, name, declared.get("preprocess_cfg", {}))
        # timm and others call their configuration config.json too.
        if "model_type" in declared:
            return Surroundings(declared, name, _preprocess(folder / _PREPROCESSOR))
    return Surroundings()


def _config(reference: Reference) -> str:
    """Return which of the configurations a repository has."""
    first: RemoteError | None = None
    for name in _WEIGHTS:
        try:
            _fetch(reference, name)
            return name
        except RemoteError as error:
            first = first or error
    assert first is not None
    raise first


def _fetch(reference: Reference, *patterns: str) -> HubFiles:
    wanted = [*patterns]
    if TRANSFORMERS_CONFIG in patterns:
        # Most have it; it is not worth refusing a repository for.
        try:
            return fetch(
                reference.repository,
                kind="model",
                revision=reference.revision,
                patterns=[*wanted, _PREPROCESSOR],
            )
        except RemoteError:
            pass
    return fetch(reference.repository, kind="model", revision=reference.revision, patterns=wanted)


def _preprocess(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    found = read_foreign_json(path)
    names = {"image_mean": "mean", "image_std": "std"}
    values: dict[str, Any] = {
        own: tuple(found[theirs]) for theirs, own in names.items() if theirs in found
    }
    if found.get("resample") in _RESAMPLING:
        values["interpolation"] = _RESAMPLING[found["resample"]]
    return values
