"""Keys: the input k of a down-projection at the last token of a subject, and the value v = W k + b it is mapped to.

k* = mean over contexts x_j of k(x_j + s) (Meng et al. 2022, equation 3). Tokens after the subject cannot reach it, so each
text is cut right after the subject, and only the layers up to the edited one run.

Other tokens than the last of the subject can carry an edit; they are named by role:

    subject_last     as published
    subject_first    the first token of the subject
    subject_middle   the token halfway between them (the first of two)
    last             the last token of the prompt
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from palimpsest.edit.contexts import in_context
from palimpsest.facts import Fact
from palimpsest.locate.precision import at_least_float32
from palimpsest.model import Model, Site, pad

TOKENS = ("subject_last", "subject_first", "subject_middle", "last")
WEIGHTINGS = ("mean", "halves", "bare")


def edited_token(model: Model, context: str, fact: Fact, token: str = "subject_last") -> tuple[tuple[int, ...], int]:
    """Token ids of the fact's prompt in a context, and the position of the token that carries the edit."""
    encoded = model.encode(in_context(context, fact.text))
    start, end = (len(context) + at for at in fact.subject_span)
    subject = encoded.tokens_of(start, end)
    at = {
        "subject_first": subject[0],
        "subject_middle": subject[(len(subject) - 1) // 2],
        "subject_last": subject[-1],
        "last": len(encoded) - 1,
    }
    return encoded.ids, at[token]


def cut_after(model: Model, context: str, fact: Fact, token: str = "subject_last") -> tuple[int, ...]:
    """Token ids of the prompt in a context, up to and with the token that carries the edit."""
    ids, at = edited_token(model, context, fact, token)
    return ids[: at + 1]


def keys_and_values(
    model: Model, layer: int, fact: Fact, contexts: Sequence[str], token: str = "subject_last"
) -> tuple[Float[Tensor, "contexts d_key"], Float[Tensor, "contexts d"]]:
    """k and v = W k + b of `fact` at `layer`, one row a context, in float32 or better."""
    batch = pad([cut_after(model, context, fact, token) for context in contexts])
    sites = (Site("key", layer), Site("value", layer))
    states = model.record(batch, sites)
    at = torch.arange(len(batch)), batch.last
    key, value = (at_least_float32(states[site][at]) for site in sites)
    return key, value


def combine(per_context: Float[Tensor, "*facts contexts d"], weighting: str) -> Float[Tensor, "*facts d"]:
    """One key (or value) from one row a context, of which the first is the bare prompt.

    "mean"    every context alike, as ROME's k*
    "halves"  half the bare prompt and half the mean of the others, as MEMIT's keys
    "bare"    the bare prompt only
    """
    if weighting == "bare" or per_context.shape[-2] == 1:
        return per_context[..., 0, :]
    if weighting == "halves":
        return 0.5 * per_context[..., 0, :] + 0.5 * per_context[..., 1:, :].mean(dim=-2)
    return per_context.mean(dim=-2)
