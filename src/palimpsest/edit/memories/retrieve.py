"""Which stored facts belong to a prompt: three retrievers with one face.

    bm25      words:   sum over words w of the prompt of  idf(w) f (c + 1) / (f + c (1 - b + b n / n_mean)),  c = 1.2, b = 0.75
                       with f how often w stands in the fact's text, n its number of words, and over N facts, of which N_w have w,
                       idf(w) = log(1 + (N - N_w + 1/2) / (N_w + 1/2))           (Robertson and Zaragoza 2009, section 3)
    keys      model:   cosine of the residual stream at the last token, halfway up the model, its mean over the facts taken away
    encoder   given:   cosine of what a function makes of two texts, such as a sentence encoder

A score at or above the threshold is a hit. BM25's is divided by what the fact's text scores against itself, so that it is 1 for
the fact's own prompt, and one threshold does for short facts and long ones.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from palimpsest.errors import InputError
from palimpsest.locate.precision import at_least_float32
from palimpsest.model import Model, Site, pad

Encoder = Callable[[Sequence[str]], Tensor]
RETRIEVERS = ("bm25", "keys", "encoder")
SATURATION, LENGTH = 1.2, 0.75


@dataclass(frozen=True)
class Bm25:
    """Scores of prompts against `texts` by the words they share."""

    texts: tuple[str, ...]

    @cached_property
    def _counts(self) -> list[Counter[str]]:
        return [Counter(words(text)) for text in self.texts]

    @cached_property
    def _holding(self) -> Counter[str]:
        return Counter(word for counts in self._counts for word in counts)

    def scores(self, prompt: str) -> list[float]:
        """One score a text, 1 for a prompt that is the text."""
        asked = words(prompt)
        return [
            self._raw(asked, i) / own if (own := self._raw(words(text), i)) else 0.0
            for i, text in enumerate(self.texts)
        ]

    def _raw(self, asked: Sequence[str], i: int) -> float:
        counts, many = self._counts[i], len(self.texts)
        mean_length = sum(sum(one.values()) for one in self._counts) / many
        whole = SATURATION * (1 - LENGTH + LENGTH * sum(counts.values()) / mean_length) if mean_length else 0.0
        score = 0.0
        for word in dict.fromkeys(asked):
            if found := counts[word]:
                rarity = math.log(1 + (many - self._holding[word] + 0.5) / (self._holding[word] + 0.5))
                score += rarity * found * (SATURATION + 1) / (found + whole)
        return score


def words(text: str) -> list[str]:
    """Words in lower case; what is neither letter nor digit parts them."""
    return re.findall(r"\w+", text.lower())


@torch.no_grad()
def model_keys(model: Model, texts: Sequence[str]) -> Tensor:
    """The residual stream at the last token of each text, halfway up `model`, one row a text."""
    site = Site("resid_out", model.n_layers // 2)
    kept, model.before[:] = list(model.before), []  # the text itself, not what a memory would put before it
    try:
        with model.evaluating():
            rows = [model.record(pad([model.encode(text).ids]), [site])[site][0, -1] for text in texts]
    finally:
        model.before[:] = kept
    return at_least_float32(torch.stack(rows)).cpu()


def cosines(stored: Tensor, asked: Tensor, centre: Tensor) -> Tensor:
    """Cosine of each stored row with `asked`, both measured from `centre`; 0 where either is there."""
    a, b = stored - centre, asked - centre
    return (a @ b) / (a.norm(dim=-1) * b.norm()).clamp(min=torch.finfo(a.dtype).tiny)


def encoded(encoder: Encoder, texts: Sequence[str]) -> Tensor:
    """One row a text; raises `InputError` when the encoder gives anything else."""
    rows = encoder(list(texts))
    if (
        not isinstance(rows, Tensor)
        or rows.dim() != 2
        or len(rows) != len(texts)
        or not bool(torch.isfinite(rows).all())
    ):
        got = tuple(rows.shape) if isinstance(rows, Tensor) else type(rows).__name__
        raise InputError(f"The encoder must give a tensor of {len(texts)} rows of finite numbers, got {got}.")
    return at_least_float32(rows.detach()).cpu()


def rows_of(model: Model, retriever: str, texts: Sequence[str], encoder: Callable[[], Encoder]) -> Tensor:
    """One row a text: of the model itself for "keys", of the encoder, loaded when it is needed, for "encoder"; empty for "bm25"."""
    if retriever == "bm25":
        return torch.zeros(len(texts), 0)
    return model_keys(model, texts) if retriever == "keys" else encoded(encoder(), texts)
