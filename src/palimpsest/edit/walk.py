"""Keys of many facts, layer after layer, on a model that is edited on the way.

MEMIT and its successors need the keys at layer l of a model whose lower layers carry the edit already. An edit of W_l changes
nothing that enters layer l, so the residual stream that entered the last visited layer is kept, and the next layer's keys are
had by running from there. Texts are cut after the edited token, which is the only one that is read (attention is causal).

    walk = Walk(model, facts, contexts)
    for layer in layers:
        for which, keys in walk.read(layer, "key"): ...    # (facts, contexts, d_key), on the model as it is now
        ...                                                # write the edit of this layer into the model

Texts go in chunks of bounded size. What is kept between layers is bounded too: where the residual streams of all texts would
not fit into `keep_bytes`, the chunks beyond it start again from the embedding, which gives the same numbers.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from palimpsest.edit.keys import cut_after
from palimpsest.facts import Fact
from palimpsest.locate.precision import at_least_float32
from palimpsest.model import Batch, Model, Site, pad

CHUNK_TOKENS = 4096
KEEP_BYTES = 2**30


@dataclass
class _Chunk:
    """Some of the facts, their rows (fact after fact, the bare context first), and how far up they have come."""

    facts: Int[Tensor, "facts"]
    batch: Batch
    keeps: bool
    layer: int = 0
    resid: Float[Tensor, "rows tokens width"] | None = None


class Walk:
    """The texts of `facts` in every context.

    Args:
        model: may be edited between two calls of `read`, at the layer last read and above.
        facts: at least one.
        contexts: texts before the prompt, the bare one ("") first.
        token: which token is read; a role of `keys.TOKENS`.
        keep_bytes: how much may be kept between layers.
    """

    def __init__(
        self,
        model: Model,
        facts: Sequence[Fact],
        contexts: Sequence[str],
        token: str = "subject_last",
        *,
        keep_bytes: int = KEEP_BYTES,
    ) -> None:
        self.model, self.contexts = model, len(contexts)
        rows = [[cut_after(model, context, fact, token) for context in contexts] for fact in facts]
        order = sorted(range(len(facts)), key=lambda i: max(map(len, rows[i])))
        self._chunks: list[_Chunk] = []
        size = torch.finfo(model.net.dtype).bits // 8 * model.anatomy.width
        left, taken = keep_bytes, list[int]()
        for i in order:
            tokens = (len(taken) + 1) * len(contexts) * max(map(len, rows[i]))
            if taken and tokens > CHUNK_TOKENS:
                left = self._add(taken, rows, left, size)
                taken = []
            taken.append(i)
        self._add(taken, rows, left, size)

    def _add(self, facts: list[int], rows: list[list[tuple[int, ...]]], left: int, size: int) -> int:
        batch = pad([row for i in facts for row in rows[i]]).to(self.model.device)
        left -= batch.ids.numel() * size
        self._chunks.append(_Chunk(torch.tensor(facts), batch, left >= 0))
        return left

    def read(
        self, layer: int, *kinds: str
    ) -> Iterator[tuple[Int[Tensor, "facts"], tuple[Float[Tensor, "facts contexts _"], ...]]]:
        """Chunk by chunk: which facts, and their tensors at sites of these kinds of `layer`, in float32 or better.

        Layers are read in ascending order; one may be read again.
        """
        for chunk in self._chunks:
            entering = Site("resid_in", layer)
            wanted = [Site(kind, layer) for kind in kinds]
            states = self._record(chunk, [entering, *wanted] if chunk.keeps else wanted)
            if chunk.keeps:
                chunk.layer, chunk.resid = layer, states[entering]
            at = torch.arange(len(chunk.batch)), chunk.batch.last
            yield (
                chunk.facts,
                tuple(at_least_float32(states[site][at]).unflatten(0, (-1, self.contexts)) for site in wanted),
            )

    def outputs(self, layer: int) -> Float[Tensor, "facts width"]:
        """h after `layer` at the edited token of the bare prompts, of every fact."""
        site = Site("resid_out", layer)
        result = torch.empty(0)
        for chunk in self._chunks:
            bare = torch.arange(0, len(chunk.batch), self.contexts)
            resid = None if chunk.resid is None else chunk.resid[bare]
            part = _Chunk(chunk.facts, chunk.batch.take(bare), False, chunk.layer, resid)
            h = at_least_float32(self._record(part, [site])[site][torch.arange(len(bare)), part.batch.last])
            if not result.numel():
                result = torch.empty(
                    sum(len(c.facts) for c in self._chunks), h.shape[1], dtype=h.dtype, device=h.device
                )
            result[chunk.facts] = h
        return result

    def _record(self, chunk: _Chunk, sites: list[Site]) -> dict[Site, Tensor]:
        with self.model.evaluating():
            return self.model.record(chunk.batch, sites, start=chunk.layer, resid=chunk.resid)
