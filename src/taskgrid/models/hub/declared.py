"""What the configuration beside some weights says of them, held against the architecture in use.

Weights do not tell which activation they were trained with, nor into how many heads a matrix is cut:
with a wrong one they load without complaint and compute something else. A repository's
``open_clip_config.json`` or transformers' ``config.json`` says it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

from open_clip.model import CLIPTextCfg, CLIPVisionCfg

from taskgrid.errors import LineageError
from taskgrid.models.card import Activation

OPEN_CLIP_CONFIG: Final = "open_clip_config.json"
TRANSFORMERS_CONFIG: Final = "config.json"

_ACTIVATIONS: Final[Mapping[str, Activation]] = {"quick_gelu": "quick_gelu", "gelu": "gelu"}
_WORDS: Final = {"quick_gelu": "QuickGELU", "gelu": "GELU"}
_EPSILON: Final = 1e-5
"""Of the layer norms of all plain CLIPs, in open_clip and, by default, in transformers."""

# transformers leaves values that are its defaults (those of ViT-B/32) out of a file.
_VISION_DEFAULTS: Final = {
    "hidden_act": "quick_gelu",
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 224,
    "patch_size": 32,
    "layer_norm_eps": _EPSILON,
}
_TEXT_DEFAULTS: Final = {
    "hidden_act": "quick_gelu",
    "hidden_size": 512,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "layer_norm_eps": _EPSILON,
}


def activation_of(model: Mapping[str, Any]) -> Activation:
    """Return the activation that open_clip computes for a model config."""
    # timm towers bring their own activation and ignore open_clip's switch.
    quick = model.get("quick_gelu") and "timm_model_name" not in model["vision_cfg"]
    return "quick_gelu" if quick else "gelu"


def check_declared(
    declared: Mapping[str, Any],
    model: Mapping[str, Any],
    *,
    architecture: str,
    what: str,
    source: str,
) -> None:
    """Refuse weights whose own configuration describes another model than the one in use.

    Args:
        declared: an ``open_clip_config.json`` or a transformers ``config.json``, read.
        model: open_clip's config of the model in use, or the part of it that a card holds.
        architecture: the architecture's name, for the messages.
        what: what the messages call the weights.
        source: what they call the configuration.

    Raises:
        LineageError: if the activation, the number of heads or another setting differs; names both
            values, and the architecture to use instead where that is known.
    """
    try:
        if "model_cfg" in declared:
            _check_open_clip(declared["model_cfg"], model, architecture, what, source)
        elif "model_type" in declared:
            _check_transformers(declared, model, architecture, what, source)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise LineageError(
            f"{what} come with a configuration ({source}) that cannot be understood ({error!r:.100}); "
            "fetch it again"
        ) from error


def sibling(architecture: str) -> str:
    """Return the name of the architecture that differs by QuickGELU alone, whether or not it exists."""
    plain = architecture.removesuffix("-quickgelu")
    return plain if plain != architecture else f"{architecture}-quickgelu"


def check_activation(trained: str, model: Mapping[str, Any], architecture: str, what: str) -> None:
    """Refuse weights that were trained with another activation than the architecture computes.

    Raises:
        LineageError: names both, and the architecture to use instead.
    """
    computed = activation_of(model)
    if trained != computed:
        raise LineageError(
            f"{what} were trained with {_WORDS.get(trained, trained)}, but architecture "
            f"{architecture!r} computes {_WORDS[computed]}; use the architecture they were made for"
            + (f" ({sibling(architecture)!r})" if trained in _ACTIVATIONS else "")
        )


def _check_open_clip(
    declared: Mapping[str, Any],
    model: Mapping[str, Any],
    architecture: str,
    what: str,
    source: str,
) -> None:
    check_activation(activation_of(declared), model, architecture, f"{what} ({source})")
    pairs: dict[str, tuple[Any, Any]] = {}
    if "embed_dim" in declared:
        pairs["embed_dim"] = (declared["embed_dim"], model["embed_dim"])
    for part, kind in (("vision_cfg", CLIPVisionCfg), ("text_cfg", CLIPTextCfg)):
        if part in declared and part in model:
            theirs, ours = (
                _filled(kind, config[part], what, source) for config in (declared, model)
            )
            pairs |= {f"{part}.{key}": (theirs[key], ours[key]) for key in theirs}
    _refuse_differences(pairs, architecture, what, source)


def _filled(kind: Any, values: Mapping[str, Any], what: str, source: str) -> dict[str, Any]:
    try:
        filled = asdict(kind(**values))
    except TypeError as error:
        raise LineageError(
            f"{what} come with a {source} that this release of open_clip does not understand "
            f"({error}); install the release that it was written with"
        ) from error
    # How weights were first obtained, and what acts in training alone.
    for key in ("timm_model_pretrained", "hf_model_pretrained", "patch_dropout"):
        filled.pop(key, None)
    return {key: _square(value) for key, value in filled.items()}


def _check_transformers(
    declared: Mapping[str, Any],
    model: Mapping[str, Any],
    architecture: str,
    what: str,
    source: str,
) -> None:
    kind = str(declared["model_type"])
    if kind not in ("clip", "clip_vision_model"):
        raise LineageError(
            f"{what} are those of a {kind!r} model ({source}), not of a CLIP; correct the name of the "
            "repository or file"
        )
    whole = kind == "clip"
    vision = {**_VISION_DEFAULTS, **(_part(declared, "vision_config") if whole else declared)}
    text = {**_TEXT_DEFAULTS, **_part(declared, "text_config")} if whole else None
    for settings in (vision, text):
        if settings is not None:
            check_activation(settings["hidden_act"], model, architecture, f"{what} ({source})")
    ours = asdict(CLIPVisionCfg(**model["vision_cfg"]))
    heads = ours["width"] // ours["head_width"]
    pairs = {
        "hidden_size": (vision["hidden_size"], ours["width"]),
        "num_hidden_layers": (vision["num_hidden_layers"], ours["layers"]),
        "num_attention_heads": (vision["num_attention_heads"], heads),
        "image_size": (vision["image_size"], _square(ours["image_size"])),
        "patch_size": (vision["patch_size"], ours["patch_size"]),
        "layer_norm_eps": (vision["layer_norm_eps"], _epsilon(ours)),
    }
    if text is not None and "text_cfg" in model:
        own = asdict(CLIPTextCfg(**model["text_cfg"]))
        pairs |= {
            "text_config.hidden_size": (text["hidden_size"], own["width"]),
            "text_config.num_hidden_layers": (text["num_hidden_layers"], own["layers"]),
            "text_config.num_attention_heads": (text["num_attention_heads"], own["heads"]),
            "text_config.layer_norm_eps": (text["layer_norm_eps"], _epsilon(own)),
        }
    _refuse_differences(pairs, architecture, what, source)


def _part(declared: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    # Early releases of transformers kept the values under the second name.
    return declared.get(name) or declared.get(f"{name}_dict") or {}


def _epsilon(tower: Mapping[str, Any]) -> float:
    return float((tower["norm_kwargs"] or {}).get("eps", _EPSILON))


def _square(value: Any) -> Any:
    if isinstance(value, list | tuple) and len(set(value)) == 1:
        return value[0]
    return list(value) if isinstance(value, tuple) else value


def _refuse_differences(
    pairs: Mapping[str, tuple[Any, Any]], architecture: str, what: str, source: str
) -> None:
    for key, (theirs, ours) in pairs.items():
        if theirs != ours:
            raise LineageError(
                f"{what} were made for {key} {theirs} ({source}), but architecture {architecture!r} "
                f"has {ours}; give the architecture that they were made with"
            )
