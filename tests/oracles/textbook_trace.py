"""Causal tracing and lesions as one writes them down first: a full forward of all rows for every (token, layer).

No caching, no skipping, no sharing of batches: a hook on the embedding corrupts, hooks on the layers' modules put values in.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack

import numpy as np
import torch
from torch import Tensor, nn

Corrupt = Callable[[Tensor], Tensor]


def find_token_range(tokenizer, ids: Sequence[int], substring: str) -> tuple[int, int]:
    """[first, end) of the tokens that spell `substring`, by decoding more and more tokens, as in the published code."""
    whole = tokenizer.decode(ids)
    begin = whole.index(substring)
    decoded = [tokenizer.decode(ids[:k]) for k in range(len(ids) + 1)]
    first = max(k for k, text in enumerate(decoded) if len(text) <= begin)
    end = min(k for k, text in enumerate(decoded) if text.startswith(whole[: begin + len(substring)]))
    return first, end


def published_window(layer: int, window: int, n_layers: int) -> range:
    """The layers of a window, as the published code writes them."""
    return range(max(0, layer - window // 2), min(n_layers, layer - (-window // 2)))


@torch.no_grad()
def patch_every_cell(
    net: nn.Module,
    parts: dict[str, Sequence[nn.Module]],
    base: tuple[Sequence[Sequence[int]], Corrupt | None],
    donor: tuple[Sequence[Sequence[int]], Corrupt | None],
    tokens: Sequence[int],
    *,
    kind: str = "state",
    window: int = 1,
    severed: str | None = None,
    cells: Sequence[tuple[int, int]] | None = None,
    donor_values: Callable[[dict[int, Tensor]], dict[int, Tensor]] = lambda values: values,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(base, donor, patched) log-probabilities of `tokens` after the last token.

    Args:
        net: the network.
        parts: its modules by kind, one a layer: "state" (the decoder layers), "mlp", "attn".
        base, donor: rows of ids and what is done to their embeddings.
        tokens: whose log-probabilities are wanted.
        kind, window, severed: as in `palimpsest.locate.tracing.patching`.
        cells: which (t, l); all when None, and those left out are nan.
        donor_values: changes the donor's recorded values, for means and zeros.

    Returns:
        Arrays of shape (rows, tokens scored), (donor rows, tokens scored), (tokens, layers, rows, tokens scored).
    """
    n_layers, length = len(parts[kind]), len(base[0][0])
    donor_log_p, values = _run_keeping(net, parts[kind], donor, tokens)
    values = donor_values(values)
    base_log_p, _ = _run_keeping(net, parts[kind], base, tokens)
    held: dict[int, Tensor] = {}
    if severed:
        _, held = _run_keeping(net, parts[severed], base, tokens)
    patched = np.full((length, n_layers, *base_log_p.shape), np.nan)
    for t, l in cells if cells is not None else np.ndindex(length, n_layers):
        layers = [l] if kind == "state" else list(published_window(l, window, n_layers))
        with ExitStack() as stack:
            for at in held:  # of every layer; below the patch that changes nothing, since the values are this run's own
                if severed != kind or at not in layers:
                    stack.enter_context(_hooked(parts[str(severed)][at], _put(held[at][:, t], t)))
            for at in layers:
                stack.enter_context(_hooked(parts[kind][at], _put(values[at][:, t], t)))
            patched[t, l] = _run(net, base, tokens)
    return base_log_p, donor_log_p, patched


@torch.no_grad()
def trace_states(
    net: nn.Module,
    layers: Sequence[nn.Module],
    ids: Sequence[int],
    subject: tuple[int, int],
    noise: np.ndarray,
    token: int,
    cells: Sequence[tuple[int, int]] | None = None,
) -> tuple[float, np.ndarray, np.ndarray]:
    """(p, p* per sample, p*(t, l) per sample with nan where `cells` leaves it out), noise on the subject's embeddings."""
    clean = ([list(ids)], None)
    noisy = ([list(ids)] * len(noise), add_noise(noise, range(*subject)))
    base, donor, patched = patch_every_cell(net, {"state": layers}, noisy, clean, [token], cells=cells)
    return float(np.exp(donor[0, 0])), np.exp(base[:, 0]), np.exp(patched[..., 0])


@torch.no_grad()
def published_repatch(
    net: nn.Module,
    layers: Sequence[nn.Module],
    unpatched: Sequence[nn.Module],
    ids: Sequence[int],
    subject: tuple[int, int],
    level: float,
    samples: int,
    cell: tuple[int, int],
    token: int,
) -> float:
    """`trace_with_repatch` of the published code, step by step: one random stream for both of its passes.

    Row 0 is clean. The first pass, with the first draw of noise, records; the second, with the next draw, puts the module
    outputs of the first back at every layer and restores one clean state.
    """
    stream, (t, l), width = np.random.RandomState(1), cell, net.get_input_embeddings().weight.shape[1]
    first_pass: dict[int, Tensor] = {}
    rows = torch.tensor([list(ids)] * (samples + 1))

    def corrupt(embedded: Tensor) -> Tensor:
        embedded = embedded.clone()
        embedded[1:, subject[0] : subject[1]] += level * torch.from_numpy(
            stream.randn(samples, subject[1] - subject[0], width)
        )
        return embedded

    def put_back(at: int) -> Corrupt:
        def put(hidden: Tensor) -> Tensor:
            hidden = hidden.clone()
            hidden[1:, t] = first_pass[at][1:, t]
            return hidden

        return put

    def restore(hidden: Tensor) -> Tensor:
        hidden = hidden.clone()
        hidden[1:, t] = hidden[0, t]
        return hidden

    with ExitStack() as stack:
        stack.enter_context(_hooked(net.get_input_embeddings(), corrupt))
        with ExitStack() as first:
            for at, module in enumerate(unpatched):
                first.enter_context(_hooked(module, lambda hidden, at=at: first_pass.update({at: hidden.clone()})))
            net(input_ids=rows, use_cache=False)
        for at, module in enumerate(unpatched):
            stack.enter_context(_hooked(module, put_back(at)))
        stack.enter_context(_hooked(layers[l], restore))
        logits = net(input_ids=rows, use_cache=False).logits
    return float(torch.softmax(logits[1:, -1], dim=1).mean(dim=0)[token])


def add_noise(noise: np.ndarray, positions: Sequence[int]) -> Corrupt:
    """Adds noise of shape (rows, positions, width) to the embeddings."""

    def corrupt(embedded: Tensor) -> Tensor:
        embedded = embedded.clone()
        embedded[:, list(positions)] += torch.from_numpy(noise).to(embedded.dtype)
        return embedded

    return corrupt


def _run_keeping(net, modules, rows, tokens) -> tuple[np.ndarray, dict[int, Tensor]]:
    kept: dict[int, Tensor] = {}
    with ExitStack() as stack:
        for l, module in enumerate(modules):
            stack.enter_context(_hooked(module, lambda hidden, l=l: kept.update({l: hidden.clone()})))
        log_p = _run(net, rows, tokens)
    return log_p, kept


def _run(net: nn.Module, rows, tokens: Sequence[int]) -> np.ndarray:
    ids, corrupt = rows
    with ExitStack() as stack:
        if corrupt is not None:
            stack.enter_context(_hooked(net.get_input_embeddings(), corrupt))
        logits = net(input_ids=torch.tensor([list(row) for row in ids]), use_cache=False).logits[:, -1]
    return logits.log_softmax(dim=-1)[:, list(tokens)].double().numpy()


def _hooked(module: nn.Module, change: Callable[[Tensor], Tensor | None]):
    """A context in which `change` sees, and may replace, what the module gives."""

    def hook(_, inputs, output):
        hidden = output[0] if isinstance(output, tuple) else output
        flat = hidden.dim() == 2
        changed = change(hidden)
        if changed is None:
            return None
        assert not flat, "a module that flattens rows and tokens needs an oracle of its own"
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    handle = module.register_forward_hook(hook)
    stack = ExitStack()
    stack.callback(handle.remove)
    return stack


def _put(value: Tensor, t: int) -> Callable[[Tensor], Tensor]:
    def put(hidden: Tensor) -> Tensor:
        hidden = hidden.clone()
        hidden[:, t] = value
        return hidden

    return put
