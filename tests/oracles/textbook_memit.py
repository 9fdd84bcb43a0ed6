"""MEMIT, EMMET and AlphaEdit as their papers write them: one fact at a time, full passes, dense float64 matrices.

Follows memit/memit_main.py and compute_z.py of github.com/kmeng01/memit, emmet_main.py of UnifiedModelEditing and
AlphaEdit_main.py, with the equations of the papers. It shares nothing with `palimpsest.edit` but the facts.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from oracles.textbook_trace import find_token_range
from palimpsest.facts import Fact

DenseSolve = Callable[[int, Tensor, Tensor], Tensor]  # (layer, K (d, n), R (out, n)) -> dW (out, d)


def compute_z(
    net: nn.Module,
    tokenizer,
    block: nn.Module,
    fact: Fact,
    contexts: Sequence[str],
    *,
    steps: int = 20,
    lr: float = 0.5,
    kl_factor: float = 0.0625,
    decay: float = 0.5,
    clamp: float = 0.75,
    stop_below: float = 0.05,
    kl_at: str = "last",
) -> tuple[Tensor, Tensor]:
    """(h, delta) of one fact at the output of `block`: Adam on all rows, full forward passes."""
    target = tokenizer(" " + fact.target_new, add_special_tokens=False).input_ids
    prompts = [context + fact.text for context in contexts]
    rows = [tokenizer(prompt).input_ids + target[:-1] for prompt in prompts]
    rows.append(tokenizer(f"{fact.subject} is a").input_ids)
    lookup = [find_token_range(tokenizer, row, fact.subject)[1] - 1 for row in rows]
    longest = max(map(len, rows))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    state: dict[str, Tensor] = {}
    delta: Tensor | None = None

    def edit_output(module, inputs, output):
        nonlocal delta
        hidden = output[0] if isinstance(output, tuple) else output
        if delta is None:
            state["h"] = hidden[0, lookup[0]].detach().clone()
            delta = torch.zeros_like(state["h"], requires_grad=True)
        hidden = hidden.clone()
        for i, index in enumerate(lookup):
            hidden[i, index] += delta
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    optimiser, before = None, None
    for step in range(steps):
        handle = block.register_forward_hook(edit_output)
        logits = net(input_ids=ids, attention_mask=mask).logits
        handle.remove()
        optimiser = optimiser or torch.optim.Adam([delta], lr=lr)
        at = len(rows[-1]) - 1 if kl_at == "last" else lookup[-1]
        now = F.log_softmax(logits[-1:, at], dim=1)
        before = now.detach().clone() if before is None else before
        nll = torch.stack(
            [
                F.cross_entropy(logits[i, len(row) - len(target) : len(row)], torch.tensor(target))
                for i, row in enumerate(rows[:-1])
            ]
        ).mean()
        kl = kl_factor * F.kl_div(before, now, log_target=True, reduction="batchmean")
        loss = nll + kl + decay * delta.norm() / state["h"].norm() ** 2
        if loss < stop_below or step == steps - 1:
            break
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            if delta.norm() > clamp * state["h"].norm():
                delta *= clamp * state["h"].norm() / delta.norm()
    return state["h"], delta.detach()


def write_dense(
    net: nn.Module,
    tokenizer,
    blocks: Sequence[nn.Module],
    downs: Sequence[nn.Module],
    layers: Sequence[int],
    facts: Sequence[Fact],
    contexts: Sequence[str],
    found: Sequence[tuple[Tensor, Tensor]],
    solve: DenseSolve,
    *,
    root: bool = False,
) -> dict[int, Tensor]:
    """dW (out, in) of every layer, layer after layer; the network keeps the edit."""
    updates = {}
    for i, layer in enumerate(layers):
        keys, current = [], []
        for fact in facts:
            per_context = [
                _read(net, tokenizer, downs[layer], context + fact.text, fact.subject, False) for context in contexts
            ]
            keys.append(0.5 * per_context[0] + 0.5 * torch.stack(per_context[1:]).mean(0))
            current.append(_read(net, tokenizer, blocks[layers[-1]], fact.text, fact.subject, True))
        missing = torch.stack([h + delta - now for (h, delta), now in zip(found, current, strict=True)]).T.double()
        left = len(layers) - i
        update = solve(layer, torch.stack(keys).T.double(), missing / (left**0.5 if root else left))
        updates[layer] = update
        down = downs[layer]
        with torch.no_grad():
            down.weight += (update if isinstance(down, nn.Linear) else update.T).to(down.weight.dtype)
    return updates


def memit_solve(moments: dict[int, Tensor], weight: float) -> DenseSolve:
    """dW = R K^T (lambda C + K K^T)^-1, by a dense LU."""
    return lambda layer, k, r: r @ torch.linalg.solve(weight * moments[layer] + k @ k.T, k).T


def emmet_solve(moments: dict[int, Tensor], weight: float, softness: float) -> DenseSolve:
    """dW = R (K^T C^-1 K + s I)^-1 K^T C^-1, with explicit inverses."""

    def solve(layer: int, k: Tensor, r: Tensor) -> Tensor:
        inverse = torch.inverse(weight * moments[layer])
        inner = k.T @ inverse @ k + softness * torch.eye(k.shape[1], dtype=k.dtype)
        return r @ torch.inverse(inner) @ k.T @ inverse

    return solve


def projector(moment: Tensor, threshold: float) -> Tensor:
    """P = U_s U_s^T from an SVD of C."""
    u, s, _ = torch.linalg.svd(moment)
    small = u[:, s < threshold]
    return small @ small.T


def alphaedit_solve(projectors: dict[int, Tensor], cache: dict[int, Tensor], ridge: float) -> DenseSolve:
    """X = solve(P (K K^T + C_prev) + ridge I, P K R^T), dW = X^T."""

    def solve(layer: int, k: Tensor, r: Tensor) -> Tensor:
        p = projectors[layer]
        left = p @ (k @ k.T + cache.get(layer, torch.zeros_like(p))) + ridge * torch.eye(len(p), dtype=p.dtype)
        return torch.linalg.solve(left, p @ k @ r.T).T

    return solve


def _read(net, tokenizer, module: nn.Module, prompt: str, subject: str, output: bool) -> Tensor:
    ids = tokenizer(prompt).input_ids
    last = find_token_range(tokenizer, ids, subject)[1] - 1
    kept = {}

    def hook(module, inputs, result):
        tensor = (result[0] if isinstance(result, tuple) else result) if output else inputs[0]
        kept["x"] = tensor[0, last].detach().clone()

    handle = module.register_forward_hook(hook)
    with torch.no_grad():
        net(input_ids=torch.tensor([ids]))
    handle.remove()
    return kept["x"]
