"""What a memory must know of a forward pass that no layer is told: which columns are padding, and what was decided before them.

    pass 1   "The capital of France is"     a token is near key 7: from there on entry 7 answers
    pass 2   " Rome"                        one token, read with cached keys and values: entry 7 must still answer

A decision that holds "from this token on" is therefore kept where the keys and values are: in the cache, as one layer more,
with one number for each token. Whatever is done to the cache is then done to the decisions: rows picked, repeated or reordered
by a beam search, columns cropped, a copy continued twice. Nothing is kept anywhere else, so that two conversations cannot mix.
"""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn
from transformers.cache_utils import DynamicLayer

from palimpsest.errors import EditError

NOTHING = -1


class Passes:
    """Follows the forward passes of one network for one memory that is in force.

    Attributes:
        mask: of the pass that runs now, 1 for tokens and 0 for padding, over its own columns and those cached before; None
            where the network was given none.
    """

    def __init__(self) -> None:
        self.mask: Tensor | None = None
        self._name = uuid4().hex  # by value, as a cache may be copied in depth
        self._before: Tensor | None = None
        self._decided: Tensor | None = None

    @contextmanager
    def followed(self, net: nn.Module) -> Iterator["Passes"]:
        """Watch every pass of `net` inside the block."""
        handles = (
            net.register_forward_pre_hook(self._begin, with_kwargs=True),
            net.register_forward_hook(self._end),
        )
        try:
            yield self
        finally:
            for handle in handles:
                handle.remove()

    def tokens(self, states: Tensor) -> Bool[Tensor, "rows tokens"]:
        """Which of the columns that run now are tokens."""
        rows, columns = states.shape[:2]
        if self.mask is None:
            return torch.ones(rows, columns, dtype=torch.bool, device=states.device)
        return self.mask[:, -columns:].to(states.device).bool()

    def before(self, states: Tensor) -> Int[Tensor, "rows"]:
        """What was in force at the end of the cached tokens; `NOTHING` where there are none."""
        if self._before is None:
            return torch.full(states.shape[:1], NOTHING, dtype=torch.long, device=states.device)
        return self._before.to(states.device)

    def decide(self, decided: Int[Tensor, "rows tokens"]) -> None:
        """Hand on what is in force after each column of this pass."""
        self._decided = decided

    def _begin(self, net: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = dict(zip(inspect.signature(net.forward).parameters, args, strict=False)) | kwargs
        mask = given.get("attention_mask")
        self.mask = mask if isinstance(mask, Tensor) and mask.dim() == 2 else None
        self._decided = None
        kept = self._layer(given.get("past_key_values"))
        # numbers of entries are exact in float64; a cache layer holds floats
        self._before = None if kept is None else kept.keys[:, 0, -1, 0].round().long()

    def _end(self, net: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        cache = getattr(output, "past_key_values", None)
        if self._decided is None or cache is None:
            return
        if not hasattr(cache, "layers"):
            raise EditError(
                f"A memory keeps its decisions in the cache of keys and values, and {type(cache).__name__} has no layers to keep "
                f"them in; use transformers' DynamicCache, or use_cache=False."
            )
        layer = self._layer(cache)
        if layer is None:
            layer = DynamicLayer()
            layer.memory = self._name
            cache.layers.append(layer)
        column = self._decided[:, None, :, None].double()
        layer.update(column, column)

    def _layer(self, cache: Any) -> Any:
        layers = getattr(cache, "layers", ())
        found = next((layer for layer in layers if getattr(layer, "memory", None) == self._name), None)
        return (
            found if found is not None and getattr(found, "keys", None) is not None and found.keys.shape[-2] else None
        )
