"""Free directions of a vision transformer: changes of weights that change no output.

Two equal functions can look different in them, so that they are taken out before weights are matched or
distances are measured:

- a key bias shifts all scores of a query alike, which the softmax forgets: it is set to zero;
- a constant added to all channels of the residual stream is what the next LayerNorm takes off: what is
  added to the stream is centred;
- a value bias passes the attention as it is, for its weights add up to one: it is folded into the bias of
  the output.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from taskgrid.store.weights import State


def canonical(state: Mapping[str, torch.Tensor]) -> State:
    """Return the same function with nothing along its free directions.

    Args:
        state: image tower of an open_clip vision transformer.

    Returns:
        all its floating tensors, in float64.
    """
    found = {key: tensor.double() for key, tensor in state.items() if tensor.is_floating_point()}
    for key in [key for key in found if key.endswith("attn.in_proj_bias")]:
        block = key.removesuffix("attn.in_proj_bias")
        out, scaled = f"{block}attn.out_proj", f"{block}ls_1.gamma" in found
        queries, _, values = found[key].chunk(3)
        nothing = torch.zeros_like(values)
        found[key] = torch.cat([queries, nothing, nothing])
        folded = found[f"{out}.bias"] + found[f"{out}.weight"] @ values
        # A gain on a branch stands between what is added here and the stream.
        found[f"{out}.bias"] = folded if scaled else folded - folded.mean()
        if not scaled:
            added = found[f"{block}mlp.c_proj.bias"]
            found[f"{block}mlp.c_proj.bias"] = added - added.mean()
    positions = found["positional_embedding"]
    found["positional_embedding"] = positions - positions.mean(dim=1, keepdim=True)
    return found
