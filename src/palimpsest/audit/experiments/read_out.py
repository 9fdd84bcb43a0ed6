"""What a tensor inside the model says about answers: the gradient of each answer's logit, and the tensor along it.

    a(t, l) = < d logit_t / d v_l , v_l >          v_l an MLP's output at one token, t the first token of an answer

Two networks can stand above v_l. `through` the model itself: the gradient goes through all later layers to the last token, so
that a is what a first-order change of v_l would say (the relation's Jacobian; Hernandez et al. 2024, "Linearity of relation
decoding"). `direct`: only the final norm, linearised at the state of the same token, and the head, so that a is what v_l adds
to that token's own read-out, as in Geva et al. 2021 ("Transformer feed-forward layers are key-value memories").
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import torch
from jaxtyping import Float
from torch import Tensor

from palimpsest.audit.setting import LAST, POSITIONS, SUBJECT
from palimpsest.errors import InputError
from palimpsest.facts import Fact
from palimpsest.locate.answers import prompt_and_token
from palimpsest.locate.precision import at_least_float32
from palimpsest.model import EMBED, Model, Site, Tap, pad

OUTPUTS = {"mlp": "mlp_out", "attn": "attn_out", "state": "resid_out"}


@dataclass(frozen=True)
class Question:
    """A prompt as tokens, where its subject ends, and the first tokens of answers.

    Attributes:
        ids: of the prompt.
        at: position of each of `POSITIONS`.
        tokens: answer to its first token, the fact's own answer first; no two alike.
    """

    ids: tuple[int, ...]
    at: Mapping[str, int]
    tokens: Mapping[str, int]


def answers_of(facts: Sequence[Fact], relation: str) -> tuple[str, ...]:
    """Every answer that facts of a relation have, in order."""
    return tuple(sorted({str(fact.target_true) for fact in facts if fact.relation == relation and fact.target_true}))


def question(model: Model, fact: Fact, answers: Sequence[str], most: int) -> Question:
    """The fact's own answer and up to `most` others, chosen the same way for all facts of a relation.

    An answer that begins like one that is already there, or like an alias of the fact's own, is left out: it could not be told
    apart.

    Raises:
        FactError: the fact's answer has no token of its own after the prompt.
    """
    encoded, own = prompt_and_token(model, fact.text, str(fact.target_true))
    tokens, taken = {str(fact.target_true): own}, {own}
    for alias in fact.answer_aliases:
        taken |= _first(model, fact.text, alias)
    for answer in sorted(answers, key=lambda text: blake2b(text.encode(), digest_size=8).digest()):
        fresh = _first(model, fact.text, answer) - taken
        if fresh and len(tokens) <= most:
            tokens[answer] = fresh.pop()
            taken.add(tokens[answer])
    place = {SUBJECT: encoded.tokens_of(*fact.subject_span)[-1], LAST: len(encoded) - 1}
    return Question(encoded.ids, place, tokens)


def through(
    model: Model, asked: Question, sites: Sequence[Site], at: str = SUBJECT
) -> tuple[Float[Tensor, "sites width"], Float[Tensor, "answers sites width"]]:
    """(v, d logit_t / d v) of every site at one position, through the rest of the model to the last token."""
    kept: dict[Site, Tensor] = {}

    def keep(site: Site, tensor: Tensor) -> Tensor:
        kept[site] = tensor.clone()
        return kept[site]

    taps = [Tap(EMBED, lambda tensor: tensor.detach().clone().requires_grad_())]
    taps += [Tap(site, lambda tensor, site=site: keep(site, tensor)) for site in sites]  # type: ignore[misc]
    batch, tokens = pad([asked.ids]), list(asked.tokens.values())
    with torch.enable_grad(), model.evaluating():
        logits = model.run(batch, at=batch.last[:, None].to(model.device), taps=taps)[0, 0]
        inside = [kept[site] for site in sites]
        slopes = [torch.autograd.grad(logits[token], inside, retain_graph=True) for token in tokens]
    where = asked.at[at]
    values = torch.stack([tensor.detach()[0, where] for tensor in inside])
    return at_least_float32(values), at_least_float32(
        torch.stack([torch.stack([s[0, where] for s in of]) for of in slopes])
    )


def direct(model: Model, state: Float[Tensor, " width"], tokens: Sequence[int]) -> Float[Tensor, "answers width"]:
    """d logit_t / d h through the final norm and the head alone, at a state h of the last layer."""
    with torch.enable_grad(), model.evaluating():
        leaf = state.detach().clone().requires_grad_()
        logits = model.run(pad([(0,)]), start=model.n_layers, resid=leaf[None, None])[0, 0]
        slopes = [torch.autograd.grad(logits[token], leaf, retain_graph=True)[0] for token in tokens]
    return at_least_float32(torch.stack(slopes))


def output_sites(model: Model, module: str) -> list[Site]:
    """The outputs of a kind of module in all layers; of a state, what its MLP adds."""
    kind = OUTPUTS["mlp" if module == "state" else module]
    return [Site(kind, layer) for layer in range(model.n_layers)]


def _first(model: Model, text: str, answer: str) -> set[int]:
    """The first token of an answer, or nothing where the prompt does not take it."""
    try:
        return {prompt_and_token(model, text, answer)[1]}
    except InputError:
        return set()


__all__ = [
    "OUTPUTS",
    "POSITIONS",
    "Question",
    "answers_of",
    "direct",
    "output_sites",
    "question",
    "through",
]
