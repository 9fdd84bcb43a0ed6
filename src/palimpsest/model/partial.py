"""Partial runs: compute only what can have changed, with the network's own code.

Three savings, each exact and each usable with the others:

    layers     `run(..., start=l, resid=h)`: layers below l do nothing and layer l receives h. The network still builds
               its own masks, rotary angles, norm and head, so nothing about them needs to be known here.
    tokens     `prefix = run_prefix(...)`, then `run(..., prefix=prefix)`: tokens before a column are run once and later
               tokens read their cached keys and values. Exact because attention is causal.
    logits     `run(..., at=columns)`: the head is applied at these positions only.

`palimpsest.model.doctor` proves on every loaded model that the first gives the full run bit for bit and the second to
1e-5. All three let gradients through.
"""

import copy
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from palimpsest.errors import AnatomyError, SettingError
from palimpsest.model.anatomy import Anatomy
from palimpsest.model.sites import Site
from palimpsest.model.taps import Tap, first, put, tapped
from palimpsest.model.tokens import Batch


@dataclass(frozen=True)
class Prefix:
    """Cached keys and values of the first `length` columns of a batch; a run that continues works on a copy."""

    cache: Any
    length: int

    def take(self, rows: Int[Tensor, "kept"], *, start: int = 0) -> "Prefix":
        """Some of the rows, each as often as it is named; for runs that start at layer `start` or above it."""
        cache = _copied(self.cache)
        if cache is not None:
            # the layers below `start` do not run, so what is cached of them is only asked for its length
            for layer in cache.layers[start:] if _grows(self.cache) else [cache]:
                layer.batch_select_indices(rows)
        return Prefix(cache, self.length)


def _grows(cache: Any) -> bool:
    """Whether every layer of a cache gets new tensors when it grows, and never writes into the ones it has."""
    return all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in getattr(cache, "layers", [None]))


def _copied(cache: Any) -> Any:
    """A cache that can be continued without changing the original: it shares the tensors where that is safe."""
    if cache is None or not _grows(cache):
        return copy.deepcopy(cache)
    shared = copy.copy(cache)
    shared.layers = [copy.copy(layer) for layer in cache.layers]
    return shared


def run(
    net: PreTrainedModel,
    anatomy: Anatomy,
    batch: Batch,
    *,
    start: int = 0,
    resid: Float[Tensor, "rows columns width"] | None = None,
    prefix: Prefix | None = None,
    at: Int[Tensor, "rows positions"] | None = None,
    taps: Iterable[Tap] = (),
) -> Float[Tensor, "rows positions vocabulary"]:
    """Logits of `batch`, computing only what is asked for.

    Args:
        net, anatomy: the model.
        batch: all rows and all columns, also those that a prefix already covers.
        start: first layer to run; may be the number of layers, which leaves only the final norm and the head.
        resid: the residual stream that enters layer `start`, for the columns that run; needed where start > 0, and
            allowed at 0.
        prefix: the columns before `prefix.length`, already run.
        at: per row, the columns of `batch` whose logits are wanted; all that run when None.
        taps: reads and replacements, in the columns that run.

    Raises:
        SettingError: `start` is out of range, `resid` is missing or of the wrong shape, or a column of `at` or a tap's
            layer does not run.
        AnatomyError: the head in `anatomy` is not the one the network used.
    """
    done = prefix.length if prefix else 0
    columns, taps = batch.ids.shape[1] - done, list(taps)
    if columns < 1:
        raise SettingError(f"The prefix covers all {done} columns of the batch, so there is nothing left to run.")
    if not 0 <= start <= len(anatomy):
        raise SettingError(f"A run starts at layer 0 to {len(anatomy)}, got {start}.")
    if (resid is None and start > 0) or (resid is not None and tuple(resid.shape[:2]) != (len(batch), columns)):
        got = "none" if resid is None else f"{tuple(resid.shape)}"
        raise SettingError(
            f"Starting at layer {start} needs a residual of shape ({len(batch)}, {columns}, d), got {got}."
        )
    if at is not None and at.numel() and not done <= int(at.min()) <= int(at.max()) < done + columns:
        raise SettingError(f"Logits can be had at columns {done} to {done + columns - 1}, got {at.tolist()}.")
    if idle := [tap.site for tap in taps if tap.site.layer < start and start and tap.site != _entering(start)]:
        raise SettingError(f"A run that starts at layer {start} never reaches the tap at {idle[0]}.")
    inputs = _inputs(net, batch, prefix or Prefix(None, 0), batch.ids.shape[1])
    with ExitStack() as stack:
        if resid is not None:
            stack.enter_context(_starting_at(anatomy, start, resid))
        stack.enter_context(tapped(anatomy, taps))
        reached = stack.enter_context(_head_at(anatomy, at - done)) if at is not None else [True]
        logits = net(**inputs).logits
        if not reached:
            raise AnatomyError("The output head of this network was replaced since it was loaded; load it again.")
        return logits
    raise AssertionError("unreachable: the taps of a run do not stop it")


def _entering(start: int) -> Site:
    """The one site below `start` that a run from there still passes: what the layer before it hands on."""
    return Site("resid_out", start - 1)


def run_prefix(
    net: PreTrainedModel, anatomy: Anatomy, batch: Batch, length: int, *, taps: Iterable[Tap] = ()
) -> Prefix:
    """Run columns [0, length) of `batch` and keep their keys and values.

    The result is detached: gradients do not flow into a prefix. `length` 0 gives an empty prefix.
    """
    *_, last = run_prefixes(net, anatomy, batch, [length], taps=taps)
    return last


def run_prefixes(
    net: PreTrainedModel,
    anatomy: Anatomy,
    batch: Batch,
    lengths: Sequence[int],
    *,
    taps: Iterable[Tap] | Callable[[int], Iterable[Tap]] = (),
) -> Iterator[Prefix]:
    """Prefixes of several increasing lengths in one sweep: each continues from the one before.

    Taps see only the columns that are new; where they depend on the column, `taps` is a function of the first new one.
    """
    so_far = Prefix(None, 0)
    for length in lengths:
        if length > so_far.length:
            here = taps(so_far.length) if callable(taps) else taps
            so_far = _extend(net, anatomy, batch, so_far, length, here)
        yield so_far


@torch.no_grad()
def run_on(
    net: PreTrainedModel,
    anatomy: Anatomy,
    batch: Batch,
    at: Int[Tensor, "rows positions"],
    prefix: Prefix | None = None,
) -> tuple[Float[Tensor, "rows positions vocabulary"], Prefix]:
    """The logits at the columns `at`, and the prefix that covers the whole batch, of one run that goes on from `prefix`."""
    done = prefix or Prefix(None, 0)
    inputs = _inputs(net, batch, done, batch.ids.shape[1]) | {"use_cache": True}
    with _head_at(anatomy, at - done.length) as reached:
        output = net(**inputs)
    if not reached:
        raise AnatomyError("The output head of this network was replaced since it was loaded; load it again.")
    return output.logits, Prefix(output.past_key_values, batch.ids.shape[1])


@torch.no_grad()
def _extend(
    net: PreTrainedModel, anatomy: Anatomy, batch: Batch, so_far: Prefix, length: int, taps: Iterable[Tap]
) -> Prefix:
    inputs = _inputs(net, batch, so_far, length) | {"use_cache": True}
    one_column = torch.zeros(len(batch), 1, dtype=torch.long, device=batch.ids.device)
    with tapped(anatomy, taps), _head_at(anatomy, one_column):
        return Prefix(net(**inputs).past_key_values, length)


def _inputs(net: PreTrainedModel, batch: Batch, prefix: Prefix, end: int) -> dict[str, Any]:
    """The arguments of a forward pass over the columns from the end of `prefix` to `end`."""
    inputs: dict[str, Any] = {
        "input_ids": batch.ids[:, prefix.length : end],
        "attention_mask": batch.mask[:, :end],
        "use_cache": False,
    }
    if "position_ids" in inspect.signature(net.forward).parameters:
        inputs["position_ids"] = batch.positions[:, prefix.length : end]
    if prefix.cache is not None:
        inputs |= {"past_key_values": _copied(prefix.cache), "use_cache": True}
    # transformers 4 collects these by patching every layer, and leaves the patches in place when a run ends early
    return inputs | {
        name: False for name in ("output_hidden_states", "output_attentions") if getattr(net.config, name, False)
    }


@contextmanager
def _starting_at(anatomy: Anatomy, start: int, resid: Tensor) -> Iterator[None]:
    """Layers below `start` pass on what they get, and the layer before `start` passes on `resid`."""
    if start == 0:
        with tapped(anatomy, [Tap(Site("resid_in", 0), lambda _: resid)]):
            yield
        return
    blocks = [layer.block.module for layer in anatomy.layers[:start]]
    saved = [block.__dict__.get("forward") for block in blocks]  # accelerate keeps a forward of its own there
    try:
        for i, block in enumerate(blocks):
            block.forward = functools.partial(_pass_on, anatomy.returns_tuple, resid if i == start - 1 else None)
        yield
    finally:
        for block, forward in zip(blocks, saved, strict=True):
            if forward is None:
                block.__dict__.pop("forward", None)
            else:
                block.forward = forward


def _pass_on(returns_tuple: bool, instead: Tensor | None, *args: Any, **kwargs: Any) -> Any:
    """Stands in for the forward of a layer: gives what came in, or `instead`."""
    hidden = args[0] if args else kwargs["hidden_states"]
    tensor = hidden if instead is None else instead
    return (tensor, None) if returns_tuple else tensor


@contextmanager
def _head_at(anatomy: Anatomy, columns: Int[Tensor, "rows positions"]) -> Iterator[list[bool]]:
    """Apply the head at these columns only; the list is empty until the head was called."""
    reached: list[bool] = []

    def gather(_: torch.nn.Module, args: tuple[Any, ...]) -> Any:
        reached.append(True)
        hidden = first(args)
        rows = torch.arange(hidden.shape[0], device=hidden.device)[:, None]
        return put(args, hidden[rows, columns.to(hidden.device)])

    handle = anatomy.head.register_forward_pre_hook(gather)
    try:
        yield reached
    finally:
        handle.remove()
