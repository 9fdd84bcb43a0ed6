"""Second moments as the published code collects them: one pass over the text for each layer, a.T @ a in full, summed as it comes.

Follows rome/layer_stats.py and util/runningstats.py of github.com/kmeng01/rome: documents sorted by length into batches, the
pass stopped at the layer, padding left out by its mask. It shares nothing with `palimpsest.edit.moments`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Stop(Exception):
    """Ends a forward pass at the layer that is read."""


def textbook_moments(
    net: nn.Module,
    tokenizer,
    downs: Sequence[nn.Module],
    text: str,
    tokens: int,
    *,
    longest: int = 256,
    batch_tokens: int = 2048,
) -> list[tuple[Tensor, int]]:
    """(C, count) for the input of each linear map in `downs`, over the first `tokens` tokens of `text`."""
    return [_one_layer(net, down, _batches(tokenizer, text, tokens, longest, batch_tokens)) for down in downs]


def _one_layer(net: nn.Module, down: nn.Module, batches: list[list[list[int]]]) -> tuple[Tensor, int]:
    total, count, kept = None, 0, []

    def hook(module, inputs):
        kept.append(inputs[0].detach())
        raise Stop

    handle = down.register_forward_pre_hook(hook)
    for rows in batches:
        width = max(map(len, rows))
        ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
        try:
            with torch.no_grad():
                net(input_ids=ids, attention_mask=mask)
        except Stop:
            pass
        a = kept.pop()[mask.bool()]
        total = a.t().mm(a) if total is None else total + a.t().mm(a)
        count += a.shape[0]
    handle.remove()
    return total / count, count


def _batches(tokenizer, text: str, tokens: int, longest: int, batch_tokens: int) -> list[list[list[int]]]:
    documents, left = [], tokens
    for document in text.split("\n\n"):
        ids = tokenizer(document.strip()).input_ids[:longest][:left] if document.strip() else []
        left -= len(ids)
        if ids:
            documents.append(ids)
    documents.sort(key=len, reverse=True)
    batches: list[list[list[int]]] = []
    for ids in documents:
        if not batches or len(batches[-1][0]) * (len(batches[-1]) + 1) > batch_tokens:
            batches.append([])
        batches[-1].append(ids)
    return batches
