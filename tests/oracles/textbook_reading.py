"""The logit lens and attention knock-out as one writes them down first: the norm and head by name, one full forward a cell.

The knock-out replaces the attention of the network's own file by a plain one that sets the scores of the blocked edges to
minus infinity: no mask of the network is used, no cache and no skipped layer.
"""

import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

NORMS = {"gpt2": "transformer.ln_f", "llama": "model.norm", "gpt_neox_parallel": "gpt_neox.final_layer_norm"}


@torch.no_grad()
def lens(net: nn.Module, layers: Sequence[nn.Module], norm: nn.Module, ids: Sequence[int]) -> Tensor:
    """Log-probabilities head(norm(h)) after each layer, of shape (tokens, layers, vocabulary)."""
    states: list[Tensor] = []

    def keep(module, inputs, output):
        states.append((output[0] if isinstance(output, tuple) else output)[0].clone())

    handles = [layer.register_forward_hook(keep) for layer in layers]
    net(input_ids=torch.tensor([list(ids)]))
    for handle in handles:
        handle.remove()
    return torch.stack([net.get_output_embeddings()(norm(h)).log_softmax(-1) for h in states], dim=1)


@torch.no_grad()
def knocked_out(
    net: nn.Module, ids: Sequence[int], sources: Collection[int], layers: Collection[int], token: int
) -> float:
    """log p(token) after the last of `ids`, which cannot attend to `sources` in `layers`."""
    with _plain_attention(net, set(sources), set(layers)):
        logits = net(input_ids=torch.tensor([list(ids)]), use_cache=False).logits[0, -1]
    return float(logits.double().log_softmax(-1)[token])


@contextmanager
def _plain_attention(net: nn.Module, sources: set[int], layers: set[int]) -> Iterator[None]:
    file, config, called = sys.modules[type(net).__module__], net.config, []

    def attend(module, query, key, value, attention_mask=None, scaling=None, **_):
        called.append(module.layer_idx)
        times = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(times, dim=1), value.repeat_interleave(times, dim=1)
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        scores = query @ key.transpose(2, 3) * scale
        length = scores.shape[-1]
        scores = scores.masked_fill(torch.ones(length, length, dtype=torch.bool).triu(1), -torch.inf)
        if module.layer_idx in layers:
            scores[:, :, -1, sorted(sources)] = -torch.inf
        weights = scores.softmax(-1)
        return (weights @ value).transpose(1, 2).contiguous(), weights

    theirs, implementation = file.eager_attention_forward, config._attn_implementation
    try:
        file.eager_attention_forward, config._attn_implementation = attend, "eager"
        yield
    finally:
        file.eager_attention_forward, config._attn_implementation = theirs, implementation
    assert sorted(called) == list(range(config.num_hidden_layers)), "the network did not call this attention"
