"""Integrated gradients over one layer's key as one writes it down first: a full forward of all tokens for every step.

No caching, no batches: a hook in front of one down-projection puts one point of the path at the last token, and autograd gives
the gradient with respect to it.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn


def probability(token: int) -> Callable[[Tensor], Tensor]:
    """The score that is published: the probability of one token."""
    return lambda logits: torch.softmax(logits, dim=-1)[token]


def points(rule: str, steps: int) -> list[tuple[float, float]]:
    """(a_j, w_j) of the sums that are no quadrature."""
    if rule == "midpoint":
        return [((j + 0.5) / steps, 1 / steps) for j in range(steps)]
    if rule == "left":
        return [(j / steps, 1 / steps) for j in range(steps)]
    if rule == "inclusive":
        return [(float(a), 1 / steps) for a in torch.linspace(0, 1, steps, dtype=torch.float64)]
    raise ValueError(rule)


def key_at_last_token(net: nn.Module, down: nn.Module, ids: Sequence[int]) -> Tensor:
    """The input of a down-projection at the last token, of a clean run."""
    kept = []
    handle = down.register_forward_pre_hook(lambda _, inputs: kept.append(_last_row(inputs[0]).detach().clone()))
    with torch.no_grad():
        net(input_ids=torch.tensor([list(ids)]), use_cache=False)
    handle.remove()
    return kept[0]


def score_with_key(
    net: nn.Module, down: nn.Module, ids: Sequence[int], key: Tensor, score: Callable[[Tensor], Tensor]
) -> Tensor:
    """The score of a run whose key at the last token is `key`."""

    def hook(module, inputs):
        hidden = inputs[0].clone()
        if hidden.dim() == 2:
            hidden[-1] = key
        else:
            hidden[0, -1] = key
        return (hidden, *inputs[1:])

    handle = down.register_forward_pre_hook(hook)
    try:
        return score(net(input_ids=torch.tensor([list(ids)]), use_cache=False).logits[0, -1])
    finally:
        handle.remove()


def attribute_layer(
    net: nn.Module,
    down: nn.Module,
    ids: Sequence[int],
    score: Callable[[Tensor], Tensor],
    *,
    steps: int = 20,
    rule: str = "midpoint",
    baseline: Tensor | None = None,
) -> tuple[np.ndarray, float, float]:
    """(attribution of each neuron of one layer, clean score, score at the baseline)."""
    clean = key_at_last_token(net, down, ids)
    base = torch.zeros_like(clean) if baseline is None else baseline
    total = np.zeros(len(clean))
    for a, weight in points(rule, steps):
        key = (base + a * (clean - base)).detach().requires_grad_()
        with torch.enable_grad():
            value = score_with_key(net, down, ids, key, score)
            (gradient,) = torch.autograd.grad(value, key)
        total += weight * gradient.double().numpy()
    with torch.no_grad():
        at_clean = float(score_with_key(net, down, ids, clean, score))
        at_base = float(score_with_key(net, down, ids, base, score))
    return (clean - base).double().numpy() * total, at_clean, at_base


@torch.no_grad()
def scaled_logits(
    net: nn.Module, downs: Sequence[nn.Module], ids: Sequence[int], neurons: Sequence[tuple[int, int]], factor: float
) -> Tensor:
    """Logits after the last token, the given (layer, neuron) multiplied there by `factor`."""

    def scale(wanted: list[int]):
        def hook(module, inputs):
            hidden = inputs[0].clone()
            row = hidden[-1] if hidden.dim() == 2 else hidden[0, -1]
            row[wanted] *= factor
            return (hidden, *inputs[1:])

        return hook

    handles = [
        downs[layer].register_forward_pre_hook(scale([i for l, i in neurons if l == layer]))
        for layer in {l for l, _ in neurons}
    ]
    logits = net(input_ids=torch.tensor([list(ids)]), use_cache=False).logits[0, -1]
    for handle in handles:
        handle.remove()
    return logits


def _last_row(hidden: Tensor) -> Tensor:
    return hidden[-1] if hidden.dim() == 2 else hidden[0, -1]
