"""The ParaRel suite: does a model say the same, and the right thing, however it is asked (Elazar et al. 2021).

With the wordings x_1 .. x_n of a fact, a_i the model's answer to x_i, and o the answer an edit asks for, or where nothing is
edited the true one:

    pararel_consistency    share of the n (n - 1) / 2 pairs of wordings with a_i = a_j; none where n = 1
    pararel_accuracy       share of the wordings with a_i = o
    pararel_all_right      1 if a_i = o for every wording: consistent and accurate
    pararel_kept           share of the wordings whose a_i is the unedited model's

a_i is, where `candidates` holds answers of the fact's relation, the one of them with the lowest nll a token (as published,
where all are single tokens); `ParaRel.over(cases)` takes those of the cases themselves. Without candidates a_i is the first
word that the model writes, and right where it is the first word of o; where it writes no word, that is neither right nor the same
as at another wording. Only wordings that end in the answer are used.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from palimpsest.evaluate.asks import Ask, Likelihood, Written
from palimpsest.evaluate.suite import Answers, Metric
from palimpsest.evaluate.suites.parts import lacks, mean
from palimpsest.evaluate.words import words
from palimpsest.facts import Case, Fact


@dataclass(frozen=True)
class ParaRel:
    """The suite; `candidates` are answers by relation, and without them `tokens` are written after a wording."""

    candidates: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    tokens: int = 6
    name = "pararel"
    metrics = {
        "pararel_consistency": Metric("share of pairs of wordings with the same answer", True),
        "pararel_accuracy": Metric("share of wordings with the right answer", True),
        "pararel_all_right": Metric("1 if every wording has the right answer", True),
        "pararel_kept": Metric("share of wordings answered as by the unedited model", None, needs_before=True),
    }

    @classmethod
    def over(cls, cases: Sequence[Case]) -> "ParaRel":
        """With the answers, true and new, that the cases of each relation have."""
        found: dict[str, dict[str, None]] = {}
        for fact in (fact for case in cases for fact in case.facts):
            for answer in (fact.target_true, fact.target_new):
                if answer is not None:
                    found.setdefault(fact.relation, {})[answer] = None
        return cls({relation: tuple(answers) for relation, answers in found.items()})

    def asks(self, case: Case) -> Sequence[Ask]:
        """What is forced and what is written."""
        fact = case.fact
        if _wanted(fact) is None:
            raise lacks(case, self.name, "answer (target_true or target_new)")
        among = self.candidates.get(fact.relation)
        if among is None:
            return [Written(text, self.tokens) for text in fact.wordings]
        return [Likelihood(text, answer) for text in fact.wordings for answer in among]

    def measure(self, case: Case, before: Answers, after: Answers) -> dict[str, float | None]:
        """The metrics above."""
        fact = case.fact
        said = self._answers(fact, after)
        right = [_same(one, self._as_said(_wanted(fact) or "", fact)) for one in said]
        return {
            "pararel_consistency": mean(_same(one, other) for one, other in combinations(said, 2)),
            "pararel_accuracy": mean(right),
            "pararel_all_right": float(all(right)),
            "pararel_kept": mean(one == old for one, old in zip(said, self._answers(fact, before), strict=True)),
        }

    def _answers(self, fact: Fact, answers: Answers) -> list[str]:
        """The model's answer to each wording."""
        among = self.candidates.get(fact.relation)
        if among is None:
            return [_first_word(answers.written(Written(text, self.tokens))) for text in fact.wordings]
        return [min(among, key=lambda one: answers.nll(text, one)) for text in fact.wordings]

    def _as_said(self, answer: str, fact: Fact) -> str:
        return answer if fact.relation in self.candidates else _first_word(answer)


def _wanted(fact: Fact) -> str | None:
    return fact.target_true if fact.target_new is None else fact.target_new


def _same(one: str, other: str) -> bool:
    return one == other != ""


def _first_word(text: str) -> str:
    """Empty where there is none."""
    return next(iter(words(text)), "")
