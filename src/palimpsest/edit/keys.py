"""Keys: the input k of a down-projection at the last token of a subject, and the value v = W k + b it is mapped to.

k* = mean over contexts x_j of k(x_j + s) (Meng et al. 2022, equation 3). Tokens after the subject cannot reach it, so each
text is cut right after the subject, and only the layers up to the edited one run.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from palimpsest.edit.contexts import in_context
from palimpsest.facts import Fact
from palimpsest.locate.precision import at_least_float32
from palimpsest.model import Model, Site, pad


def subject_end(model: Model, context: str, fact: Fact) -> tuple[tuple[int, ...], int]:
    """Token ids of the fact's prompt in a context, and the position of the last token of its subject."""
    encoded = model.encode(in_context(context, fact.text))
    start, end = (len(context) + at for at in fact.subject_span)
    return encoded.ids, encoded.tokens_of(start, end)[-1]


def keys_and_values(
    model: Model, layer: int, fact: Fact, contexts: Sequence[str]
) -> tuple[Float[Tensor, "contexts d_key"], Float[Tensor, "contexts d"]]:
    """k and v = W k + b of `fact` at `layer`, one row a context, in float32 or better."""
    rows = []
    for context in contexts:
        ids, last = subject_end(model, context, fact)
        rows.append(ids[: last + 1])
    batch = pad(rows)
    sites = (Site("key", layer), Site("value", layer))
    states = model.record(batch, sites)
    at = torch.arange(len(batch)), batch.last
    key, value = (at_least_float32(states[site][at]) for site in sites)
    return key, value


def combine(per_context: Float[Tensor, "contexts d"], weighting: str) -> Float[Tensor, "d"]:
    """One key (or value) from one row a context, of which the first is the bare prompt.

    "mean"    every context alike, as ROME's k*
    "halves"  half the bare prompt and half the mean of the others, as MEMIT's keys
    "bare"    the bare prompt only
    """
    if weighting == "bare" or len(per_context) == 1:
        return per_context[0]
    if weighting == "halves":
        return 0.5 * per_context[0] + 0.5 * per_context[1:].mean(dim=0)
    return per_context.mean(dim=0)
