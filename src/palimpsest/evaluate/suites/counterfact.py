"""The CounterFact suite: was the new answer written, does it hold in other words, and are neighbours left alone.

For one fact with old answer o and new answer o*, with nll(a | x) the mean negative log-likelihood of a token of answer a
after x, and p(a | x) = exp(-nll(a | x)) (Meng et al. 2022, section 3.4; `eval_utils_counterfact.py` of the published code):

    es   efficacy score          1 if nll(o* | prompt) < nll(o | prompt)
    em   efficacy magnitude      p(o* | prompt) - p(o | prompt)
    ps   paraphrase score        mean over paraphrases of 1 if nll(o* | x) < nll(o | x)
    pm   paraphrase magnitude    mean over paraphrases of p(o* | x) - p(o | x)
    ns   neighbourhood score     mean over neighbours of 1 if nll(own answer | x) < nll(o* | x)
    nm   neighbourhood magnitude mean over neighbours of p(own answer | x) - p(o* | x)
    s    score                   harmonic mean of mean es, mean ps and mean ns, over the facts that have all three

All are better when larger. A probability comparison is not generation: es = 1 says that o* outranks o, not that the model
would write it.
"""

from collections.abc import Mapping, Sequence
from math import exp
from typing import Any

from palimpsest.errors import FactError
from palimpsest.evaluate.asks import Ask, Likelihood
from palimpsest.evaluate.suite import Answers, Metric
from palimpsest.evaluate.suites.parts import mean
from palimpsest.facts import Fact
from palimpsest.facts.case import Case
from palimpsest.locate.answers import answer_nll
from palimpsest.model import Model

METRICS = ("es", "em", "ps", "pm", "ns", "nm")
HIGHER_IS_BETTER: Mapping[str, bool] = dict.fromkeys((*METRICS, "s"), True)


class CounterFact:
    """The suite, for any facts with both answers; facts without paraphrases or neighbours lack those metrics."""

    name = "counterfact"
    metrics = {
        "es": Metric("1 if nll(new) < nll(old) after the prompt", True),
        "em": Metric("p(new) - p(old) after the prompt, p = exp(-nll)", True),
        "ps": Metric("1 if nll(new) < nll(old), mean over paraphrases", True),
        "pm": Metric("p(new) - p(old), mean over paraphrases", True),
        "ns": Metric("1 if nll(own answer) < nll(new), mean over neighbours", True),
        "nm": Metric("p(own answer) - p(new), mean over neighbours", True),
        "s": Metric("harmonic mean of the means of es, ps and ns", True, harmonic_of=("es", "ps", "ns")),
    }

    def asks(self, case: Case) -> Sequence[Ask]:
        """Both answers after every wording, the own and the new answer after every neighbour."""
        own, near = pairs_of(case.fact)
        return [Likelihood(text, answer) for text, answer in (*own, *near)]

    def measure(self, case: Case, before: Answers, after: Answers) -> dict[str, float | None]:
        """The metrics, and the nll of both answers after the prompt."""
        own, near = pairs_of(case.fact)
        return _metrics([after.nll(*pair) for pair in own], [after.nll(*pair) for pair in near])


def counterfact_scores(model: Model, facts: Sequence[Fact]) -> list[dict[str, Any]]:
    """The metrics of each fact on the model as it is now, and the nll of both answers after the prompt.

    Raises:
        FactError: a fact lacks `target_true` or `target_new`.
    """
    asked = [pairs_of(fact) for fact in facts]
    nll = iter(answer_nll(model, [pair for own, near in asked for pair in (*own, *near)]))
    return [_metrics([next(nll) for _ in own], [next(nll) for _ in near]) for own, near in asked]


def pairs_of(fact: Fact) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """(text, answer): new and old of each wording; new and own of each neighbour."""
    old, new = both_answers(fact)
    own = [(text, answer) for text in fact.wordings for answer in (new, old)]
    near = [(probe.prompt, answer) for probe in fact.neighbours for answer in (new, probe.answer or old)]
    return own, near


def both_answers(fact: Fact) -> tuple[str, str]:
    """Old and new answer; raises `FactError` where one is missing."""
    if fact.target_true is None or fact.target_new is None:
        missing = "target_true" if fact.target_true is None else "target_new"
        raise FactError(f"The fact {fact.id} ({fact.text!r}) has no {missing}; CounterFact compares both answers.")
    return fact.target_true, fact.target_new


def _metrics(own: Sequence[float], near: Sequence[float]) -> dict[str, float | None]:
    """From alternating nll (new, old) of the wordings and (new, own answer) of the neighbours."""
    wins = [float(new < old) for new, old in zip(own[::2], own[1::2], strict=True)]
    gaps = [exp(-new) - exp(-old) for new, old in zip(own[::2], own[1::2], strict=True)]
    kept = [float(answer < new) for new, answer in zip(near[::2], near[1::2], strict=True)]
    kept_gaps = [exp(-answer) - exp(-new) for new, answer in zip(near[::2], near[1::2], strict=True)]
    return {
        "es": wins[0],
        "em": gaps[0],
        "ps": mean(wins[1:]),
        "pm": mean(gaps[1:]),
        "ns": mean(kept),
        "nm": mean(kept_gaps),
        "nll_new": own[0],
        "nll_true": own[1],
    }
