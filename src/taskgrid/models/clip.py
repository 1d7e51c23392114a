"""Loading whole CLIP models: shipped, open_clip's, of the hub, local files; always strictly."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import open_clip
import torch
from open_clip.model import CLIP, CustomTextCLIP
from open_clip.pretrained import download_pretrained
from open_clip.tokenizer import HFTokenizer
from open_clip.transform import PreprocessCfg, merge_preprocess_dict
from torch import nn

from taskgrid.config.architectures import RANDOM, architecture_config, is_own, no_tag
from taskgrid.errors import ArtifactError, ConfigError, LineageError
from taskgrid.models.card import Activation, ModelCard
from taskgrid.models.hub.conversion import clip_to_open_clip, is_transformers
from taskgrid.models.hub.declared import activation_of, check_declared, sibling
from taskgrid.models.hub.repository import Reference, Surroundings, beside, fetch_weights
from taskgrid.models.hub.weights import (
    check_finite,
    check_no_adapter,
    first_line,
    read_weights,
    unwrapped,
)
from taskgrid.models.tower import load_strictly
from taskgrid.plugins.resources import resource_path
from taskgrid.remote.cache import HUB, meant_repository
from taskgrid.sentences import choices, did_you_mean
from taskgrid.store.atomic import read_foreign_json
from taskgrid.store.foreign import ENDINGS, kind_of
from taskgrid.store.weights import State, digest_state

_VISUAL = "visual."
_TOWER_KEYS = ("embed_dim", "vision_cfg", "quick_gelu")


@dataclass(frozen=True)
class Clip:
    """A CLIP with its tokenizer and all that names it.

    Attributes:
        model: open_clip's model, in evaluation mode, weights in float32.
        tokenizer: maps texts to token ids ``(N, context)``.
        architecture: open_clip architecture name.
        pretrained: tag or file the weights came from.
        config: open_clip's model config.
        image_size: side of the square input in pixels.
        mean: channel means on the scale [0, 1].
        std: channel standard deviations on the scale [0, 1].
        interpolation: how images are resized, e.g. ``bicubic``.
        activation: ``gelu`` or ``quick_gelu``.
        visual_digest: digest of the image tower's state (keys without ``visual.``).
        text_digest: digest of everything else: text tower and logit scale.
        notes: sentences for a person: what is not known of the weights.
    """

    model: nn.Module
    tokenizer: Any
    architecture: str
    pretrained: str
    config: Mapping[str, Any]
    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str
    activation: Activation
    visual_digest: str
    text_digest: str
    notes: tuple[str, ...] = ()

    @property
    def logit_scale(self) -> float:
        """The factor on cosine similarities, already exponentiated."""
        scale = cast(torch.Tensor, self.model.logit_scale)
        return float(scale.detach().exp().reshape(()))

    def visual_state(self) -> State:
        """Return theta_0: a copy of the image tower's state, keys without ``visual.``."""
        return {
            key.removeprefix(_VISUAL): tensor.detach().clone()
            for key, tensor in self.model.state_dict().items()
            if key.startswith(_VISUAL)
        }

    def card(self) -> ModelCard:
        """Return the model card."""
        tower = {key: self.config[key] for key in _TOWER_KEYS if key in self.config}
        return ModelCard(
            architecture=self.architecture,
            pretrained=self.pretrained,
            activation=self.activation,
            tower=copy.deepcopy(tower),
            image_size=self.image_size,
            mean=self.mean,
            std=self.std,
            interpolation=self.interpolation,
            logit_scale=self.logit_scale,
            base=self.visual_digest,
            text=self.text_digest,
        )


def load_clip(architecture: str, pretrained: str, *, resources: Path | None = None) -> Clip:
    """Load a CLIP strictly, on the CPU, in float32 and evaluation mode.

    Args:
        architecture: name of a model config ``<architecture>.json`` in ``resources``, or of an
            open_clip architecture; or the path of a model config, which ends in ``.json``.
        pretrained: tag of a shipped file ``<architecture>-<pretrained>.safetensors`` in
            ``resources``; an open_clip tag; ``hf-hub:owner/name@revision``; or the path of a
            safetensors file or of an index of shards. Weights in transformers' layout are converted.
            ``random``: weights that nobody trained, always the same, to try a machine or measure speed.
        resources: folder of model configs and weights; default: the one shipped with taskgrid.

    Raises:
        ConfigError: if the architecture or the tag does not exist, a model config is none, or the model
            is of a kind that has no plain image tower.
        LineageError: if the weights do not fit the architecture: keys, shapes, QuickGELU, or what
            the configuration beside them says.
        ArtifactError: if the weights cannot be downloaded or read.
        RemoteError: if a repository of the hub cannot be had.

    Examples:
        >>> clip = load_clip("taskgrid-vit-4", "s0")
        >>> clip.card().image_size
        24
    """
    folder = resources if resources is not None else _shipped()
    config, preprocess = _config_of(architecture, folder)
    _check_kind(architecture, config)
    name = f"weights {pretrained!r} of {architecture!r}"
    notes: tuple[str, ...] = ()
    if pretrained == RANDOM:
        model = _build(architecture, config, seed=0)
    elif pretrained.startswith(HUB):
        fetched = fetch_weights(Reference.parse(pretrained))
        name = f"weights {fetched.pretrained!r}"
        preprocess = _check_surroundings(
            fetched.surroundings, preprocess, config, architecture, name
        )
        model = _build(architecture, config)
        _load_file(model, fetched.path, architecture, config, name)
        pretrained = fetched.pretrained
    elif (file := _file_of(architecture, pretrained, folder)) is not None:
        name = f"weights {file}"
        around = beside(file)
        preprocess = _check_surroundings(around, preprocess, config, architecture, name)
        model = _build(architecture, config)
        known = _load_file(model, file, architecture, config, name)
        if not (known or around.declared or file.stem == f"{architecture}-{pretrained}"):
            notes = (
                f"nothing beside {file} says its activation: {activation_of(config)} was taken for granted",
            )
    else:
        # All that can be refused is refused before a large model is built.
        tag = _tag_of(architecture, pretrained, config, folder)
        preprocess = merge_preprocess_dict(preprocess, tag)
        path = _download(tag, name)
        model = _build(architecture, config)
        _load_download(model, path, name)
    # Checkpoints store half precision to save space; every computation here starts from float32.
    model.float().eval().requires_grad_(False)
    check_finite(
        model.state_dict(), f"{name} have", "fetch the file again, or choose other weights"
    )
    found = _describe(model, architecture, pretrained, config, PreprocessCfg(**preprocess))
    return replace(found, notes=notes)


def _shipped() -> Path | None:
    try:
        return resource_path("models")
    except ArtifactError:
        return None


def _config_of(architecture: str, folder: Path | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return open_clip's model config and how images are prepared before a tag has its say."""
    preprocess = asdict(PreprocessCfg())
    shipped = folder / f"{architecture}.json" if folder is not None else None
    config = architecture_config(architecture) if is_own(architecture) else None
    if config is None and shipped is not None and shipped.is_file():
        config = read_foreign_json(shipped)
    if config is not None:
        # open_clip keeps this key apart from the model's own; its constructors refuse it.
        return config, merge_preprocess_dict(preprocess, config.pop("preprocess_cfg", {}))
    found = open_clip.get_model_config(architecture) if ":" not in architecture else None
    if found is None:
        own = [path.stem for path in sorted(folder.glob("*.json"))] if folder is not None else []
        known = [*own, *open_clip.list_models()]
        raise ConfigError(
            f"unknown architecture {architecture!r}; {did_you_mean(architecture, known, most=3)}"
            f"open_clip lists {len(open_clip.list_models())} names (open_clip.list_models())"
            + (f", and taskgrid ships {', '.join(own)}" if own else "")
        )
    return cast(dict[str, Any], found), preprocess


def _check_kind(architecture: str, config: Mapping[str, Any]) -> None:
    if "multimodal_cfg" in config or config["vision_cfg"].get("output_tokens"):
        raise ConfigError(
            f"architecture {architecture!r} is a captioning model; "
            "choose one whose image tower gives one feature vector per image"
        )
    size = config["vision_cfg"].get("image_size", 224)
    if not isinstance(size, int) and len(set(size)) > 1:
        raise ConfigError(
            f"architecture {architecture!r} needs {size} images; only squares are prepared"
        )


def _check_surroundings(
    found: Surroundings,
    preprocess: dict[str, Any],
    config: Mapping[str, Any],
    architecture: str,
    what: str,
) -> dict[str, Any]:
    """Check what lies beside some weights; return how it says that images are prepared."""
    if found.declared is not None:
        check_declared(
            found.declared, config, architecture=architecture, what=what, source=found.source
        )
    return cast(dict[str, Any], merge_preprocess_dict(preprocess, dict(found.preprocess)))


def _file_of(architecture: str, pretrained: str, folder: Path | None) -> Path | None:
    if folder is not None:
        shipped = folder / f"{architecture}-{pretrained}.safetensors"
        if shipped.is_file():
            return shipped
    path = Path(pretrained).expanduser()
    # A bare name may be a file's, unless it is a tag.
    named = path.is_file() and not open_clip.get_pretrained_cfg(architecture, pretrained)
    if "/" not in pretrained and path.suffix.lower() not in ENDINGS and not named:
        return None
    if not path.exists() and not path.is_symlink():
        meant = meant_repository(pretrained)
        raise ArtifactError(
            f"weights {pretrained!r} of {architecture!r} do not exist"
            + (f"; a repository of the hub is written {meant!r}" if meant else "; correct the path")
        )
    if kind_of(path) == "pickle":
        raise ConfigError(
            f"weights {pretrained!r} of {architecture!r} are a pickle, not safetensors; convert them "
            "first (taskgrid never unpickles a base; docs/experts.md says how)"
        )
    return path


def _tag_of(
    architecture: str, pretrained: str, config: Mapping[str, Any], folder: Path | None
) -> dict[str, Any]:
    if is_own(architecture):
        raise no_tag(architecture, pretrained)
    tag = cast(dict[str, Any], open_clip.get_pretrained_cfg(architecture, pretrained))
    other = sibling(architecture)
    known = tag or open_clip.get_pretrained_cfg(other, pretrained)
    # Where open_clip has one architecture only, its config is right and the tag's flag says nothing.
    paired = open_clip.get_model_config(other) is not None
    if known and paired and bool(known.get("quick_gelu")) != bool(config.get("quick_gelu")):
        trained, built = (
            ("GELU", "QuickGELU") if config.get("quick_gelu") else ("QuickGELU", "GELU")
        )
        raise LineageError(
            f"the weights {pretrained!r} were trained with {trained}, but architecture "
            f"{architecture!r} computes {built}; use architecture {other!r}"
        )
    if not tag:
        shipped = [] if folder is None else sorted(folder.glob(f"{architecture}-*.safetensors"))
        tags = [path.stem.removeprefix(f"{architecture}-") for path in shipped]
        tags += open_clip.list_pretrained_tags_by_model(architecture)
        raise ConfigError(
            f"architecture {architecture!r} has no pre-trained weights {pretrained!r}; "
            f"{choices(pretrained, tags)} "
            "(or give the path of a safetensors file)"
        )
    return tag


def _build(architecture: str, config: Mapping[str, Any], seed: int | None = None) -> nn.Module:
    values = copy.deepcopy(dict(config))
    custom = values.pop("custom_text", False) or "hf_model_name" in values["text_cfg"]
    # The full checkpoint follows: no tower fetches weights of its own.
    if "timm_model_name" in values["vision_cfg"]:
        values["vision_cfg"]["timm_model_pretrained"] = False
    if "hf_model_name" in values["text_cfg"]:
        values["text_cfg"]["hf_model_pretrained"] = False
    with torch.random.fork_rng(devices=[]):
        if seed is not None:
            torch.manual_seed(seed)
        try:
            return cast(nn.Module, CustomTextCLIP(**values) if custom else CLIP(**values))
        except (AssertionError, ArithmeticError, RuntimeError, TypeError, ValueError) as error:
            raise ConfigError(
                f"architecture {architecture!r} cannot be built ({first_line(error)}); correct its config"
            ) from error


def _load_file(
    model: nn.Module, path: Path, architecture: str, config: Mapping[str, Any], what: str
) -> bool:
    """Load a file into a model; return whether its header says the activation."""
    header, state = read_weights(path, said="weights {} are")
    activation = activation_of(config)
    if header.get("activation", activation) != activation:
        raise LineageError(
            f"{what} were trained with {header['activation']:.40}, but architecture "
            f"{architecture!r} computes {activation}; use the architecture they were made for"
        )
    check_no_adapter(state, f"what {what} hold")
    state = unwrapped(state)
    if is_transformers(state):
        state = clip_to_open_clip(state, what)
    if state and all(key.startswith(_VISUAL) for key in state):
        raise LineageError(
            f"{what} hold an image tower alone; give a whole CLIP, whose text tower makes the heads"
        )
    load_strictly(model, state, what, f"architecture {architecture!r}")
    return "activation" in header


def _download(tag: Mapping[str, Any], name: str) -> str:
    try:
        return cast(str, download_pretrained(dict(tag)))
    except Exception as error:
        # Whatever fails below (DNS, proxy, HTTP, hub cache, disk), the person can do one of two things.
        raise ArtifactError(
            f"{name} cannot be downloaded ({first_line(error)}); connect to the network once, or "
            "give the path of a safetensors file as `pretrained`"
        ) from error


def _load_download(model: nn.Module, path: str, name: str) -> None:
    try:
        open_clip.load_checkpoint(model, path, strict=True, weights_only=True)
    except Exception as error:
        raise ArtifactError(
            f"{name} cannot be loaded from {path} ({first_line(error)}); delete the file to fetch "
            "it again, or choose other weights"
        ) from error


def _describe(
    model: nn.Module,
    architecture: str,
    pretrained: str,
    config: Mapping[str, Any],
    preprocess: PreprocessCfg,
) -> Clip:
    if preprocess.resize_mode != "shortest":
        raise ConfigError(
            f"weights {pretrained!r} of {architecture!r} want images resized with "
            f"{preprocess.resize_mode!r}; only 'shortest' (with a centre crop) is prepared"
        )
    state = model.state_dict()
    visual = {k.removeprefix(_VISUAL): v for k, v in state.items() if k.startswith(_VISUAL)}
    rest = {k: v for k, v in state.items() if not k.startswith(_VISUAL)}
    size = config["vision_cfg"].get("image_size", 224)
    red, green, blue = preprocess.mean
    red_std, green_std, blue_std = preprocess.std
    return Clip(
        model=model,
        tokenizer=_tokenizer_of(architecture, config),
        architecture=architecture,
        pretrained=pretrained,
        config=config,
        image_size=size if isinstance(size, int) else size[0],
        mean=(red, green, blue),
        std=(red_std, green_std, blue_std),
        interpolation=preprocess.interpolation,
        activation=activation_of(config),
        visual_digest=digest_state(visual),
        text_digest=digest_state(rest),
    )


def _tokenizer_of(architecture: str, config: Mapping[str, Any]) -> Any:
    text = config["text_cfg"]
    length, options = text.get("context_length", 77), text.get("tokenizer_kwargs", {})
    try:
        if not is_own(architecture) and open_clip.get_model_config(architecture) is not None:
            return open_clip.get_tokenizer(architecture)
        if name := text.get("hf_tokenizer_name"):
            mode = text.get("tokenizer_mode")
            return HFTokenizer(name, context_length=length, tokenizer_mode=mode, **options)
        return open_clip.SimpleTokenizer(context_length=length, **options)
    except Exception as error:
        # Tokenizers of Hugging Face models are downloads too.
        raise ArtifactError(
            f"the tokenizer of {architecture!r} cannot be loaded ({first_line(error)}); connect to "
            "the network once"
        ) from error
