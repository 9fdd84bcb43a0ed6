"""What may be asked of a model, and what it answers.

    Likelihood(text, answer)     how likely the answer is after the text, token by token
    NextToken(text)              the distribution of the token after the text
    Written(text, ...)           what the model writes after the text
    Passage(text)                how likely every token of the text is

A metric is arithmetic over such answers. Because asks are plain values, the same one asked by two suites, before and after
two edits or in two runs is recognised, answered once and kept.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Likelihood:
    """Teacher forcing: the answer's tokens, each given the true ones before it."""

    text: str
    answer: str


@dataclass(frozen=True)
class NextToken:
    """The whole next-token distribution."""

    text: str


@dataclass(frozen=True)
class Written:
    """Free generation.

    Attributes:
        text: what to continue.
        tokens: at most so many new ones; the end-of-text token ends it before.
        top_k: 0 for greedy; else each token is drawn from the `top_k` likeliest.
        seed: of the drawing; each ask has a generator of its own, so that what is asked beside it changes nothing.
    """

    text: str
    tokens: int = 24
    top_k: int = 0
    seed: int = 0


@dataclass(frozen=True)
class Passage:
    """A text to read: every token after the first, given those before it (no longer than the context)."""

    text: str


@dataclass(frozen=True)
class LikelihoodAnswer:
    """nll in nats a token, and for each token of the answer whether it was the likeliest, and which one was."""

    nll: float
    right: tuple[bool, ...]
    best: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class NextTokenAnswer:
    """Natural logarithms of the probabilities, float32, on the CPU."""

    log_p: Float[Tensor, "vocabulary"]

    @property
    def best(self) -> int:
        """The likeliest token."""
        return int(torch.argmax(self.log_p))


@dataclass(frozen=True)
class PassageAnswer:
    """Sum of the nll of the tokens read, in nats, and how many they were."""

    nll: float
    tokens: int


Ask = Likelihood | NextToken | Written | Passage
Answer = LikelihoodAnswer | NextTokenAnswer | PassageAnswer | str
