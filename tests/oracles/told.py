"""Answers written by hand, for the arithmetic of a suite without a model."""

from collections.abc import Mapping, Sequence
from typing import Any

from palimpsest.evaluate.asks import Answer, Ask, Likelihood, LikelihoodAnswer, Written
from palimpsest.evaluate.suite import Answers, Suite
from palimpsest.facts import Case

Forced = Mapping[tuple[str, str], Sequence[int]]


def told(
    forced: Forced | None = None, wrote: Mapping[Any, str] | None = None, *, tokens: int = 24
) -> dict[Ask, Answer]:
    """`forced` gives for each (text, answer) the likeliest token at each place, 1 being the right one; `wrote` what was written.

    The nll of a forced answer is the number of its wrong tokens, in nats a token.
    """
    found: dict[Ask, Answer] = {}
    for (text, answer), best in (forced or {}).items():
        right = tuple(token == 1 for token in best)
        found[Likelihood(text, answer)] = LikelihoodAnswer(1.0 * right.count(False), right, tuple(best))
    for ask, text in (wrote or {}).items():
        found[ask if isinstance(ask, Written) else Written(ask, tokens)] = text
    return found


def measured(
    suite: Suite, case: Case, before: Mapping[Ask, Answer], after: Mapping[Ask, Answer]
) -> dict[str, float | None]:
    """What the suite makes of the answers, which must be exactly those it asks for; every metric is there and no other."""
    assert set(suite.asks(case)) == set(after) == set(before)
    found = suite.measure(case, Answers(before), Answers(after))
    assert set(found) == set(suite.metrics)
    return found
