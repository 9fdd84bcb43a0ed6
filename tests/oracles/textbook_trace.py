"""Causal tracing of states as one writes it down first: a full forward of all noisy rows for every (token, layer).

No caching, no skipping: hooks on the embedding add the noise, a hook on one layer puts one clean state back.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn


def find_token_range(tokenizer, ids: Sequence[int], substring: str) -> tuple[int, int]:
    """[first, end) of the tokens that spell `substring`, by decoding more and more tokens, as in the published code."""
    whole = tokenizer.decode(ids)
    begin = whole.index(substring)
    decoded = [tokenizer.decode(ids[:k]) for k in range(len(ids) + 1)]
    first = max(k for k, text in enumerate(decoded) if len(text) <= begin)
    end = min(k for k, text in enumerate(decoded) if text.startswith(whole[: begin + len(substring)]))
    return first, end


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
    """(p, p* per sample, p*(t, l) per sample with nan where `cells` leaves it out).

    Args:
        net, layers: the network and its decoder layers.
        ids: of the prompt.
        subject: [first, end) of its tokens.
        noise: what is added to the subject's embeddings, of shape (samples, tokens of the subject, width).
        token: whose probability is the score.
        cells: which (t, l) to restore; all when None.
    """
    samples = len(noise)
    one = torch.tensor([list(ids)])
    clean_states: dict[int, Tensor] = {}
    handles = [layer.register_forward_hook(_keep(clean_states, l)) for l, layer in enumerate(layers)]
    clean = float(_last(net, one, token)[0])
    for handle in handles:
        handle.remove()
    rows = one.repeat(samples, 1)
    corrupt = net.get_input_embeddings().register_forward_hook(_add_noise(noise, subject))
    try:
        corrupted = _last(net, rows, token)
        restored = np.full((len(ids), len(layers), samples), np.nan)
        for t, l in cells if cells is not None else np.ndindex(len(ids), len(layers)):
            handle = layers[l].register_forward_hook(_put_back(clean_states[l], t))
            restored[t, l] = _last(net, rows, token)
            handle.remove()
    finally:
        corrupt.remove()
    return clean, corrupted, restored


def _last(net: nn.Module, ids: Tensor, token: int) -> np.ndarray:
    return torch.softmax(net(input_ids=ids, use_cache=False).logits[:, -1], dim=-1)[:, token].double().numpy()


def _hidden(output) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


def _keep(states: dict[int, Tensor], l: int):
    def hook(module, inputs, output):
        states[l] = _hidden(output)[0].clone()

    return hook


def _put_back(state: Tensor, t: int):
    def hook(module, inputs, output):
        hidden = _hidden(output).clone()
        hidden[:, t] = state[t]
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    return hook


def _add_noise(noise: np.ndarray, subject: tuple[int, int]):
    def hook(module, inputs, output):
        output = output.clone()
        output[:, subject[0] : subject[1]] += torch.from_numpy(noise).to(output.dtype)
        return output

    return hook
