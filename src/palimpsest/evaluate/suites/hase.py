"""Hase et al.'s normalised scores: of the change that was possible, how much was made (2023, section 3.2)?

With p(x) = exp(-nll(o* | x)) before and p'(x) after the edit (o* is their o_false, the answer that is injected):

    hase_rewrite         (p'(x) - p(x)) / (1 - p(x)) after the prompt
    hase_paraphrase      the same, mean over paraphrases
    hase_neighbourhood   1 - |p'(x) - p(x)| / (1/2 + |p(x) - 1/2|), mean over neighbours
    hase_overall         of one fact: harmonic mean of the three, each no less than 2e-8

One where everything possible happened, zero where nothing did; a rewrite that lowers p is negative. Where 1 - p is at most 2e-8
there is nothing to gain, and the score is left out. Their released code reads only the first paraphrase and the first neighbour
of each fact, and puts the floor of 2e-8 under the single scores too; here all are read, as the paper says, and the floor serves
the harmonic mean alone.
"""

from collections.abc import Sequence
from math import exp
from statistics import harmonic_mean

from palimpsest.evaluate.asks import Ask, Likelihood
from palimpsest.evaluate.suite import Answers, Metric
from palimpsest.evaluate.suites.parts import mean, new_answer
from palimpsest.facts.case import Case

FLOOR = 2e-8


class Hase:
    """The suite, for facts with a new answer."""

    name = "hase"
    metrics = {
        "hase_rewrite": Metric("(p' - p) / (1 - p) of the new answer after the prompt", True, needs_before=True),
        "hase_paraphrase": Metric(
            "(p' - p) / (1 - p) of the new answer, mean over paraphrases", True, needs_before=True
        ),
        "hase_neighbourhood": Metric(
            "1 - |p' - p| / (0.5 + |p - 0.5|) of the new answer, mean over neighbours", True, needs_before=True
        ),
        "hase_overall": Metric(
            "harmonic mean of the three scores of a fact, each at least 2e-8", True, needs_before=True
        ),
    }

    def asks(self, case: Case) -> Sequence[Ask]:
        """The new answer after every wording and every neighbour."""
        new = new_answer(case.fact)
        return [
            Likelihood(text, new) for text in (*case.fact.wordings, *(near.prompt for near in case.fact.neighbours))
        ]

    def measure(self, case: Case, before: Answers, after: Answers) -> dict[str, float | None]:
        """The four metrics."""
        new = new_answer(case.fact)

        def both(text: str) -> tuple[float, float]:
            return exp(-before.nll(text, new)), exp(-after.nll(text, new))

        gains = [gained(*both(text)) for text in case.fact.wordings]
        paraphrase = mean([gain for gain in gains[1:] if gain is not None])
        neighbourhood = mean([kept(*both(probe.prompt)) for probe in case.fact.neighbours])
        three = [score for score in (gains[0], paraphrase, neighbourhood) if score is not None]
        overall = harmonic_mean([max(FLOOR, score) for score in three]) if len(three) == 3 else None
        return {
            "hase_rewrite": gains[0],
            "hase_paraphrase": paraphrase,
            "hase_neighbourhood": neighbourhood,
            "hase_overall": overall,
        }


def gained(p: float, after: float) -> float | None:
    """(p' - p) / (1 - p); None where nothing was left to gain."""
    return (after - p) / (1 - p) if 1 - p > FLOOR else None


def kept(p: float, after: float) -> float:
    """1 - |p' - p| / (1/2 + |p - 1/2|)."""
    return 1 - abs(after - p) / (0.5 + abs(p - 0.5))
