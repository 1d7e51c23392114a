"""Supernets against themselves unfolded: towers run side by side, with every M and U written out."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.func import functional_call
from torch.nn import functional

from taskgrid.alignment.spaces import RES, attention_spaces, mlp_space
from taskgrid.alignment.supernet import Maps, Start, Supernet, place_of, supernet
from taskgrid.errors import LineageError
from taskgrid.store.weights import State
from tests.unit.alignment.test_spaces import features, group_element, moved, tower
from tests.unit.example_models import SIZE

TENSOR = torch.float64


def near(seed: int, size: float = 0.3) -> State:
    """Another tower: the tiny one, with noise."""
    generator = torch.Generator().manual_seed(seed)
    return {
        key: one + size * torch.randn(one.shape, generator=generator, dtype=TENSOR)
        for key, one in tower()[1].items()
    }


def three() -> list[State]:
    return [tower()[1], near(1), near(2)]


def begun(states: list[State], start: Start = "average", rank: int = 3) -> Supernet:
    return supernet(states, start, rank, seed=0, dtype=TENSOR)


def randomised(net: Supernet, seed: int = 5) -> Supernet:
    """Move all that learns far from where it began."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for leaf in net.leaves():
            leaf += 0.2 * torch.randn(leaf.shape, generator=generator, dtype=TENSOR)
    return net


def images() -> torch.Tensor:
    generator = torch.Generator().manual_seed(4)
    return torch.randn(5, 3, SIZE, SIZE, generator=generator).double()


def folded_features(state: State, pixels: torch.Tensor) -> torch.Tensor:
    found: torch.Tensor = functional_call(tower()[0], state, (pixels,))
    return found


def unfolded(net: Supernet, pixels: torch.Tensor) -> torch.Tensor:
    """Features of the stream, ``(B, o)``: nothing of what is folded, every map as a matrix."""
    module, spaces = tower()[0], tower()[2]
    count, heads = len(net.output.diagonal), spaces.heads

    def norm(stream: torch.Tensor, name: str) -> torch.Tensor:
        gain, shift = net.free[f"{name}.weight"], net.free[f"{name}.bias"]
        return functional.layer_norm(stream, stream.shape[-1:], gain, shift)

    def joined(each: list[torch.Tensor], name: str) -> torch.Tensor:
        maps = net.into[name].dense()
        return torch.stack([one @ maps[i].T for i, one in enumerate(each)]).sum(0)

    def split(stream: torch.Tensor, name: str) -> list[torch.Tensor]:
        return [stream @ one.T for one in net.back[name].dense()]

    def linear(each: list[torch.Tensor], key: str, weight: str = ".weight") -> list[torch.Tensor]:
        weights, biases = (
            net.towers[key + weight],
            net.towers[key + weight.replace("weight", "bias")],
        )
        return [functional.linear(one, weights[i], biases[i]) for i, one in enumerate(each)]

    embedded = []
    for i in range(count):
        patches = functional.conv2d(pixels, net.towers["conv1.weight"][i], stride=4)
        patches = patches.flatten(2).transpose(1, 2)
        first = net.towers["class_embedding"][i].expand(len(pixels), 1, -1)
        tokens = torch.cat([first, patches], dim=1)
        embedded.append(tokens + net.towers["positional_embedding"][i])
    stream = norm(joined(embedded, "embedding"), "ln_pre")
    for block in range(spaces.blocks):
        prefix, layer = f"transformer.resblocks.{block}", f"block {block}"
        inner = split(norm(stream, f"{prefix}.ln_1"), f"{layer} qkv")
        thirds = [
            one.chunk(3, dim=-1) for one in linear(inner, f"{prefix}.attn.in_proj", "_weight")
        ]
        q, k, v = (
            joined([one[at] for one in thirds], f"{layer} {name}")
            .unflatten(-1, (heads, -1))
            .transpose(1, 2)
            for at, name in enumerate("qkv")
        )
        weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(dim=-1)
        attended = (weights @ v).transpose(1, 2).flatten(2)
        inner = linear(split(attended, f"{layer} attention_out"), f"{prefix}.attn.out_proj")
        stream = stream + joined(inner, f"{layer} attention_out")
        inner = split(norm(stream, f"{prefix}.ln_2"), f"{layer} mlp_in")
        hidden = joined(linear(inner, f"{prefix}.mlp.c_fc"), f"{layer} mlp_in")
        hidden = module.transformer.resblocks[block].mlp.gelu(hidden)
        inner = linear(split(hidden, f"{layer} mlp_out"), f"{prefix}.mlp.c_proj")
        stream = stream + joined(inner, f"{layer} mlp_out")
    inner = split(norm(stream[:, 0], "ln_post"), "projection")
    ends = [one @ net.towers["proj"][i] for i, one in enumerate(inner)]
    return joined(ends, "projection")


def test_a_supernet_is_the_tower_that_it_folds_into() -> None:
    net = randomised(begun(three()))
    state = net.folded()
    assert {key: one.shape for key, one in state.items()} == {
        key: one.shape for key, one in tower()[1].items()
    }
    with torch.no_grad():
        ours, theirs = folded_features(state, images()), unfolded(net, images())
    assert float(theirs.abs().max()) > 0.1
    torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)
    # And it is none of the towers.
    assert min(float((ours - folded_features(one, images())).abs().max()) for one in three()) > 0.1


def test_its_gradient_is_that_of_the_towers_side_by_side() -> None:
    net = randomised(begun(three()))
    weights = torch.linspace(-1, 1, 12, dtype=TENSOR)
    output = (net.output.diagonal, net.output.left, net.output.right)
    leaves = [one for one in net.leaves() if all(one is not other for other in output)]
    slopes = [
        torch.autograd.grad((made @ weights).square().sum(), leaves)
        for made in (folded_features(net.folded(), images()), unfolded(net, images()))
    ]
    for one, other in zip(*slopes, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_it_begins_with_the_first_tower_exactly() -> None:
    net = begun(three(), "first")
    for key, one in net.folded().items():
        assert torch.equal(one, tower()[1][key]), key
    assert torch.equal(net.output.dense(), torch.eye(12, dtype=TENSOR).expand(3, 12, 12))


@pytest.mark.parametrize("count", [2, 3])
def test_it_begins_with_the_mean_exactly(count: int) -> None:
    states = three()[:count]
    for key, one in begun(states, "average").folded().items():
        mean = torch.stack([state[key] for state in states]).sum(0) / count
        # Halves are no rounding, thirds are.
        torch.testing.assert_close(one, mean, rtol=0, atol=0 if count == 2 else 1e-14)


def test_task_arithmetic_is_a_folded_supernet_over_base_and_experts() -> None:
    share, states = 0.4, three()
    net = begun(states)
    shares = torch.tensor([1 - 2 * share, share, share], dtype=TENSOR)
    with torch.no_grad():
        for maps in net.into.values():
            maps.diagonal.copy_(shares[:, None].expand_as(maps.diagonal))
        for key, one in net.free.items():
            one.copy_(torch.stack([state[key] for state in states]).T @ shares)
    base = states[0]
    for key, one in net.folded().items():
        added = base[key] + share * sum(state[key] - base[key] for state in states[1:])
        torch.testing.assert_close(one, added, rtol=1e-12, atol=1e-12)


def spaces_of_maps() -> tuple[dict[str, str | None], dict[str, str | None]]:
    """The space that each M comes from, and each U reads; None for features, which have none."""
    into: dict[str, str | None] = {"embedding": RES, "projection": None}
    back: dict[str, str | None] = {"projection": RES}
    for block in range(tower()[2].blocks):
        layer = f"block {block}"
        into |= {
            f"{layer} {one}": space
            for one, space in zip("qkv", attention_spaces(block), strict=True)
        }
        into |= {f"{layer} {one}": RES for one in ("attention_out", "mlp_out")}
        into[f"{layer} mlp_in"] = mlp_space(block)
        back |= {f"{layer} {one}": RES for one in ("qkv", "mlp_in")}
        back[f"{layer} attention_out"] = attention_spaces(block)[2]
        back[f"{layer} mlp_out"] = mlp_space(block)
    return into, back


def test_a_renumbered_copy_folds_back_into_the_tower() -> None:
    maps = group_element(tower()[2], 3)
    copy = moved(maps)
    assert not torch.equal(copy["proj"], tower()[1]["proj"])
    into, back = spaces_of_maps()

    def renumbered(space: str | None, size: int) -> torch.Tensor:
        unit = torch.eye(size, dtype=TENSOR)
        return unit if space is None else unit[maps[space]]

    def planted(space: str | None, old: Maps, side: str) -> Maps:
        size = old.diagonal.shape[1]
        unit, change = torch.eye(size, dtype=TENSOR), renumbered(space, size)
        zero = torch.zeros(size, size, dtype=TENSOR)
        if side == "M":
            half = torch.full((size,), 0.5, dtype=TENSOR)
            diagonal = torch.stack([half, torch.zeros_like(half)])
            return Maps(diagonal, unit[None], torch.stack([zero, change.T / 2]))
        ones = torch.ones(size, dtype=TENSOR)
        diagonal = torch.stack([ones, torch.zeros_like(ones)])
        return Maps(diagonal, torch.stack([zero, change]), unit[None])

    net = begun([tower()[1], copy], "first", rank=0)
    net = Supernet(
        net.towers,
        {name: planted(into[name], one, "M") for name, one in net.into.items()},
        {name: planted(back[name], one, "U") for name, one in net.back.items()},
        net.free,
        net.output,
    )
    for key, one in net.folded().items():
        torch.testing.assert_close(one, tower()[1][key], rtol=0, atol=1e-12)
    # The mean without these maps is another function altogether.
    mean = {key: one.detach() for key, one in begun([tower()[1], copy]).folded().items()}
    assert float((features(mean) - features(tower()[1])).abs().max()) > 0.1


def chain(
    inputs: torch.Tensor, layers: list[State], between: Callable[..., torch.Tensor]
) -> torch.Tensor:
    for at, layer in enumerate(layers):
        inputs = functional.linear(inputs, layer["weight"], layer["bias"])
        inputs = between(inputs) if at < len(layers) - 1 else inputs
    return inputs


@pytest.mark.parametrize(("between", "same"), [("relu", True), ("norm", False)])
def test_concatenation_is_a_supernet_of_chains_and_ends_at_a_layernorm(
    between: str, same: bool
) -> None:
    """Chains of unlike units in a wide stream, M = U = I: each has its own units, and others' are zero.

    With elementwise functions between the layers the folded chain gives the outputs of both, side by side. A
    LayerNorm takes mean and variance over all units, those of the other chain too: no concatenation.
    """
    generator = torch.Generator().manual_seed(0)
    sizes = [(7, 4), (4, 4), (4, 3)]

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=TENSOR)

    chains = [
        [{"weight": random(rows, columns), "bias": random(rows)} for columns, rows in sizes]
        for _ in range(2)
    ]

    def wide(layers: list[State], own: int) -> list[State]:
        found = []
        for at, layer in enumerate(layers):
            rows, columns = layer["weight"].shape
            weight = torch.zeros(2 * rows, columns if at == 0 else 2 * columns, dtype=TENSOR)
            bias, start = torch.zeros(2 * rows, dtype=TENSOR), own * rows
            left = 0 if at == 0 else own * columns
            weight[start : start + rows, left : left + columns] = layer["weight"]
            bias[start : start + rows] = layer["bias"]
            found.append({"weight": weight, "bias": bias})
        return found

    def unit(size: int) -> Maps:
        none = torch.zeros(2, size, 0, dtype=TENSOR)
        return Maps(torch.ones(2, size, dtype=TENSOR), none, none.transpose(1, 2))

    each = [wide(layers, own) for own, layers in enumerate(chains)]
    folded = []
    for layers in zip(*each, strict=True):
        weight = torch.stack([layer["weight"] for layer in layers])
        bias = torch.stack([layer["bias"] for layer in layers]).unsqueeze(2)
        into, back = unit(weight.shape[1]), unit(weight.shape[2])
        folded.append(
            {"weight": into.behind(back.before(weight)), "bias": into.behind(bias).squeeze(1)}
        )
    inputs = random(6, 7)

    def norm(values: torch.Tensor) -> torch.Tensor:
        return functional.layer_norm(values, values.shape[-1:])

    function = torch.relu if between == "relu" else norm
    both = torch.cat([chain(inputs, layers, function) for layers in chains], dim=1)
    error = float((chain(inputs, folded, function) - both).abs().max())
    assert error < 1e-12 if same else error > 0.1


def test_one_seed_gives_the_same_bits_and_another_one_others() -> None:
    one, same, other = (supernet(three(), "first", 2, seed) for seed in (0, 0, 1))
    pairs = zip(one.leaves(), same.leaves(), other.leaves(), strict=True)
    equal = [(torch.equal(a, b), torch.equal(a, c)) for a, b, c in pairs]
    assert all(again for again, _ in equal) and not all(kept for _, kept in equal)
    assert {leaf.dtype for leaf in one.leaves()} == {torch.float32}


def test_what_is_no_linear_layer_of_a_vision_transformer_is_refused() -> None:
    assert place_of("transformer.resblocks.0.ls_1.gamma", 1) is None
    with pytest.raises(LineageError, match=r"'layer1\.0\.conv1\.weight' is of none of them"):
        place_of("layer1.0.conv1.weight", 4)
