"""CounterFact's metrics as one writes them down first: one prompt, one answer, one forward pass, no padding."""

from collections.abc import Sequence
from math import exp

import torch

from palimpsest.facts import Fact


@torch.no_grad()
def nll(net, tokenizer, text: str, answer: str) -> float:
    """Mean over the tokens of " answer" of -log p(token | everything before it)."""
    prompt, wanted = tokenizer(text).input_ids, tokenizer(" " + answer, add_special_tokens=False).input_ids
    log_p = torch.log_softmax(net(input_ids=torch.tensor([prompt + wanted])).logits[0], dim=-1)
    terms = [-float(log_p[len(prompt) - 1 + j, token]) for j, token in enumerate(wanted)]
    return sum(terms) / len(terms)


def metrics(net, tokenizer, fact: Fact) -> dict[str, float]:
    """es, em, ps, pm, ns, nm of one fact."""
    old, new = str(fact.target_true), str(fact.target_new)

    def won(text: str) -> tuple[float, float]:
        a, b = nll(net, tokenizer, text, new), nll(net, tokenizer, text, old)
        return float(a < b), exp(-a) - exp(-b)

    def kept(text: str, answer: str) -> tuple[float, float]:
        a, b = nll(net, tokenizer, text, answer), nll(net, tokenizer, text, new)
        return float(a < b), exp(-a) - exp(-b)

    efficacy = won(fact.text)
    paraphrase = [won(text) for text in fact.paraphrases]
    neighbour = [kept(probe.prompt, probe.answer or old) for probe in fact.neighbours]
    return {
        "es": efficacy[0],
        "em": efficacy[1],
        "ps": _mean([score for score, _ in paraphrase]),
        "pm": _mean([magnitude for _, magnitude in paraphrase]),
        "ns": _mean([score for score, _ in neighbour]),
        "nm": _mean([magnitude for _, magnitude in neighbour]),
    }


def score(es: Sequence[float], ps: Sequence[float], ns: Sequence[float]) -> float:
    """S: the harmonic mean of the three means over facts."""
    means = [_mean(es), _mean(ps), _mean(ns)]
    return 0.0 if min(means) == 0 else 3 / sum(1 / mean for mean in means)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
