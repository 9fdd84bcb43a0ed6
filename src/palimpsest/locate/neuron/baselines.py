"""Keys that stand for no information: where the path of integrated gradients begins.

Zero is the published baseline: a neuron that is off. For a gated MLP, whose keys have both signs, and for any neuron that is
rarely at zero, the mean key over a text is the more natural one. The choice is part of the question that is asked.
"""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from palimpsest.errors import SettingError, did_you_mean
from palimpsest.facts import shipped_text
from palimpsest.locate.precision import at_least_float32
from palimpsest.model import Model, Site, align
from palimpsest.model.anatomy import in_out_features


def key_widths(model: Model) -> tuple[int, ...]:
    """Neurons of each layer; raises `AnatomyError` where a layer has no single down-projection."""
    return tuple(in_out_features(model.anatomy.down(l).module)[0] for l in range(model.n_layers))


def baseline_keys(model: Model, baseline: str | Sequence[Tensor]) -> list[Float[Tensor, "_"]]:
    """One key a layer: zeros, the mean over the shipped text, or the given ones after a check of their shapes."""
    widths = key_widths(model)
    if isinstance(baseline, str):
        if baseline == "mean":
            return mean_keys(model)
        if baseline == "zero":
            return [torch.zeros(width, device=model.device) for width in widths]
        raise SettingError(f"There is no baseline {baseline!r}.{did_you_mean(baseline, ['zero', 'mean'])}")
    if [tuple(key.shape) for key in baseline] != [(width,) for width in widths]:
        raise SettingError(
            f"A baseline needs one key a layer, of {widths[0]} neurons in layer 0; got {len(baseline)} of shapes "
            f"{sorted({tuple(key.shape) for key in baseline})}."
        )
    return list(baseline)


@torch.no_grad()
def mean_keys(model: Model, text: str | None = None, *, tokens: int = 2048) -> list[Float[Tensor, "_"]]:
    """The mean key of each layer over the first `tokens` tokens of a text (the shipped one when None), in float32 or better.

    The text is read in pieces of 128 tokens (or the model's context); the first token of each, which is nobody's last token
    and often an outlier, is left out.
    """
    sites = [Site("key", l) for l in range(model.n_layers)]
    total: list[Tensor] = []
    seen = 0
    for ids in _pieces(model, shipped_text() if text is None else text, tokens):
        with model.evaluating():
            kept = model.record(align([ids], [0]), sites)
        summed = [at_least_float32(kept[site][0, 1:]).sum(0) for site in sites]
        total = [before + now for before, now in zip(total, summed, strict=True)] if total else summed
        seen += len(ids) - 1
    if not seen:
        raise SettingError("The mean key needs a text of at least two tokens; give a longer one.")
    return [key / seen for key in total]


def _pieces(model: Model, text: str, tokens: int) -> Iterator[tuple[int, ...]]:
    size = min(128, model.context or 128)
    left = tokens
    for document in text.split("\n\n"):
        ids = tuple(model.tokenizer(document, verbose=False).input_ids)[: min(size, left)]
        if len(ids) > 1:
            yield ids
            left -= len(ids)
        if left < 2:
            return
