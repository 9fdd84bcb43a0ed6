"""Prompts with the answer that is read after them, as one batch, and what is measured there.

-(1/A) sum_a log p(o_a | prompt, o_<a)                   `nll`, nats a token, for each row
(1/A) sum_a KL(p(. | prompt, o_<a) || q(. | ...))        `divergence`, nats a token, for each row
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from palimpsest.errors import FactError
from palimpsest.locate.precision import at_least_float32
from palimpsest.model import Batch, Model, pad


@dataclass(frozen=True)
class Answers:
    """Rows of prompt and answer: `at` are the columns read, `wanted` the tokens there, `weight` 1/A (0 where there is none)."""

    batch: Batch
    at: Int[Tensor, "rows positions"]
    wanted: Int[Tensor, "rows positions"]
    weight: Float[Tensor, "rows positions"]


def answers_of(model: Model, asked: Sequence[tuple[str, str | None]]) -> Answers:
    """(text, answer) pairs as one batch; without an answer the next token alone is read, and none is wanted there.

    Raises:
        FactError: a text has no token before its answer.
    """
    ids: list[tuple[int, ...]] = []
    reads: list[list[tuple[int, int]]] = []
    for text, answer in asked:
        if answer is None:
            whole = model.encode(text).ids
            ids.append(whole)
            reads.append([(len(whole) - 1, 0)])
            continue
        whole, begin = model.encode_answer(text, answer)
        if not 0 < begin < len(whole):
            raise FactError(f"The prompt {text!r} and the answer {answer!r} must have a token each; change them.")
        ids.append(whole[:-1])
        reads.append([(at - 1, whole[at]) for at in range(begin, len(whole))])
    most = max(len(read) for read in reads)
    at, wanted = torch.zeros(len(ids), most, dtype=torch.long), torch.zeros(len(ids), most, dtype=torch.long)
    weight = torch.zeros(len(ids), most)
    for row, read in enumerate(reads):
        at[row, : len(read)], wanted[row, : len(read)] = torch.tensor(read).T
        weight[row, : len(read)] = 1 / len(read)
    device = model.device
    return Answers(pad(ids).to(device), at.to(device), wanted.to(device), weight.to(device))


def log_p(model: Model, answers: Answers) -> Float[Tensor, "rows positions vocabulary"]:
    """Log-probabilities of every token at the columns read."""
    return at_least_float32(model.run(answers.batch, at=answers.at)).log_softmax(-1)


def nll(model: Model, answers: Answers) -> Float[Tensor, "rows"]:
    """Mean loss of each row's answer."""
    found = log_p(model, answers).gather(2, answers.wanted[:, :, None])[:, :, 0]
    return -(found * answers.weight.to(found.dtype)).sum(1)


def divergence(
    before: Float[Tensor, "rows positions vocabulary"],
    after: Float[Tensor, "rows positions vocabulary"],
    weight: Float[Tensor, "rows positions"],
) -> Float[Tensor, "rows"]:
    """Mean KL(before || after) of each row, from log-probabilities."""
    return ((before.exp() * (before - after)).sum(-1) * weight.to(after.dtype)).sum(1)
