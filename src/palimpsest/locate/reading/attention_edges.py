"""Cutting edges of attention: the last token of a prompt cannot look at chosen columns, in chosen layers and rows.

The masks that a network hands to its own attention modules are changed on their way in, so heads, rotary angles, biases and
caches stay its own. A blocked score gets the least number of its precision before the softmax, which leaves exactly no weight.
A network whose masks cannot be reached, or that does not obey them, is refused and never silently left whole.
"""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from palimpsest.errors import AnatomyError
from palimpsest.locate.precision import at_least_float32
from palimpsest.model import Model, align
from palimpsest.model.anatomy import Layer


def check_attention_obeys(model: Model, ids: Sequence[int]) -> None:
    """Prove that this network's attention obeys the masks it is given.

    A last token that may look at nothing but itself, in every layer, cannot tell one prompt from another: its logits after
    `ids` and after the same tokens in reverse must be equal. Where attention ignores the mask, they are not.

    Raises:
        AnatomyError: they differ, or no mask can be given.
    """
    last = len(ids) - 1
    batch = align([tuple(ids), (*reversed(ids[:last]), ids[last])], [0, 0]).to(model.device)
    if torch.equal(batch.ids[0], batch.ids[1]):  # a palindrome proves nothing
        batch.ids[1, :last] = (batch.ids[1, :last] + 1) % model.anatomy.embedding.weight.shape[0]  # type: ignore[index]
    (prefix,) = model.run_prefixes(batch, [last])
    blocked = torch.zeros(model.n_layers, 2, last + 1, dtype=torch.bool, device=model.device)
    blocked[:, :, :last] = True
    at = torch.full((2, 1), last, device=model.device)
    with attention_blocked(model, blocked):
        one, other = at_least_float32(model.run(batch, prefix=prefix, at=at)[:, 0])
    spread = float((one - one.mean()).abs().max())
    if not float((one - other).abs().max()) <= 1e-2 * spread:
        raise AnatomyError(
            f"{type(model.net).__name__} does not obey the attention masks it is given, so no edge of it can be knocked out; "
            f"load it with attn_implementation='eager' or use another instrument."
        )


@contextmanager
def attention_blocked(model: Model, blocked: Bool[Tensor, "layers rows columns"]) -> Iterator[None]:
    """Inside the block, the one query column of a run cannot attend where `blocked`, in the layers that block anything.

    Works through the masks the network hands to its own attention modules: boolean ones (True attends), ones that are added
    to the scores, and none at all. `columns` are those of the whole batch, prefix included.

    Raises:
        AnatomyError: a layer has no attention module that takes a mask, or was run without calling it.
    """
    called: set[int] = set()
    layers = [l for l in range(model.n_layers) if bool(blocked[l].any())]
    handles = []
    try:
        for l in layers:
            module = _takes_mask(model, model.anatomy.layers[l])
            signature = inspect.signature(module.forward)
            handles.append(
                module.register_forward_pre_hook(
                    partial(_with_mask, called, l, signature, blocked[l]), with_kwargs=True
                )
            )
        yield
    finally:
        for handle in handles:
            handle.remove()
    if missed := [l for l in layers if l not in called]:
        raise AnatomyError(f"Layer {missed[0]} ran without its attention module, so none of its edges was knocked out.")


def _takes_mask(model: Model, layer: Layer) -> nn.Module:
    """The module around a layer's attention whose forward takes `attention_mask` (BLOOM's anatomy names a part of it)."""
    part = layer.attention
    if part is not None:
        path = part.path
        while len(path) > len(layer.block.path):
            module = model.net.get_submodule(path)
            if "attention_mask" in inspect.signature(module.forward).parameters:
                return module
            path = path.rpartition(".")[0]
    raise AnatomyError(
        f"Layer {layer.index} of {type(model.net).__name__} has no attention module that takes an attention_mask, so its "
        f"edges cannot be knocked out; lens and probes work on it."
    )


def _with_mask(
    called: set[int],
    layer: int,
    signature: inspect.Signature,
    blocked: Bool[Tensor, "rows columns"],
    _: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of an attention module with the blocked columns taken out of its mask."""
    bound = signature.bind_partial(*args, **kwargs)
    hidden = next(value for value in bound.arguments.values() if isinstance(value, Tensor))
    if hidden.dim() != 3 or hidden.shape[1] != 1:
        raise AnatomyError(f"A knock-out runs one query column at a time, but layer {layer} got {tuple(hidden.shape)}.")
    mask = bound.arguments.get("attention_mask")
    if mask is None:
        mask = torch.zeros(len(hidden), 1, 1, blocked.shape[1], dtype=hidden.dtype, device=hidden.device)
    if not isinstance(mask, Tensor) or mask.dim() != 4 or not 0 < mask.shape[3] <= blocked.shape[1]:
        got = tuple(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
        raise AnatomyError(
            f"Layer {layer} masks attention by {got} where (rows, heads, queries, keys) was expected, so its edges cannot "
            f"be knocked out; load the model with attn_implementation='eager' or 'sdpa'."
        )
    # a layer that sees a sliding window has keys for the last columns only
    here = blocked[:, None, None, -mask.shape[3] :].to(mask.device)
    never = False if mask.dtype == torch.bool else torch.finfo(mask.dtype).min
    bound.arguments["attention_mask"] = mask.masked_fill(here, never)
    called.add(layer)
    return bound.args, bound.kwargs
