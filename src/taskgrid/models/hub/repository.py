"""Weights of whole CLIPs in repositories of the Hugging Face hub, and what lies beside the weights.

Two layouts are known: open_clip's (``open_clip_config.json`` with ``open_clip_model.safetensors`` or
``open_clip_pytorch_model.bin``) and transformers' (``config.json`` with ``model.safetensors`` or
``pytorch_model.bin``). Either may be cut into shards, with an index (``model.safetensors.index.json``).
"""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Final

from taskgrid.errors import ArtifactError, ConfigError, LineageError, RemoteError
from taskgrid.models.hub.declared import OPEN_CLIP_CONFIG, TRANSFORMERS_CONFIG
from taskgrid.models.hub.weights import adapter_sentence
from taskgrid.remote.cache import HUB
from taskgrid.remote.hub import HubFiles, fetch
from taskgrid.store.foreign import check_no_pointer
from taskgrid.store.index import read_index

_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_PREPROCESSOR: Final = "preprocessor_config.json"
_WEIGHTS: Final = {
    OPEN_CLIP_CONFIG: ("open_clip_model.safetensors", "open_clip_pytorch_model.bin"),
    TRANSFORMERS_CONFIG: ("model.safetensors", "pytorch_model.bin"),
}
ADAPTER_CONFIG: Final = "adapter_config.json"
INDEX: Final = ".index.json"
"""Ending of an index of shards."""
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
        LineageError: if nothing in the repository describes the weights, or it holds an adapter.
    """
    try:
        return _whole(reference)
    except RemoteError:
        with contextlib.suppress(RemoteError):
            _fetch(reference, ADAPTER_CONFIG)
            raise LineageError(adapter_sentence(reference.repository)) from None
        raise


def _whole(reference: Reference) -> HubWeights:
    config = _config(reference)
    names = [f"{name}{end}" for end in ("", INDEX) for name in _WEIGHTS[config]]
    files, name = _first(reference, config, names)
    if name.endswith(INDEX):
        index = read_index(next(file.path for file in files.files if file.name == name))
        files = _fetch(reference, config, name, *shard_names(name, index.shards))
    found = {file.name: file.path for file in files.files}
    around = surroundings(found[config].parent, only=config)
    if around.declared is None:
        raise LineageError(
            f"nothing in {reference.repository} says which activation its weights were trained with "
            f"(no {OPEN_CLIP_CONFIG}, and its {config} is not transformers'); download the weights and "
            "give their path, with the architecture that they were made for"
        )
    return HubWeights(
        path=found[name],
        surroundings=around,
        pretrained=f"{HUB}{reference.repository}@{files.commit}",
    )


def shard_names(index: str, shards: Mapping[str, str]) -> list[str]:
    """Return the names in a repository of the shards of an index, which lie beside it."""
    return sorted({str(PurePosixPath(index).with_name(shard)) for shard in shards.values()})


def beside(file: Path) -> Surroundings:
    """Return what lies beside a file, or beside what it is a link to, and describes it.

    Raises:
        ArtifactError: if a configuration is damaged.
    """
    found = surroundings(file.parent)
    return found if found.declared is not None else surroundings(file.resolve().parent)


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
        declared = _read(path)
        if not isinstance(declared, dict):
            raise LineageError(f"{path} is no model configuration; put the right file there")
        if name == OPEN_CLIP_CONFIG:
            return Surroundings(declared, name, _sound(path, declared.get("preprocess_cfg") or {}))
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


def _first(reference: Reference, config: str, names: list[str]) -> tuple[HubFiles, str]:
    """Return the first of some files that a repository has, with its configuration, and its name."""
    first: RemoteError | None = None
    for name in names:
        try:
            return _fetch(reference, config, name), name
        except RemoteError as error:
            # The next kind of file; where there is none, the usual one is what is missing.
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
    found = _read(path)
    if not isinstance(found, dict):
        raise LineageError(f"{path} says nothing of images; put the right file there, or remove it")
    names = {"image_mean": "mean", "image_std": "std"}
    values: dict[str, Any] = {
        own: found[theirs] for theirs, own in names.items() if found.get(theirs) is not None
    }
    resample = found.get("resample")
    if isinstance(resample, int) and resample in _RESAMPLING:
        values["interpolation"] = _RESAMPLING[resample]
    return _sound(path, values)


def _sound(path: Path, values: Any) -> dict[str, Any]:
    """Return how images are prepared, where it can be so."""
    if not isinstance(values, dict):
        raise LineageError(f"{path} says {values!r:.80} of how images are prepared; fetch it again")
    for name, kinds in {
        "mode": ("RGB",),
        "interpolation": ("bilinear", "bicubic"),
    }.items():
        if values.get(name) not in (None, *kinds):
            raise LineageError(
                f"{path} says {name} {values[name]!r:.80}, which is not prepared; there are: "
                f"{', '.join(kinds)}"
            )
    for name in ("mean", "std"):
        three = values.get(name)
        if three is None:
            continue
        numbers = isinstance(three, list | tuple) and len(three) == 3
        if (
            not numbers
            or not all(_is_number(value) for value in three)
            or (name == "std" and min(three) <= 0)
        ):
            raise LineageError(
                f"{path} says {name} {three!r:.80}, which is not one number for each of three channels; "
                "fetch it again"
            )
    return {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _read(path: Path) -> Any:
    """Read a configuration that others wrote."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        check_no_pointer(path)
        raise ArtifactError(
            f"{path} cannot be read as JSON ({str(error) or type(error).__name__:.100}); fetch it again, or "
            "remove it if it does not belong to the weights"
        ) from error
