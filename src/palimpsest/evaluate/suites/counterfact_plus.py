"""CounterFact+: is a neighbour still left alone when the edited sentence stands before its prompt?

    "The Eiffel Tower is located in the city of Rome. The Louvre is in"

An edit that watches for its subject loses its specificity when the subject is near (Hoelscher-Obermaier et al. 2023, "Detecting
Edit Failures in Large Language Models", section 3). With the prompt, the new answer o* and ". " before each neighbour's prompt:

    ns_plus    mean over neighbours of 1 if nll(own answer | x+) < nll(o* | x+)
    nm_plus    mean over neighbours of p(own answer | x+) - p(o* | x+)
    kl_plus    mean over neighbours of KL(p || p') of the next token after x+, p unedited and p' edited, in nats

The unedited model reads o* in the same text, so ns_plus before the edit is the ceiling, and below ns. Published NKL is KL(p'
|| p) divided by the size of the vocabulary: its code averages over the entries of one vector.
"""

from collections.abc import Sequence
from math import exp

from palimpsest.errors import FactError
from palimpsest.evaluate.asks import Ask, Likelihood, NextToken
from palimpsest.evaluate.suite import Answers, Metric
from palimpsest.evaluate.suites.counterfact import both_answers
from palimpsest.evaluate.suites.locality import divergence
from palimpsest.evaluate.suites.parts import mean
from palimpsest.facts import Fact
from palimpsest.facts.case import Case


class CounterFactPlus:
    """The suite, for facts with both answers and neighbours."""

    name = "counterfact_plus"
    metrics = {
        "ns_plus": Metric("1 if nll(own answer) < nll(new) after edit sentence and prompt, mean over neighbours", True),
        "nm_plus": Metric("p(own answer) - p(new) after edit sentence and prompt, mean over neighbours", True),
        "kl_plus": Metric(
            "KL(before || after) of the next token after edit sentence and prompt, mean over neighbours",
            False,
            "nats",
            needs_before=True,
        ),
    }

    def asks(self, case: Case) -> Sequence[Ask]:
        """Both answers and the next token after each lengthened prompt."""
        asks: list[Ask] = []
        for text, new, own in lengthened(case.fact):
            asks += [Likelihood(text, new), Likelihood(text, own), NextToken(text)]
        return asks

    def measure(self, case: Case, before: Answers, after: Answers) -> dict[str, float | None]:
        """The three metrics."""
        asked = lengthened(case.fact)
        nll = [(after.nll(text, own), after.nll(text, new)) for text, new, own in asked]
        moved = [divergence(before.next_token(text), after.next_token(text)) for text, _, _ in asked]
        return {
            "ns_plus": mean([float(own < new) for own, new in nll]),
            "nm_plus": mean([exp(-own) - exp(-new) for own, new in nll]),
            "kl_plus": mean(moved),
        }


def lengthened(fact: Fact) -> list[tuple[str, str, str]]:
    """For each neighbour: the edited sentence and its prompt, the new answer, its own answer."""
    old, new = both_answers(fact)
    if not fact.neighbours:
        raise FactError(f"The fact {fact.id} has no neighbours; CounterFact+ asks nothing else.")
    return [(f"{fact.text} {new}. {probe.prompt}", new, probe.answer or old) for probe in fact.neighbours]
