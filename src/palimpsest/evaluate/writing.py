"""Free generation, many prompts at once: each token goes on from cached keys and values of all before it.

Greedy text takes the likeliest token. Drawn text takes, of the k likeliest tokens renormalised, the first whose cumulative
probability exceeds u, with u uniform from the ask's own generator: what else is in the batch cannot change a draw, except by the
rounding of the arithmetic where u falls on an edge.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from palimpsest.evaluate.asks import Answer, Ask, Written
from palimpsest.locate.precision import at_least_float32
from palimpsest.model import Model
from palimpsest.model.tokens import Batch, align


@dataclass
class _Row:
    """One text in the making."""

    ask: Written
    generator: torch.Generator
    most: int
    new: list[int]


@torch.no_grad()
def write(model: Model, asked: Sequence[tuple[Written, tuple[int, ...]]]) -> dict[Ask, Answer]:
    """One batch of prompts with their tokens, continued until each met its end."""
    ends = _ends(model)
    rows = [_row(model, ask, len(ids)) for ask, ids in asked]
    batch = align([ids for _, ids in asked], [len(ids) - 1 for _, ids in asked])
    active = [row for row in rows if row.most]
    if len(active) < len(rows):
        batch = batch.take([i for i, row in enumerate(rows) if row.most])
    prefix = None
    while active:
        last = torch.full((len(batch), 1), batch.ids.shape[1] - 1)
        logits, prefix = model.run_on(batch, last, prefix)
        tokens = _chosen(at_least_float32(logits[:, 0]).cpu(), active)
        going = []
        for i, (row, token) in enumerate(zip(active, tokens, strict=True)):
            if token not in ends:
                row.new.append(token)
                if len(row.new) < row.most:
                    going.append(i)
        batch = _longer(batch, tokens)
        if len(going) < len(active):  # rows at their end leave, or they would outgrow the context
            active, batch = [active[i] for i in going], batch.take(going)
            prefix = prefix.take(torch.tensor(going, device=model.device)) if going else None
    return {row.ask: _text(model, row.new) for row in rows}


def _row(model: Model, ask: Written, length: int) -> _Row:
    """A text that stops, at the latest, where the context is full."""
    most = ask.tokens if model.context is None else min(ask.tokens, model.context - length)
    return _Row(ask, torch.Generator().manual_seed(ask.seed), most, [])


def _chosen(logits: Tensor, rows: Sequence[_Row]) -> list[int]:
    """The next token of each row."""
    best = logits.argmax(-1).tolist()
    return [_drawn(logits[i], row) if row.ask.top_k else best[i] for i, row in enumerate(rows)]


def _drawn(logits: Tensor, row: _Row) -> int:
    values, tokens = logits.topk(min(row.ask.top_k, logits.shape[0]))
    below = values.double().softmax(-1).cumsum(-1)
    u = torch.rand((), generator=row.generator, dtype=torch.float64)
    return int(tokens[min(int((below <= u).sum()), len(tokens) - 1)])


def _longer(batch: Batch, tokens: Sequence[int]) -> Batch:
    """The batch with one more column."""
    one = torch.tensor(tokens)[:, None]
    return Batch(
        torch.cat([batch.ids, one], dim=1),
        torch.cat([batch.mask, torch.ones_like(one)], dim=1),
        torch.cat([batch.positions, batch.positions[:, -1:] + 1], dim=1),
        batch.column,
    )


def _ends(model: Model) -> set[int]:
    """Tokens that end a text, as the model's generation settings or its tokenizer say."""
    told = getattr(model.net.generation_config, "eos_token_id", None)
    ends = {told} if isinstance(told, int) else set(told or ())
    return ends | ({model.tokenizer.eos_token_id} - {None})


def _text(model: Model, tokens: Sequence[int]) -> str:
    text: str = model.tokenizer.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text
