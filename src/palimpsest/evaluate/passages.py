"""Texts read token by token: -sum_t log p(x_t | x_<t) over every token after the first.

The head is applied to `PIECE` columns at a time, the rest of the text going on from cached keys and values, so that a passage as
long as the context does not need the logits of all its tokens at once.
"""

from collections.abc import Sequence

import torch

from palimpsest.evaluate.asks import Answer, Ask, Passage, PassageAnswer
from palimpsest.locate.precision import at_least_float32
from palimpsest.model import Model, pad
from palimpsest.model.partial import Prefix
from palimpsest.model.tokens import Batch

PIECE = 256


@torch.no_grad()
def read(model: Model, passages: Sequence[tuple[Passage, tuple[int, ...]]]) -> dict[Ask, Answer]:
    """One batch of texts with their tokens."""
    batch = pad([ids for _, ids in passages])
    width = batch.ids.shape[1]
    sums = torch.zeros(len(batch), dtype=torch.float64)
    prefix: Prefix | None = None
    for begin in range(0, width - 1, PIECE):
        end = min(begin + PIECE, width - 1)
        so_far = Batch(batch.ids[:, :end], batch.mask[:, :end], batch.positions[:, :end])
        at = torch.arange(begin, end).expand(len(batch), end - begin)
        logits, prefix = model.run_on(so_far, at, prefix)
        wanted, counted = batch.ids[:, begin + 1 : end + 1], batch.mask[:, begin + 1 : end + 1]
        log_p = at_least_float32(logits).log_softmax(-1).cpu().gather(2, wanted[:, :, None])[:, :, 0]
        sums -= torch.where(counted.bool(), log_p, 0).double().sum(1)
    return {ask: PassageAnswer(float(sums[i]), len(ids) - 1) for i, (ask, ids) in enumerate(passages)}
