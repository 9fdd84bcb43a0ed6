"""Direct logit attribution of attention heads: what each head by itself adds to the advantage of the old answer.

    a_lh    what head h of layer l mixes together at the last token, the slice h of the input of the output projection W_O
    score   (u_answer - mean of u_others) . D P W_O^h a_lh / s

u are rows of the head's matrix W_U; the final norm is taken as it acts on this very state: P takes off the mean (layer norm) or
nothing (RMS norm), D are its gains and s its scale at the last token, held fixed (Elhage et al. 2021, "direct paths"). With the
scale held, contributions add up: the heads, the MLPs and the embedding together make the advantage of the last layer, to its
bias.

An edit of MLPs may leave heads that still copy the old answer from the subject, and another layer that outshouts them: Xie et
al. (2025) report that ablating a few late heads lowers the old answer again. Columns are heads, on the prompt.

D, P and s are read off by running the network's norm on made states, so that LayerNorm, RMSNorm and Gemma's (1 + gain) are one
case. What this cannot be said of: networks without one output projection a layer (mixers without heads), and those that pass
attention through another norm before it joins the stream (Gemma 2, OLMo 2). `why_no_heads` says which, by trying.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from palimpsest.erase.residue.pair import Pair
from palimpsest.erase.residue.readout import Column, Table
from palimpsest.erase.residue.states import LastStates, OutputBasis, StreamReader, Wanted, above_others
from palimpsest.errors import AnatomyError
from palimpsest.model import Model, Site, pad
from palimpsest.model.anatomy import matrix_of

LOUD = 100.0  # of the made states, so that a norm's epsilon vanishes beside it
TRIED = (0, 1, 2, 3)  # any four tokens will do to see how a layer adds up


@dataclass(frozen=True)
class Heads:
    """The readout."""

    name: str = "head"

    def fit(self, model: Model, pairs: Sequence[Pair]) -> "HeadsReader":
        """Nothing needs fitting.

        Raises:
            AnatomyError: the heads of this model cannot be read; the message says why.
        """
        if reason := why_no_heads(model):
            raise AnatomyError(reason)
        return HeadsReader(self.name, _count(model))


class HeadsReader(StreamReader):
    """Reads every head at the last token of the prompt."""

    heads = True

    def __init__(self, name: str, count: int) -> None:
        super().__init__()
        self.name, self.count = name, count

    def texts(self, pairs: Sequence[Pair]) -> list[str]:
        """The prompt of every pair."""
        return [pair.fact.text for pair in pairs]

    @torch.no_grad()
    def score(self, model: Model, states: LastStates, pairs: Sequence[Pair]) -> Table:
        """Contribution of each head to the advantage, a column a head, layer after layer."""
        columns = tuple(Column(self.name, "prompt", l, h) for l in range(model.n_layers) for h in range(self.count))
        scores = np.full((len(pairs), len(columns)), np.nan)
        wanted = Wanted.on(model, states, pairs, [pair.fact.text for pair in pairs], self.first_tokens)
        if not wanted.pairs or states.mixed is None:
            return Table(columns, scores)
        basis = OutputBasis(model)
        norm = FrozenNorm.of(basis, states.resid[wanted.states, -1])
        unembedding = norm.pull_back(basis.unembedding(wanted.tokens)[0])
        for l in range(model.n_layers):
            part = model.anatomy.layers[l].attention_projection
            assert part is not None  # `why_no_heads` saw to it
            projection = matrix_of(part.module).float().cpu()
            by_head = states.mixed[l][wanted.states].float().unflatten(1, (self.count, -1))
            sliced = projection.unflatten(1, (self.count, -1))
            written = torch.einsum("rhi,whi->rhw", by_head, sliced)
            read = torch.einsum("rhw,rkw->rhk", written, unembedding)
            scores[wanted.pairs, l * self.count : (l + 1) * self.count] = above_others(read, wanted.counts)
        return Table(columns, scores)


@dataclass(frozen=True, eq=False)
class FrozenNorm:
    """A final norm held as it acts on some states: x -> gain * (x - centred mean of x) / scale.

    Attributes:
        gain: D.
        centred: whether the mean of a state is taken off.
        scale: s, one a state.
    """

    gain: Float[Tensor, "width"]
    centred: bool
    scale: Float[Tensor, "rows"]

    @classmethod
    def of(cls, basis: OutputBasis, states: Float[Tensor, "rows width"]) -> "FrozenNorm":
        """Read off from the network's own norm; a state of alternating signs has mean 0 and as much root mean square as spread."""
        width = states.shape[1]
        signs = torch.ones(width)
        signs[1::2] = -1
        up, down, shifted = basis.normed(torch.stack([LOUD * signs, -LOUD * signs, LOUD * (signs + 3)]))
        gain, bias = (up - down) / 2 * signs, (up + down) / 2
        centred = bool(torch.allclose(shifted, up, atol=1e-3))
        straight = gain * (states - states.mean(1, keepdim=True) * centred)
        normed = basis.normed(states) - bias
        return cls(gain, centred, straight.square().sum(1) / (straight * normed).sum(1))

    def pull_back(self, rows: Float[Tensor, "rows wanted width"]) -> Float[Tensor, "rows wanted width"]:
        """Directions of the stream whose inner product with a contribution is what it adds to the logits of `rows`."""
        scaled = rows * self.gain / self.scale[:, None, None]
        return scaled - scaled.mean(2, keepdim=True) if self.centred else scaled


def _count(model: Model) -> int:
    return int(getattr(model.net.config.get_text_config(decoder=True), "num_attention_heads", 0) or 0)


@torch.no_grad()
def why_no_heads(model: Model) -> str:
    """Why the heads of a model cannot be read one by one; empty where they can."""
    count = _count(model)
    if count < 1:
        return f"The config of {model.name} says no number of attention heads, so no heads are read."
    entering: dict[int, Tensor] = {}
    for l, layer in enumerate(model.anatomy.layers):
        part = layer.attention_projection
        if part is None:
            return f"Layer {l} of {model.name} has no output projection of attention, so no heads are read."
        if matrix_of(part.module).shape[1] % count:
            wide = matrix_of(part.module).shape[1]
            return f"The output projection of layer {l} of {model.name} reads {wide} numbers, which {count} heads cannot share."
    last = model.n_layers - 1
    part = model.anatomy.layers[last].attention_projection
    mlp = model.anatomy.layers[last].mlp
    assert part is not None
    if mlp is None:
        return f"Layer {last} of {model.name} has no MLP to tell from its attention, so no heads are read."
    handle = part.module.register_forward_hook(
        lambda _module, _args, output: entering.__setitem__(last, output.clone())
    )
    sites = [Site("resid_in", last), Site("mlp_out", last), Site("resid_out", last)]
    try:
        with model.evaluating():
            read = model.record(pad([TRIED]), sites)
    finally:
        handle.remove()
    before, added, after = (read[site] for site in sites)
    if not torch.allclose(before + entering[last].reshape(before.shape) + added, after, rtol=1e-2, atol=1e-2):
        return (
            f"In {model.name} attention passes through more than its output projection before it joins the stream (another norm or "
            f"a scale), so no heads are read."
        )
    return ""
