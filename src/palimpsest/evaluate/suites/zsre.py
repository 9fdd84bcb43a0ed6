"""The zsRE suite: questions, teacher forced as in the tables, beside what the model writes by itself.

With the edit's answer a ("alt"), the question q, its rephrasings, an unrelated question u with its right answer g, and a
question p whose answer b follows from the edit (Mitchell et al. 2022; Meng et al. 2023, section 5.1; Yao et al. 2023):

    zsre_efficacy            token accuracy(a | q)
    zsre_paraphrase          mean over rephrasings of token accuracy(a | rephrasing)
    zsre_specificity_gold    token accuracy(g | u): as published, against the right answer
    zsre_specificity         agreement(g | u) with the unedited model
    zsre_portability         token accuracy(b | p)
    zsre_gen_*               the same questions answered freely: 1 if the first line says the answer in whole words;
                             for specificity 1 if it equals what the unedited model wrote

The published specificity is not what an edit disturbs: a model that knows few of the answers scores low without any edit,
and its unedited value is the ceiling. The agreement beside it is 1 where nothing changed. One forward pass gives every
token of an answer; the published script decodes prefixes of it and asks anew, which tokenises foreign letters
differently.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from palimpsest.evaluate.asks import Ask, Written
from palimpsest.evaluate.suite import Answers, Metric
from palimpsest.evaluate.suites.parts import (
    agreement,
    answered,
    lacks,
    likelihoods,
    mean,
    new_answer,
    says,
    spellings,
    spoken,
    token_accuracy,
)
from palimpsest.evaluate.words import words
from palimpsest.facts import Case, Probe


@dataclass(frozen=True)
class Zsre:
    """The suite; `tokens` are written at most to a question."""

    tokens: int = 24
    name = "zsre"
    metrics = {
        "zsre_efficacy": Metric("token accuracy of the new answer after the question", True),
        "zsre_paraphrase": Metric("token accuracy of the new answer after rephrasings, mean", True),
        "zsre_specificity_gold": Metric("token accuracy of the right answer after an unrelated question", True),
        "zsre_specificity": Metric(
            "agreement with the unedited model after an unrelated question", True, needs_before=True
        ),
        "zsre_portability": Metric("token accuracy of the answer that follows from the edit", True),
        "zsre_gen_efficacy": Metric("1 if the answer written to the question says the new answer", True),
        "zsre_gen_paraphrase": Metric("1 if the answer written to a rephrasing says the new answer, mean", True),
        "zsre_gen_specificity": Metric(
            "1 if the answer written to an unrelated question is the unedited model's", True, needs_before=True
        ),
        "zsre_gen_portability": Metric("1 if the answer written says what follows from the edit", True),
    }

    def asks(self, case: Case) -> Sequence[Ask]:
        """What is forced and what is written."""
        fact, new = case.fact, new_answer(case.fact)
        if not fact.far:
            raise lacks(case, self.name, "unrelated question (far)")
        probes = [*fact.far, *fact.entailed]
        texts = [*fact.wordings, *(probe.prompt for probe in probes)]
        forced = likelihoods([*((text, new) for text in fact.wordings), *answered(probes)])
        return [*forced, *(self._written(text) for text in texts)]

    def measure(self, case: Case, before: Answers, after: Answers) -> dict[str, float | None]:
        """The metrics above."""
        fact, new = case.fact, new_answer(case.fact)
        forced = [token_accuracy(after, text, new) for text in fact.wordings]
        said = [says(self._spoken(after, text), (new,)) for text in fact.wordings]
        far = list(answered(fact.far))
        return {
            "zsre_efficacy": forced[0],
            "zsre_paraphrase": mean(forced[1:]),
            "zsre_specificity_gold": mean(token_accuracy(after, *pair) for pair in far),
            "zsre_specificity": mean(agreement(before, after, *pair) for pair in far),
            "zsre_portability": mean(token_accuracy(after, *pair) for pair in answered(fact.entailed)),
            "zsre_gen_efficacy": float(said[0]),
            "zsre_gen_paraphrase": mean(said[1:]),
            "zsre_gen_specificity": mean(self._unchanged(probe, before, after) for probe in fact.far),
            "zsre_gen_portability": mean(
                says(self._spoken(after, probe.prompt), spellings(probe)) for probe in fact.entailed if probe.answer
            ),
        }

    def _written(self, text: str) -> Written:
        return Written(text, self.tokens)

    def _spoken(self, answers: Answers, text: str) -> str:
        return spoken(answers.written(self._written(text)))

    def _unchanged(self, probe: Probe, before: Answers, after: Answers) -> bool:
        return words(self._spoken(before, probe.prompt)) == words(self._spoken(after, probe.prompt))
