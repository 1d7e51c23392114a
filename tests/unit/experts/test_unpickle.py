"""Pickled checkpoints: their tensors come out, and nothing that they carry is run."""

from __future__ import annotations

import argparse
import codecs
import copyreg
import datetime as dt
import functools
import io
import os
import pickle
import struct
import subprocess
import sys
import types
import uuid
import warnings
import zipfile
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.model import CLIP
from torch import nn

from taskgrid.errors import ArtifactError
from taskgrid.experts.unpickle import load_tensors
from tests.unit.example_models import tiny_config

BOTH = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])


def saved(path: Path, value: Any, zipped: bool = True) -> Path:
    torch.save(value, path, _use_new_zipfile_serialization=zipped)
    return path


def same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    return found.keys() == expected.keys() and all(
        found[key].dtype == expected[key].dtype and torch.equal(found[key], expected[key])
        for key in expected
    )


# --- what is read --------------------------------------------------------------------------------


@BOTH
def test_a_state_dict_comes_out_as_torch_reads_it(tmp_path: Path, zipped: bool) -> None:
    state = CLIP(**tiny_config()).state_dict()
    assert same(load_tensors(saved(tmp_path / "a.pt", state, zipped)), state)


@BOTH
@pytest.mark.parametrize(
    "dtype",
    [
        "float64",
        "float32",
        "float16",
        "bfloat16",
        "int64",
        "int32",
        "int16",
        "int8",
        "uint8",
        "bool",
    ],
)
def test_every_dtype(tmp_path: Path, zipped: bool, dtype: str) -> None:
    kind = getattr(torch, dtype)
    state = {"a": torch.arange(12).reshape(3, 4).to(kind), "none": torch.zeros(0, 3, dtype=kind)}
    assert same(load_tensors(saved(tmp_path / "a.pt", state, zipped)), state)


@BOTH
def test_views_and_shared_storages(tmp_path: Path, zipped: bool) -> None:
    whole = torch.arange(24.0).reshape(4, 6)
    state = {
        "whole": whole,
        "transposed": whole.T,
        "part": whole[1:3, ::2],
        "again": whole,
        "scalar": whole[2, 3],
        "wide": whole[:1].expand(5, 6),
    }
    found = load_tensors(saved(tmp_path / "a.pt", state, zipped))
    assert same(found, state)
    assert all(tensor.is_contiguous() for tensor in found.values())
    found["whole"].zero_()
    assert torch.equal(found["again"], whole)


@settings(max_examples=30)
@given(
    shape=st.lists(st.integers(0, 4), max_size=4),
    order=st.randoms(use_true_random=False),
    zipped=st.booleans(),
)
def test_any_layout_of_a_tensor(
    tmp_path_factory: pytest.TempPathFactory, shape: list[int], order: Any, zipped: bool
) -> None:
    axes = list(range(len(shape)))
    order.shuffle(axes)
    tensor = torch.randn([*shape, 2])[..., 1].permute(axes)
    path = saved(tmp_path_factory.mktemp("layout") / "a.pt", {"a": tensor}, zipped)
    assert torch.equal(load_tensors(path)["a"], tensor)


@BOTH
def test_tensors_are_found_in_mappings_lists_and_settings(tmp_path: Path, zipped: bool) -> None:
    value = {
        "epoch": 3,
        "name": "run",
        "state_dict": OrderedDict(a=nn.Parameter(torch.ones(2)), b=torch.zeros(1)),
        "list": [torch.ones(1), (torch.ones(2), None)],
        "dtype": torch.float16,
        "size": torch.Size([2, 3]),
        7: torch.ones(3),
    }
    found = load_tensors(saved(tmp_path / "a.pt", value, zipped))
    assert found.keys() == {"state_dict.a", "state_dict.b", "list.0", "list.1.0", "7"}


def marked(parameter: nn.Parameter) -> nn.Parameter:
    parameter.mark = "an attribute"  # type: ignore[attr-defined]
    return parameter


def test_parameters_with_attributes(tmp_path: Path) -> None:
    state = {"a": marked(nn.Parameter(torch.arange(3.0)))}
    assert torch.equal(load_tensors(saved(tmp_path / "a.pt", state))["a"], torch.arange(3.0))


@pytest.fixture
def modeling() -> Iterator[types.ModuleType]:
    """The module ``src.modeling`` of a stranger's project, there while the test pickles."""

    class ImageEncoder(nn.Module):
        def __init__(self, model: nn.Module, transform: Any) -> None:
            super().__init__()
            self.model = model
            self.train_preprocess = self.val_preprocess = transform
            self.cache_dir = None
            del self.model.transformer

    package, module = types.ModuleType("src"), types.ModuleType("src.modeling")
    ImageEncoder.__module__, ImageEncoder.__qualname__ = "src.modeling", "ImageEncoder"
    module.ImageEncoder = ImageEncoder  # type: ignore[attr-defined]
    package.modeling = module  # type: ignore[attr-defined]
    assert "src" not in sys.modules
    sys.modules |= {"src": package, "src.modeling": module}
    yield module
    forget()


def forget() -> None:
    for name in ("src", "src.modeling"):
        sys.modules.pop(name, None)


@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
@BOTH
def test_a_pickled_image_encoder_has_the_names_of_its_state_dict(
    tmp_path: Path, modeling: types.ModuleType, zipped: bool
) -> None:
    import open_clip

    clip = CLIP(**tiny_config(quick_gelu=True))
    clip.register_buffer("kept", torch.arange(4), persistent=True)
    encoder = modeling.ImageEncoder(clip, open_clip.image_transform(8, is_train=True))
    path = saved(tmp_path / "finetuned.pt", encoder, zipped)
    expected = encoder.state_dict()
    # attn_mask is a buffer that no state_dict holds; a transform is no part of a model.
    assert "model.attn_mask" not in expected
    # Nobody who reads the file has the project that wrote it.
    forget()
    found = load_tensors(path)
    assert same(found, expected)
    assert "src" not in sys.modules


@BOTH
def test_members_of_enumerations_as_older_pythons_write_them(tmp_path: Path, zipped: bool) -> None:
    from torchvision.transforms import InterpolationMode

    mode = Calls(getattr, InterpolationMode, "BICUBIC")
    path = saved(tmp_path / "old.pt", {"mode": mode, "weight": torch.ones(2)}, zipped)
    assert same(load_tensors(path), {"weight": torch.ones(2)})


def test_lists_of_parameters_and_partials(tmp_path: Path) -> None:
    module = nn.Module()
    module.params = nn.ParameterList([nn.Parameter(torch.full((2,), float(i))) for i in range(12)])
    module.act = functools.partial(nn.functional.gelu, approximate="tanh")  # type: ignore[assignment]
    found = load_tensors(saved(tmp_path / "a.pt", module))
    assert same(found, module.state_dict())


# --- plain pickles, and what lies beside weights --------------------------------------------------


@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_plain_pickle_of_an_encoder(
    tmp_path: Path, modeling: types.ModuleType, protocol: int
) -> None:
    # As one of the papers' published encoders is: each tensor holds the bytes of a torch.save.
    encoder = modeling.ImageEncoder(CLIP(**tiny_config()), None)
    path = tmp_path / "finetuned.pt"
    path.write_bytes(pickle.dumps(encoder, protocol))
    expected = encoder.state_dict()
    forget()
    assert same(load_tensors(path), expected)
    assert "src" not in sys.modules


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_views_in_a_plain_pickle(tmp_path: Path, protocol: int) -> None:
    whole = torch.arange(24.0).reshape(4, 6)
    state = {"t": whole.T, "part": whole[1:3, ::2], "half": whole.half(), "none": torch.zeros(0, 3)}
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(state, protocol))
    found = load_tensors(path)
    assert same(found, state)
    assert all(tensor.is_contiguous() for tensor in found.values())


BESIDE = {
    "best_acc": np.float64(0.93),
    "scalars": [np.float32(0.5), np.int64(3), np.bool_(True)],
    "arrays": {"confusion": np.eye(3), "names": np.array(["a", "b"])},
    "metrics": defaultdict(list, {"acc": [0.1, 0.2]}),
    "counts": Counter("aab"),
    "last": deque([1, 2], maxlen=4),
    "paths": [PurePosixPath("a"), Path("b"), PureWindowsPath("c")],
    "times": [dt.datetime(2024, 1, 2, tzinfo=dt.UTC), dt.date(2024, 1, 2), dt.timedelta(1)],
    "settings": argparse.Namespace(lr=1e-5, out=Path("x")),
    "plain": [
        types.SimpleNamespace(a=1),
        1 + 2j,
        range(3),
        {1},
        frozenset({2}),
        b"x",
        uuid.UUID(int=1),
    ],
    "exact": [Decimal("1.5"), Fraction(1, 3)],
    "keys": {(1, 2): 3, 1.5: 4, None: 5},
    "random": [np.random.default_rng(0), np.random.RandomState(0), np.random.get_state()],
    "torch": [torch.device("cpu"), torch.float16, torch.Size([2]), torch.strided],
    "optimiser": torch.optim.AdamW([nn.Parameter(torch.ones(2))]),
}


@pytest.mark.parametrize("name", sorted(BESIDE))
@pytest.mark.parametrize("form", ["zip", "legacy", "plain"])
def test_values_beside_weights_are_left_out(tmp_path: Path, name: str, form: str) -> None:
    state = {"a": torch.arange(3.0)}
    path = tmp_path / "last.ckpt"
    if form == "plain":
        path.write_bytes(pickle.dumps({"state_dict": state, name: BESIDE[name]}))
    else:
        saved(path, {"state_dict": state, name: BESIDE[name]}, form == "zip")
    found = load_tensors(path)
    assert torch.equal(found.pop("state_dict.a"), state["a"])
    assert all(key.startswith("optimiser.") for key in found)


def test_weights_in_other_mappings(tmp_path: Path) -> None:
    state = {"a": torch.ones(2), "b": torch.zeros(1)}
    for value in (defaultdict(None, state), OrderedDict(state)):
        assert same(load_tensors(saved(tmp_path / "a.pt", value)), state)


def test_several_pickles_in_a_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"a": torch.ones(1)}) + pickle.dumps({"b": 1}))
    with pytest.raises(ArtifactError, match="more than one pickle"):
        load_tensors(tmp_path / "a.pkl")


# --- what is refused -----------------------------------------------------------------------------

SENTINEL = "TASKGRID_TEST_SENTINEL"


def touch() -> None:
    """What an attack does if it succeeds."""
    Path(os.environ[SENTINEL]).touch()


class Calls:
    """Calls something when it is unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.reduced = (function, arguments)

    def __reduce__(self) -> Any:
        return self.reduced


class Restores:
    """Runs code of its own when its state is put back."""

    def __getstate__(self) -> dict[str, int]:
        return {"a": 1}

    def __setstate__(self, state: Any) -> None:
        touch()


class Module(nn.Module):
    """A module that runs code when its state is put back."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))

    def __setstate__(self, state: Any) -> None:
        touch()


class Carrier(nn.Module):
    """A module with something in it."""

    def __init__(self, cargo: Any) -> None:
        super().__init__()
        self.cargo = cargo


class Metaclass(type):
    """Runs code when one of its classes is called."""

    def __call__(cls, *arguments: Any) -> Any:
        touch()
        return super().__call__(*arguments)


class Made(metaclass=Metaclass):
    """Runs code when it is made."""


def attacks(target: Path) -> dict[str, tuple[Any, str]]:
    """Contents of a file, and the name that each is refused for."""
    shell = Calls(os.system, f"touch {target}")
    system = f"{os.system.__module__}.system"
    here = __name__
    return {
        "os.system": ({"a": shell}, system),
        "eval": ({"a": Calls(eval, f"open({str(target)!r}, 'w')")}, "builtins.eval"),
        "exec": ({"a": Calls(exec, f"open({str(target)!r}, 'w')")}, "builtins.exec"),
        "getattr": ({"a": Calls(getattr, "os", "system")}, "builtins.getattr"),
        "open": ({"a": Calls(open, str(target), "w")}, "open"),
        "path": ({"a": Calls(Path.touch, target)}, "pathlib."),
        "nested": (OrderedDict(a=OrderedDict(b=[(shell,)])), system),
        "as key": ({Calls(hash, "x"): torch.ones(1), "b": shell}, system),
        "state": ({"a": Restores()}, f"{here}.Restores"),
        "module": (Module(), f"{here}.Module"),
        "in a module": (Carrier(shell), system),
        "metaclass": ({"a": Calls(Made)}, f"{here}.Made"),
        "copyreg": ({"a": Calls(copyreg._reconstructor, Made, object, None)}, "copyreg."),
        "functools": ({"a": Calls(functools.cmp_to_key, print)}, "functools.cmp_to_key"),
        "import": ({"a": Calls(__import__, "os")}, "builtins.__import__"),
        "torch.load": ({"a": Calls(torch.load, str(target))}, "torch.serialization.load"),
        "hook": ({"a": Calls(torch.hub.load, "x", "y")}, "torch.hub.load"),
    }


NAMES = sorted(attacks(Path("x")))


@pytest.fixture
def sentinel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "sentinel"
    monkeypatch.setenv(SENTINEL, str(path))
    return path


@BOTH
@pytest.mark.parametrize("name", NAMES)
def test_code_in_a_checkpoint_is_named_and_not_run(
    tmp_path: Path, sentinel: Path, name: str, zipped: bool
) -> None:
    content, asked = attacks(sentinel)[name]
    path = saved(tmp_path / "evil.pt", content, zipped)
    with pytest.raises(ArtifactError, match="nothing of it was run") as caught:
        load_tensors(path)
    assert asked in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not sentinel.exists()


@pytest.mark.parametrize("name", ["os.system", "state", "module", "metaclass", "eval"])
def test_the_attacks_work_where_pickles_are_trusted(
    tmp_path: Path, sentinel: Path, name: str
) -> None:
    # Else the test above would pass for want of an attack.
    path = saved(tmp_path / "evil.pt", attacks(sentinel)[name][0])
    torch.load(path, weights_only=False)
    assert sentinel.exists()


def test_everything_that_was_asked_for_is_listed(tmp_path: Path, sentinel: Path) -> None:
    content = {
        "w": torch.ones(1),
        **{name: value for name, (value, _) in attacks(sentinel).items()},
    }
    with pytest.raises(ArtifactError) as caught:
        load_tensors(saved(tmp_path / "evil.pt", content))
    for _, asked in attacks(sentinel).values():
        assert asked in str(caught.value)
    assert "_rebuild_tensor_v2" not in str(caught.value)


def raw(path: Path, program: bytes) -> Path:
    """Write an archive of torch.save's form around a hand-made pickle."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", program)
        archive.writestr("archive/version", b"3\n")
        archive.writestr("archive/data/0", bytes(16))
    return path


def test_names_hidden_behind_dots_mean_nothing(tmp_path: Path, sentinel: Path) -> None:
    # Protocol 4 resolves "os.system" inside a module that is allowed.
    program = (
        b"\x80\x04\x8c\x08torch.nn\x8c\x11modules.os.system\x93\x8c"
        + bytes([len(f"touch {sentinel}")])
        + f"touch {sentinel}".encode()
        + b"\x85R."
    )
    assert load_tensors(raw(tmp_path / "a.pt", program)) == {}
    assert not sentinel.exists()


def test_attributes_cannot_be_put_on_what_is_lent(tmp_path: Path) -> None:
    # BUILD with (None, {"function": ...}) sets attributes on any object that takes them.
    for name in (b"collections\nOrderedDict\n", b"torch\nSize\n", b"torch\nFloatStorage\n"):
        program = b"\x80\x02c" + name + b"N}X\x08\x00\x00\x00functionK\x01s\x86b."
        with pytest.raises(ArtifactError, match="damaged"):
            load_tensors(raw(tmp_path / "a.pt", program))
    state = {"a": torch.arange(3.0)}
    assert same(load_tensors(saved(tmp_path / "b.pt", state)), state)


def test_extension_codes_are_refused_even_if_the_process_knows_them(
    tmp_path: Path, sentinel: Path
) -> None:
    code = 240
    copyreg.add_extension(__name__, "touch", code)
    try:
        program = b"\x80\x02\x82" + bytes([code]) + b")R."
        pickle.loads(program)
        assert sentinel.exists()
        sentinel.unlink()
        with pytest.raises(ArtifactError, match="extension code 240"):
            load_tensors(raw(tmp_path / "a.pt", program))
        assert not sentinel.exists()
    finally:
        copyreg.remove_extension(__name__, "touch", code)
        copyreg._extension_cache.clear()  # type: ignore[attr-defined]


def tensor_program(count: int, offset: int, size: int, stride: int) -> bytes:
    """A pickle of one float32 tensor whose storage is the archive's 16 bytes."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: Any) -> Any:
            if isinstance(value, torch.UntypedStorage):
                return ("storage", torch.FloatStorage, "0", "cpu", count)
            return None

    stream = io.BytesIO()
    build = Calls(
        torch._utils._rebuild_tensor_v2,
        torch.UntypedStorage(0),
        offset,
        (size,),
        (stride,),
        False,
        OrderedDict(),
    )
    Pickler(stream, 2).dump({"a": build})
    return stream.getvalue()


def test_a_tensor_stays_within_its_storage(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    assert load_tensors(raw(path, tensor_program(4, 1, 3, 1)))["a"].tolist() == [0, 0, 0]
    assert load_tensors(raw(path, tensor_program(4, 9, 0, 1)))["a"].shape == (0,)
    for count, offset, size, stride in [(4, 2, 3, 1), (4, 0, 2, 4), (4, 4, 1, 0), (4, -1, 1, 1)]:
        with pytest.raises(ArtifactError, match=r"reaches beyond|impossible shape"):
            load_tensors(raw(path, tensor_program(count, offset, size, stride)))
    for count in (3, 5):
        with pytest.raises(ArtifactError, match="another size than its tensors"):
            load_tensors(raw(path, tensor_program(count, 0, 1, 1)))
    with pytest.raises(ArtifactError, match="larger than the file"):
        load_tensors(raw(path, tensor_program(1 << 40, 0, 1, 1)))


def storage_in_bytes(content: bytes) -> Calls:
    return Calls(torch.storage._load_from_bytes, content)


def tensor_of(storage: Any, size: int, stride: int) -> Calls:
    return Calls(
        torch._utils._rebuild_tensor_v2, storage, 0, (size,), (stride,), False, OrderedDict()
    )


@pytest.mark.parametrize("form", ["plain", "in bytes"])
def test_code_in_plain_pickles_is_named_and_not_run(
    tmp_path: Path, sentinel: Path, form: str
) -> None:
    for content, asked in attacks(sentinel).values():
        inner = pickle.dumps(content)
        if form == "in bytes":
            inner = pickle.dumps({"a": tensor_of(storage_in_bytes(inner), 1, 1)})
        (tmp_path / "evil.pkl").write_bytes(inner)
        with pytest.raises(ArtifactError, match="nothing of it was run") as caught:
            load_tensors(tmp_path / "evil.pkl")
        # A storage may hold no other: where it comes first, it is what is named.
        assert asked in str(caught.value) or "._load_from_bytes" in str(caught.value)
        assert not sentinel.exists()


def bombs(folder: Path) -> list[Path]:
    """Files of a few MB that ask for gigabytes."""
    count = 1 << 18
    storage = storage_in_bytes(torch.ones(count).__reduce_ex__(2)[1][0].__reduce__()[1][0])
    text, many, numbers = "é" * (4 * count), dict.fromkeys(range(20_000)), [*range(20_000)]
    key = "k" * count
    contents: dict[str, Any] = {
        "copies": {f"a{i}": tensor_of(storage, count, 1) for i in range(20_000)},
        "strides": {"a": tensor_of(storage, 1 << 40, 0)},
        "text": [Calls(codecs.encode, text, "latin1") for _ in range(10_000)],
        "names": {key: {key: [{key: [torch.ones(1)] * 3_000}] * 3_000}},
        "bytes": {"a": Calls(bytearray, 20 << 30)},
        "dicts": [Calls(OrderedDict, many) for _ in range(20_000)],
        "sets": [Calls(set, numbers) for _ in range(20_000)],
        "keys": {(key, *[key] * 100_000): torch.ones(1)},
        "range": {"a": Calls(list, range(1 << 40))},
        "nested": {"a": storage_in_bytes(pickle.dumps(storage, 2))},
    }
    paths = []
    for name, content in contents.items():
        paths.append(folder / f"{name}.pkl")
        paths[-1].write_bytes(pickle.dumps(content, 2 if name == "text" else 4))
    # One long name of a module, and a short one of each of its classes.
    module = b"\x80\x04X" + struct.pack("<I", count) + b"m" * count + b"\x940"
    classes = b"".join(b"h\0\x8c\x05%05d\x930" % number for number in range(20_000))
    for name, program in {
        "modules": module + classes + b"N.",
        "classes": b"\x80\x04" + b"".join(b"csrc\n%d\n0" % n for n in range(20_000)) + b"N.",
        "empty": b"\x80\x04(" + b"}" * (3 << 20) + b"l.",
        "tensors": pickle.dumps([torch.ones(1)] * 150_000),
        "BINBYTES8": b"\x80\x04\x8e" + struct.pack("<Q", 20 << 30) + b"abc.",
        "BYTEARRAY8": b"\x80\x05\x96" + struct.pack("<Q", 20 << 30) + b"abc.",
        "FRAME": b"\x80\x04\x95" + struct.pack("<Q", 20 << 30) + b"N.",
    }.items():
        paths.append(folder / f"{name}.pkl")
        paths[-1].write_bytes(program)
    paths.append(raw(folder / "strides.pt", tensor_program(4, 0, 1 << 40, 0)))
    with zipfile.ZipFile(folder / "packed.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", tensor_program(64 << 20, 0, 64 << 20, 1))
        archive.writestr("archive/data/0", bytes(256 << 20))
    return [*paths, folder / "packed.pt"]


_BOUNDED = """
import resource, sys
from taskgrid.errors import ArtifactError
from taskgrid.experts.unpickle import load_tensors
used = [line for line in open("/proc/self/status") if line.startswith("VmSize")][0]
resource.setrlimit(resource.RLIMIT_AS, (int(used.split()[1]) * 1024 + (1 << 30),) * 2)
for path in sys.argv[1:]:
    try:
        load_tensors(path)
    except ArtifactError as error:
        print(path, str(error).replace("\\n", "NEWLINE"))
    else:
        print(path, "was read")
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="measures by /proc")
def test_bombs_stay_below_a_gigabyte(tmp_path: Path) -> None:
    paths = bombs(tmp_path)
    before = sorted(tmp_path.iterdir())
    child = subprocess.run(
        [sys.executable, "-c", _BOUNDED, *map(str, paths)], capture_output=True, text=True
    )
    assert child.returncode == 0, child.stderr
    lines = child.stdout.splitlines()
    assert len(lines) == len(paths) and "NEWLINE" not in child.stdout
    assert "MemoryError" not in child.stdout
    said = {Path(line.split()[0]).name: line for line in lines}
    assert [name for name, line in said.items() if line.endswith("was read")] == ["keys.pkl"]
    for name in ("copies.pkl", "strides.pkl", "strides.pt"):
        assert "they repeat each other" in said[name]
    assert "compressed" in said["packed.pt"]
    assert "name without end" in said["names.pkl"]
    for name in ("modules.pkl", "classes.pkl"):
        assert "names without end" in said[name]
    for name in ("dicts.pkl", "sets.pkl"):
        assert "copies more objects" in said[name]
    assert "makes more objects" in said["empty.pkl"]
    assert "more tensors" in said["tensors.pkl"]
    assert "torch.storage._load_from_bytes" in said["nested.pkl"]
    assert sorted(tmp_path.iterdir()) == before


def test_endless_structures_come_to_an_end(tmp_path: Path) -> None:
    loop: list[Any] = [torch.ones(2)]
    loop.append(loop)
    assert load_tensors(saved(tmp_path / "loop.pt", loop)).keys() == {"0"}
    bomb: list[Any] = []
    for _ in range(40):
        bomb = [bomb, bomb]
    with pytest.raises(ArtifactError, match="contain each other"):
        load_tensors(saved(tmp_path / "bomb.pt", bomb))
    deep = b"\x80\x02" + 5000 * b"](" + b"N" + 5000 * b"e" + b"."
    with pytest.raises(ArtifactError, match="damaged"):
        load_tensors(raw(tmp_path / "deep.pt", deep))
    # Room for 2**32 memo entries would be 32 GB.
    many = b"\x80\x02Nr" + struct.pack("<I", (1 << 32) - 1) + b"."
    with pytest.raises(ArtifactError, match="more objects than it can hold"):
        load_tensors(raw(tmp_path / "many.pt", many))


def test_equal_names_are_refused(tmp_path: Path) -> None:
    value = {"a.b": torch.ones(1), "a": {"b": torch.zeros(1)}}
    with pytest.raises(ArtifactError, match=r"two of its tensors are called 'a\.b'"):
        load_tensors(saved(tmp_path / "a.pt", value))


@BOTH
@pytest.mark.parametrize("keep", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_truncated_files_are_refused(tmp_path: Path, zipped: bool, keep: float) -> None:
    path = saved(tmp_path / "a.pt", {"a": torch.randn(2000)}, zipped)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(ArtifactError, match=r"a\.pt is damaged") as caught:
        load_tensors(path)
    assert "\n" not in str(caught.value)


def test_a_changed_byte_is_noticed(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pt", {"a": torch.zeros(2000)})
    content = bytearray(path.read_bytes())
    content[content.index(bytes(4000)) + 2000] = 1
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match="damaged"):
        load_tensors(path)


@functools.cache
def whole(zipped: bool) -> bytes:
    """Return a file's bytes; the older format writes addresses, so that no two are of one length."""
    stream = io.BytesIO()
    value = {"a": [torch.arange(3.0)], "b": 1}
    torch.save(value, stream, _use_new_zipfile_serialization=zipped)
    return stream.getvalue()


@settings(max_examples=150)
@given(data=st.data(), zipped=st.booleans())
def test_no_garbage_makes_it_do_anything_else(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, zipped: bool
) -> None:
    folder = tmp_path_factory.mktemp("garbage")
    content = bytearray(whole(zipped))
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (folder / "a.pt").write_bytes(content)
    try:
        load_tensors(folder / "a.pt")
    except ArtifactError as error:
        assert "\n" not in str(error)


def test_other_files_are_told_apart(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(nn.Linear(2, 2)).save(str(tmp_path / "script.pt"))
    with pytest.raises(ArtifactError, match="TorchScript"):
        load_tensors(tmp_path / "script.pt")
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps({"a": 1}, 2))
    with pytest.raises(ArtifactError, match=r"no file of torch\.save"):
        load_tensors(tmp_path / "plain.pkl")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("a.txt", "b")
    with pytest.raises(ArtifactError, match=r"no archive of torch\.save"):
        load_tensors(tmp_path / "other.zip")
    with pytest.raises(ArtifactError, match="is missing"):
        load_tensors(tmp_path / "absent.pt")
