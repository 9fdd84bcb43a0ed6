"""Symmetry: after an edit of "the capital of France is Rome", is France what Rome is the capital of (Niu et al. 2024,
section 5)?

For a bijective relation, an edit of (s, r, o) to (s, r, o*) makes (o*, r's inverse, s) true. With x a reverse prompt
about o*:

    symmetry_forward         token accuracy(o* | prompt): the edit itself
    symmetry_reverse         token accuracy(s | x), mean over reverse prompts
    symmetry_reverse_gain    nll(s | x) unedited - nll(s | x) edited, in nats a token, mean over reverse prompts
    symmetry_gen_reverse     1 if the first line written after x says s in whole words, mean over reverse prompts

The reverse prompts are the fact's entailed probes of the kind "reverse"; for relations in `REVERSE` they are made here. An
accuracy of zero after a forward accuracy of one says that the answer was put behind a prompt and nothing was said of o*; the
gain says whether s came nearer at all. The published script compares against a relation name with a typing error and stops
(P1367 for P1376).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from palimpsest.evaluate.asks import Ask, Written
from palimpsest.evaluate.suite import Answers, Metric
from palimpsest.evaluate.suites.parts import (
    answered,
    lacks,
    likelihoods,
    mean,
    new_answer,
    says,
    spoken,
    token_accuracy,
)
from palimpsest.facts import Case, Fact

# Prompts about o* whose answer is s, for relations with one o for each s and one s for each o.
REVERSE: Mapping[str, tuple[str, ...]] = {
    "P36": ("{} is the capital of", "{} is the capital city of", "The country whose capital is {} is"),
    "P1376": ("The capital of {} is", "The capital city of {} is", "The seat of government of {} is in"),
    "capital": ("{} is the capital of", "{} is the capital city of", "The country whose capital is {} is"),
    "state_capital": ("{} is the capital of the state of", "The state whose capital is {} is"),
}


@dataclass(frozen=True)
class Symmetry:
    """The suite; `tokens` are written at most after a reverse prompt."""

    tokens: int = 24
    name = "symmetry"
    metrics = {
        "symmetry_forward": Metric("token accuracy of the new answer after the prompt", True),
        "symmetry_reverse": Metric(
            "token accuracy of the subject after reverse prompts about the new answer, mean", True
        ),
        "symmetry_reverse_gain": Metric(
            "fall of the subject's nll after reverse prompts, mean", True, "nats", needs_before=True
        ),
        "symmetry_gen_reverse": Metric("1 if the text written after a reverse prompt says the subject, mean", True),
    }

    def asks(self, case: Case) -> Sequence[Ask]:
        """The new answer after the prompt, the subject after the reverse prompts, and what is written there."""
        fact = case.fact
        pairs = self._reverse(case)
        forced = likelihoods([(fact.text, new_answer(fact)), *pairs])
        return [*forced, *(Written(text, self.tokens) for text, _ in pairs)]

    def measure(self, case: Case, before: Answers, after: Answers) -> dict[str, float | None]:
        """The four metrics."""
        fact, pairs = case.fact, self._reverse(case)
        return {
            "symmetry_forward": token_accuracy(after, fact.text, new_answer(fact)),
            "symmetry_reverse": mean(token_accuracy(after, *pair) for pair in pairs),
            "symmetry_reverse_gain": mean(before.nll(*pair) - after.nll(*pair) for pair in pairs),
            "symmetry_gen_reverse": mean(
                says(spoken(after.written(Written(text, self.tokens))), (subject,)) for text, subject in pairs
            ),
        }

    def _reverse(self, case: Case) -> list[tuple[str, str]]:
        pairs = reverse_prompts(case.fact)
        if not pairs:
            raise lacks(
                case, self.name, "reverse prompts (entailed probes of the kind 'reverse', or a relation with one)"
            )
        return pairs


def reverse_prompts(fact: Fact) -> list[tuple[str, str]]:
    """Each reverse prompt with its answer: the probes of the fact, or else what the table has of its relation."""
    own = list(answered(probe for probe in fact.entailed if probe.kind == "reverse"))
    if own:
        return own
    return [(prompt.replace("{}", new_answer(fact)), fact.subject) for prompt in REVERSE.get(fact.relation, ())]
