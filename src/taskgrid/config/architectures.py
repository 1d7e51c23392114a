"""What the Snakefile must know of a model before torch is imported: its image size."""

from __future__ import annotations

import contextlib
import importlib.util
import json
from functools import cache
from pathlib import Path
from typing import Any, cast

from taskgrid.errors import ArtifactError, ConfigError
from taskgrid.plugins.resources import resource_path
from taskgrid.provenance.digests import digest
from taskgrid.provenance.listing import fingerprint
from taskgrid.remote.cache import meant_repository
from taskgrid.sentences import did_you_mean, shown, tail
from taskgrid.store.foreign import kind_of
from taskgrid.store.index import read_index, whole

RANDOM = "random"
"""In place of a tag: weights that nobody trained."""


def is_own(architecture: str) -> bool:
    """Return whether an architecture is the path of somebody's own model config; names never end so."""
    return architecture.endswith(".json")


def architecture_config(architecture: str) -> dict[str, Any]:
    """Return the model config (open_clip's JSON) of an architecture.

    Args:
        architecture: a name, or the path of a model config; as open_clip writes them, with how images are
            prepared under ``preprocess_cfg``, or as ``open_clip_config.json`` of a hub's repository.

    Raises:
        ConfigError: if neither `resources/models` nor open_clip has it, and close names are listed; or a
            file is missing or no model config.
    """
    if is_own(architecture):
        return _own_config(architecture)
    for folder in _folders():
        path = folder / f"{architecture}.json"
        # A name, and no way out of the folder.
        if path.parent == folder and path.is_file():
            config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return config
    known = sorted(path.stem for folder in _folders() for path in folder.glob("*.json"))
    hint = did_you_mean(architecture, known, most=3) or "give one of open_clip's"
    raise ConfigError(f"unknown architecture {shown(architecture)}; {hint.strip()}")


def _own_config(path: str) -> dict[str, Any]:
    where = f"the model config {tail(path)}"
    try:
        config = json.loads(Path(path).expanduser().read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"{where} does not exist (looked from {Path.cwd()}); correct `architecture`"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{where} cannot be read as JSON ({error}); correct it") from None
    if isinstance(config, dict) and isinstance(config.get("model_cfg"), dict):
        config = {**config["model_cfg"], "preprocess_cfg": config.get("preprocess_cfg", {})}
    for key, kind in {"embed_dim": int, "vision_cfg": dict, "text_cfg": dict}.items():
        if not isinstance(config, dict) or not isinstance(config.get(key), kind):
            raise ConfigError(
                f"{where} is none of open_clip's: it lacks {key!r}; docs/models.md shows one"
            )
    return cast(dict[str, Any], config)


def no_tag(architecture: str, pretrained: str) -> ConfigError:
    """Return the sentence that refuses a tag of weights for somebody's own architecture."""
    return ConfigError(
        f"pretrained: {shown(pretrained)} is no file, and an architecture of your own "
        f"({tail(architecture)}) has no tags; give a safetensors file, hf-hub:owner/name@revision, or random"
    )


@cache
def image_size(architecture: str) -> int:
    """Return the side, in pixels, of the square images that an architecture takes.

    Raises:
        ConfigError: if the architecture is unknown or its config names no image size.
    """
    size = architecture_config(architecture).get("vision_cfg", {}).get("image_size", 224)
    if isinstance(size, list):
        if len(set(size)) != 1:
            raise ConfigError(
                f"architecture {architecture!r} takes images of {size}, not square ones"
            )
        size = size[0]
    return int(size)


@cache
def parameters(architecture: str) -> int:
    """Return how many parameters an architecture's image tower has.

    Exact for open_clip's vision transformers. For what must be known before anything is loaded; towers
    of other kinds count as ViT-L/14.

    Raises:
        ConfigError: if the architecture is unknown.
    """
    config = architecture_config(architecture)
    vision = _transformer(config)
    if vision is None:
        return 304_000_000
    width, layers, patch = vision
    hidden = int(width * config["vision_cfg"].get("mlp_ratio", 4.0))
    # Attention, the two maps of the MLP with their biases, two norms.
    layer = 4 * width * (width + 1) + 2 * width * hidden + hidden + width + 4 * width
    # Patches, the class token, positions, two norms.
    embedding = width * (3 * patch**2 + 1 + _tokens(architecture, patch) + 4)
    return int(layers * layer + embedding + width * config.get("embed_dim", width))


@cache
def features(architecture: str) -> int:
    """Return the dimension of an architecture's features, which image and text towers share."""
    return int(architecture_config(architecture)["embed_dim"])


@cache
def operations(architecture: str) -> int:
    """Return about how many multiply-adds an image takes, for limits on time.

    Counted for a vision transformer: 12 width^2 per layer and token, the products of attention left
    out; towers of other kinds count as ViT-L/14.

    Raises:
        ConfigError: if the architecture is unknown.
    """
    vision = _transformer(architecture_config(architecture))
    if vision is None:
        return 78_000_000_000
    width, layers, patch = vision
    return layers * 12 * width**2 * _tokens(architecture, patch)


def _transformer(config: dict[str, Any]) -> tuple[int, int, int] | None:
    """Return width, layers and patch size of a vision transformer; None of other towers."""
    vision = config.get("vision_cfg", {})
    width, layers, patch = (vision.get(key) for key in ("width", "layers", "patch_size"))
    if not (isinstance(width, int) and isinstance(layers, int) and isinstance(patch, int)):
        return None
    return width, layers, patch


def _tokens(architecture: str, patch: int) -> int:
    return (image_size(architecture) // patch) ** 2 + 1


def local_weights(architecture: str, pretrained: str) -> Path | None:
    """Return the file of a model's weights, or None when they come from a hub or by a tag.

    Of weights in shards it is their index.

    Raises:
        ConfigError: if ``pretrained`` looks like a path and there is no such file, or it is a pickle.
        ArtifactError: if the file is plainly no weights.
    """
    with contextlib.suppress(ArtifactError):
        return resource_path(f"models/{architecture}-{pretrained}.safetensors")
    if pretrained.startswith("hf-hub:"):
        return None
    path = Path(pretrained).expanduser()
    is_path = bool(path.suffix) or len(path.parts) > 1
    if not is_path:
        if is_own(architecture) and pretrained != RANDOM and not path.is_file():
            raise no_tag(architecture, pretrained)
        return path if path.is_file() else None
    if not path.exists() and not path.is_symlink():
        meant = meant_repository(pretrained)
        raise ConfigError(
            f"pretrained: {tail(pretrained)} is no file; "
            + (
                f"a repository of the hub is written {meant}"
                if meant
                else "give a file, an open_clip tag, or hf-hub:owner/name@revision"
            )
        )
    path = whole(path)
    if kind_of(path) == "pickle":
        raise ConfigError(
            f"pretrained: {tail(pretrained)} is a pickle, not safetensors; convert it first (taskgrid never "
            "unpickles a base; docs/experts.md says how)"
        )
    return path


def weights_fingerprint(architecture: str, pretrained: str) -> str:
    """Return a digest of a model's weights where they are a local file or shards, else their tag."""
    path = local_weights(architecture, pretrained)
    if path is None:
        return pretrained
    files = [path, *(read_index(path).files if path.suffix == ".json" else ())]
    prints = [fingerprint(file) for file in files]
    return prints[0] if len(prints) == 1 else digest(prints)


def _folders() -> list[Path]:
    folders = []
    with contextlib.suppress(ArtifactError):
        folders.append(resource_path("models"))
    spec = importlib.util.find_spec("open_clip")
    if spec is not None and spec.origin is not None:
        folders.append(Path(spec.origin).parent / "model_configs")
    return folders
