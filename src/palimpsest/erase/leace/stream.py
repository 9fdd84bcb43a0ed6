"""States of labelled texts at one site after another, on a model that is erased on the way.

The eraser at a site is fitted on states that were erased at every site below it already (Belrose et al. 2023, section 6: concept
scrubbing). Running every text from the embedding for each layer would cost L(L + 1)/2 layers; here the residual stream that
entered the last layer is kept, as it is after all erasers below, and the next layer runs from there.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from palimpsest.erase.leace.concepts import Concept
from palimpsest.locate.answers import by_length
from palimpsest.model import Batch, Model, Site, Tap, pad

TOKENS_AT_ONCE = 2048


@dataclass
class _Chunk:
    """Some of the texts, their labels, and how far up their residual stream has come."""

    batch: Batch
    labels: tuple[str, ...]
    layer: int = 0
    resid: Float[Tensor, "rows tokens width"] | None = None


class Stream:
    """The texts of a concept; sites are read in ascending order of layers."""

    def __init__(self, model: Model, concept: Concept) -> None:
        self.model = model
        rows = [text.ids(model) for text in concept.texts]
        self._chunks = [
            _Chunk(pad([rows[i] for i in chosen]).to(model.device), tuple(concept.texts[i].label for i in chosen))
            for chosen in by_length([len(row) for row in rows], tokens=TOKENS_AT_ONCE)
        ]

    def read(
        self, site: Site, taps: Sequence[Tap] = ()
    ) -> Iterator[tuple[Float[Tensor, "rows width"], tuple[str, ...], Float[Tensor, "tokens width"]]]:
        """Chunk by chunk, with `taps` in force: the states at `site` of the token each text is read at, the labels, and the states
        of every token up to there.
        """
        for chunk in self._chunks:
            entering = Site("resid_in", site.layer)
            advances = site.kind != "resid_in"  # an eraser is about to be put there: what enters the layer is not final
            wanted = [entering, site] if advances else [site]
            acting = [tap for tap in taps if _acts_from(tap.site, chunk.layer, chunk.resid is not None)]
            with self.model.evaluating():
                states = self.model.record(chunk.batch, wanted, start=chunk.layer, resid=chunk.resid, taps=acting)
            if advances:
                chunk.layer, chunk.resid = site.layer, states[entering]
            at, every = torch.arange(len(chunk.batch)), chunk.batch.mask.bool()
            yield states[site][at, chunk.batch.last], chunk.labels, states[site][every]


def _acts_from(site: Site, layer: int, kept: bool) -> bool:
    """Whether a tap at `site` is still to be applied to a stream that is kept where it enters `layer`."""
    if not kept:
        return True
    return site.layer > layer or (site.layer == layer and site.kind != "resid_in")
