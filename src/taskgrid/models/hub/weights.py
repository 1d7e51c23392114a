"""Weights that others made: read as what they are, one file or shards, or refused in one sentence."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import torch
from safetensors import SafetensorError, safe_open

from taskgrid.errors import ArtifactError, LineageError
from taskgrid.models.hub.unpickle import load_tensors
from taskgrid.store.foreign import kind_of
from taskgrid.store.index import read_index, whole
from taskgrid.store.weights import HEADER, State, digest_state, parse_lineage

_DTYPES: Final = frozenset(
    {
        torch.float64,
        torch.float32,
        torch.float16,
        torch.bfloat16,
        torch.float8_e4m3fn,
        torch.float8_e5m2,
        torch.int64,
        torch.int32,
        torch.int16,
        torch.int8,
        torch.uint8,
        torch.bool,
    }
)
_MOST_SIDES: Final = 64

# What trainers and compilers put around a model.
_WRAPPER: Final = re.compile(
    r"(?:module|_orig_mod|_forward_module|_fsdp_wrapped_module|state_dict|model_state_dict|model"
    r"|clip|clip_model|net|network)\."
)
_CONTAINER: Final = re.compile(r"(?:model_)?state_dict\.")
_ADAPTER: Final = re.compile(
    r"(?:^|[._])(?:(?P<lora>lora_(?:A|B|down|up|embedding_[AB]|magnitude_vector))|ia3_l|hada_w\d"
    r"|lokr_w\d|oft_[rR]|vera_lambda_[bd]|prompt_embeddings)(?:[._]|$)"
)


def read_weights(path: Path, *, said: str = "{} is") -> tuple[dict[str, str], State]:
    """Return the texts in the header and the tensors of a file, or of all shards of its index.

    Args:
        path: safetensors, an index of shards, one of several shards, or a pickle; links are followed,
            and endings count for nothing.
        said: how a sentence about a damaged file begins.

    Raises:
        ArtifactError: if the file is damaged, no weights, or a pickle that asks for more than tensors.
    """
    path = whole(path)
    texts, state = (_read_shards if kind_of(path) == "index" else _read_file)(path, said)
    # What this project wrote says what its tensors are.
    stated = parse_lineage(path, texts[HEADER])["digest"] if HEADER in texts else None
    if stated is not None and digest_state(state) != stated:
        raise ArtifactError(
            f"{said.format(path)} damaged (its tensors have another digest than its header says); fetch "
            "or build the file again"
        )
    return texts, state


def _read_shards(path: Path, said: str) -> tuple[dict[str, str], State]:
    index = read_index(path)
    texts: dict[str, str] = {}
    state: State = {}
    for file in index.files:
        header, held = _read_file(file, said)
        # A shard's lineage is its own.
        texts |= {key: text for key, text in header.items() if key != HEADER}
        state |= {
            name: tensor for name, tensor in held.items() if index.shards.get(name) == file.name
        }
    for name, holder in index.shards.items():
        if name not in state:
            raise ArtifactError(
                f"{path} says that {holder} holds {name!r:.200}, but it does not; fetch or build the "
                "checkpoint again"
            )
    texts |= {key: str(text) for key, text in index.metadata.items() if key == HEADER}
    return texts, state


def _read_file(path: Path, said: str) -> tuple[dict[str, str], State]:
    if kind_of(path) == "pickle":
        return {}, load_tensors(path)
    return _read_safetensors(path, said)


def _read_safetensors(path: Path, said: str) -> tuple[dict[str, str], State]:
    state: State = {}
    try:
        with safe_open(str(path), framework="pt") as stream:
            header = dict(stream.metadata() or {})
            for name in stream.keys():  # noqa: SIM118
                state[name] = stream.get_tensor(name)
    # A shape that no tensor can have is found by torch alone.
    except (SafetensorError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise ArtifactError(
            f"{said.format(path)} damaged ({first_line(error)}); fetch or build the file again"
        ) from error
    for name, tensor in state.items():
        if tensor.dtype not in _DTYPES or tensor.dim() > _MOST_SIDES:
            kind = str(tensor.dtype).removeprefix("torch.")
            raise ArtifactError(
                f"{path} holds {name!r:.200} as {kind} with {tensor.dim()} sides, which is not supported; "
                "save it in float32 or float16 where it was made"
            )
    return header, state


def unwrapped(state: Mapping[str, torch.Tensor]) -> State:
    """Return a state without what trainers put before all of its names (``module.``, ...).

    Where there is a ``state_dict``, what lies beside it is a training's and left out.
    """
    found = {key: tensor for key, tensor in state.items() if _CONTAINER.match(key)} or dict(state)
    while found:
        prefix = _WRAPPER.match(min(found))
        if prefix is None or not all(key.startswith(prefix[0]) for key in found):
            break
        found = {key.removeprefix(prefix[0]): tensor for key, tensor in found.items()}
    return found


def check_no_adapter(keys: Iterable[str], what: str) -> None:
    """Refuse a file of changes to a model, such as LoRA's factors.

    Raises:
        LineageError: says what it is and what to do.
    """
    for key in keys:
        found = _ADAPTER.search(key)
        if found:
            raise LineageError(
                adapter_sentence(what, "a LoRA adapter" if found["lora"] else "an adapter")
            )


def adapter_sentence(what: str, kind: str = "a LoRA adapter") -> str:
    """Return what is said of a file or folder that holds an adapter."""
    return (
        f"{what} is {kind}: changes to a model, not a model; merge it into its base where it was made "
        "(peft: `merge_and_unload()`, then `save_pretrained`), and give that checkpoint"
    )


def check_finite(state: Mapping[str, torch.Tensor], what: str, remedy: str) -> None:
    """Refuse weights that hold NaN or infinity.

    Args:
        state: the tensors.
        what: what the message calls them, with a verb: ``weights 'openai' have``.
        remedy: what to do.

    Raises:
        LineageError: names the first tensor.
    """
    for key, tensor in state.items():
        if not torch.isfinite(tensor).all():
            raise LineageError(f"{what} values in {key!r:.200} that are no numbers; {remedy}")


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, short."""
    text = str(error).strip() or type(error).__name__
    return re.sub(r"\s+", " ", text.splitlines()[0])[:200]
