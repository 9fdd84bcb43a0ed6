"""The last token of a prompt run again and again: what stands before it, and below the layer that changes, is run once.

An instrument that changes something at the last token alone (the token that predicts the answer) needs one column of the
batch, the cached keys and values of the tokens before it, and the residual stream that enters the first layer that changes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from palimpsest.errors import FactError
from palimpsest.locate.precision import at_least_float32
from palimpsest.model import Model, Prefix, Site, Tap, align
from palimpsest.model.tokens import Batch


@dataclass(frozen=True, eq=False)
class LastToken:
    """A clean run, kept so that the last token can be run again from any layer.

    Attributes:
        batch: one row, the prompt.
        prefix: keys and values of all tokens but the last.
        resid: per layer, the residual stream that enters it at the last token, each (1, 1, width).
        keys: per layer, k at the last token, each (neurons,).
        logits: after the last token, (1, vocabulary), float32 or better.
    """

    batch: Batch
    prefix: Prefix
    resid: list[Float[Tensor, "1 1 width"]]
    keys: list[Float[Tensor, "_"]]
    logits: Float[Tensor, "1 vocabulary"]

    @classmethod
    def of(cls, model: Model, ids: Sequence[int]) -> "LastToken":
        """Run `ids` once. Call it without gradients and in eval mode."""
        batch = align([ids], [0]).to(model.device)
        layers = range(model.n_layers)
        (prefix,) = model.run_prefixes(batch, [len(ids) - 1])
        sites = [Site(kind, l) for kind in ("resid_in", "key") for l in layers]
        kept = model.record(batch, sites, prefix=prefix)
        resid = [kept[Site("resid_in", l)] for l in layers]
        keys = [kept[Site("key", l)][0, 0] for l in layers]
        last = len(layers) - 1
        logits = model.run(
            batch, start=last, resid=resid[last], prefix=prefix, at=torch.tensor([[len(ids) - 1]], device=model.device)
        )
        return cls(batch, prefix, resid, keys, at_least_float32(logits[:, 0]))

    def again(self, model: Model, rows: int, start: int, taps: Sequence[Tap]) -> Float[Tensor, "rows vocabulary"]:
        """Logits after the last token of `rows` runs that go on from layer `start`, float32 or better."""
        batch = self.batch.take([0] * rows)
        at = torch.full((rows, 1), batch.ids.shape[1] - 1, device=batch.ids.device)
        resid = self.resid[start].expand(rows, -1, -1)
        prefix = self.prefix.take(torch.zeros(rows, dtype=torch.long, device=batch.ids.device), start=start)
        return at_least_float32(model.run(batch, start=start, resid=resid, prefix=prefix, at=at, taps=taps)[:, 0])


def answer_token(model: Model, text: str, answer: str | None) -> tuple[tuple[int, ...], int]:
    """(ids of the prompt, first token of the answer after it); the model's first choice where there is no answer."""
    if answer is None:
        ids = model.encode(text).ids
        return ids, int(model.last_logits(align([ids], [0]))[0].argmax())
    ids, begin = model.encode_answer(text, answer)
    if begin >= len(ids):
        raise FactError(f"The answer {answer!r} has no token after {text!r}; give one with a visible character.")
    if begin == 0:
        raise FactError(f"No token of {text!r} comes before the answer {answer!r}; give a prompt that ends in a word.")
    return ids[:begin], ids[begin]


def foil_token(model: Model, text: str, foil: str | None, prompt: Sequence[int], answer: int) -> int:
    """The first token of the foil, which must differ from the answer's."""
    if foil is None:
        raise FactError(f"A difference needs a foil, and {text!r} has none; give foil=... or a fact with target_new.")
    ids, token = answer_token(model, text, foil)
    if tuple(ids) != tuple(prompt):
        raise FactError(f"The foil {foil!r} and the answer cut {text!r} into different tokens; choose another foil.")
    if token == answer:
        raise FactError(
            f"The foil {foil!r} begins with the token of the answer, {model.tokenizer.decode([token])!r}; "
            f"choose one that differs in its first token."
        )
    return token
