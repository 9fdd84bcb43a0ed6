"""The CounterFact suite: was the new answer written, does it hold in other words, and are neighbours left alone.

For one fact with old answer o and new answer o*, with nll(a | x) the mean negative log-likelihood of a token of answer a
after x, and p(a | x) = exp(-nll(a | x)) (Meng et al. 2022, section 3.4; `eval_utils_counterfact.py` of the published code):

    es   efficacy score          1 if nll(o* | prompt) < nll(o | prompt)
    em   efficacy magnitude      p(o* | prompt) - p(o | prompt)
    ps   paraphrase score        mean over paraphrases of 1 if nll(o* | x) < nll(o | x)
    pm   paraphrase magnitude    mean over paraphrases of p(o* | x) - p(o | x)
    ns   neighbourhood score     mean over neighbours of 1 if nll(own answer | x) < nll(o* | x)
    nm   neighbourhood magnitude mean over neighbours of p(own answer | x) - p(o* | x)
    s    score                   harmonic mean of mean es, mean ps and mean ns

All are better when larger. A probability comparison is not generation: es = 1 says that o* outranks o, not that the model
would write it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp
from typing import Any

from palimpsest.errors import FactError
from palimpsest.facts import Fact
from palimpsest.locate.answers import answer_nll
from palimpsest.model import Model

METRICS = ("es", "em", "ps", "pm", "ns", "nm")
HIGHER_IS_BETTER = dict.fromkeys((*METRICS, "s"), True)


@dataclass(frozen=True)
class CounterFact:
    """The suite, for any facts with both answers; facts without paraphrases or neighbours lack those metrics."""

    name = "counterfact"

    def measure(self, model: Model, facts: Sequence[Fact]) -> list[dict[str, Any]]:
        """Metrics of each fact on the model as it is now, plus the nll of both answers after the prompt.

        Raises:
            FactError: a fact lacks `target_true` or `target_new`.
        """
        pairs: list[tuple[str, str]] = []
        spans: list[tuple[int, int, int]] = []
        for fact in facts:
            old, new = _answers(fact)
            begin = len(pairs)
            for text in fact.wordings:
                pairs += [(text, new), (text, old)]
            middle = len(pairs)
            for probe in fact.neighbours:
                pairs += [(probe.prompt, new), (probe.prompt, probe.answer or old)]
            spans.append((begin, middle, len(pairs)))
        nll = answer_nll(model, pairs)
        return [_metrics(nll[a:b], nll[b:c]) for a, b, c in spans]


def _answers(fact: Fact) -> tuple[str, str]:
    if fact.target_true is None or fact.target_new is None:
        missing = "target_true" if fact.target_true is None else "target_new"
        raise FactError(f"The fact {fact.id} ({fact.text!r}) has no {missing}; CounterFact compares both answers.")
    return fact.target_true, fact.target_new


def _metrics(own: Sequence[float], near: Sequence[float]) -> dict[str, Any]:
    """From alternating nll (new, old) of the wordings and (new, own answer) of the neighbours."""
    wins = [float(new < old) for new, old in zip(own[::2], own[1::2], strict=True)]
    gaps = [exp(-new) - exp(-old) for new, old in zip(own[::2], own[1::2], strict=True)]
    kept = [float(answer < new) for new, answer in zip(near[::2], near[1::2], strict=True)]
    kept_gaps = [exp(-answer) - exp(-new) for new, answer in zip(near[::2], near[1::2], strict=True)]
    return {
        "es": wins[0],
        "em": gaps[0],
        "ps": _mean(wins[1:]),
        "pm": _mean(gaps[1:]),
        "ns": _mean(kept),
        "nm": _mean(kept_gaps),
        "nll_new": own[0],
        "nll_true": own[1],
    }


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
