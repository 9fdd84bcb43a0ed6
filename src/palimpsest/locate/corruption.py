"""Corruptions of a subject: what is done to its embeddings so that the model no longer knows whom it is asked about.

Gaussian noise (Meng et al. 2022, section 2.1): each of S samples adds noise_level * N(0, 1) to the embedding of every
subject token, at the output of the token embedding. The level is `SPREADS` = 3 times the standard deviation of the
embeddings of subjects, measured at that same place.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from palimpsest.facts import Fact
from palimpsest.model import EMBED, Model, Tap, pad

SPREADS = 3.0


def embedding_spread(model: Model, facts: Sequence[Fact]) -> float:
    """Standard deviation over all entries of the embeddings of all subject tokens of `facts`, as in the published code."""
    subjects = sorted({fact.subject for fact in facts})
    rows = [model.tokenizer(subject, add_special_tokens=False).input_ids for subject in subjects]
    batch = pad(rows)
    embedded = model.record(batch, [EMBED])[EMBED][batch.mask.bool().to(model.device)]
    return float(embedded.double().std())


def noise_draw(
    samples: int, tokens: int, width: int, *, seed: int, fact: Fact | None
) -> Float[Tensor, "samples tokens width"]:
    """Standard normal noise in float64, the same for a fact, a seed and a shape on every machine.

    With `fact` None the draw depends on the shape only and begins with `RandomState(seed)`, as in the published code, where
    all facts with as many subject tokens share one draw.
    """
    if fact is not None:
        name = f"{seed}\0{fact.subject}\0{fact.prompt}".encode()
        seed = int.from_bytes(hashlib.blake2b(name, digest_size=4).digest(), "big")
    return torch.from_numpy(np.random.RandomState(seed).randn(samples, tokens, width))


def add_noise(noise: Float[Tensor, "samples tokens width"], first: int, *, column: int = 0) -> Tap:
    """A tap on the embedding that adds `noise` to columns [first, first + tokens) of a run that begins at `column`."""

    def function(embedded: Tensor) -> Tensor:
        changed = embedded.clone()
        begin, end = max(first, column), min(first + noise.shape[1], column + embedded.shape[1])
        if begin < end:
            added = noise[:, begin - first : end - first].to(changed.dtype)
            changed[:, begin - column : end - column] += added.to(changed.device)
        return changed

    return Tap(EMBED, function)
