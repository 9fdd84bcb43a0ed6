"""Synonymy: does an edit hold when the relation goes by another name (Niu et al. 2024, section 5)?

"X works in the field of", "X specialises in" and "the discipline of X is" are one relation. With x a prompt that names
the relation by a synonym, o the old answer and o* the new one:

    synonymy_forward    token accuracy(o* | prompt): the edit itself
    synonymy_accuracy   token accuracy(o* | x), mean over synonyms
    synonymy_score      1 if nll(o* | x) < nll(o | x), mean over synonyms; none without an old answer
    synonymy_gen        1 if the first line written after x says o* in whole words, mean over synonyms

The prompts are the fact's entailed probes of the kind "synonymy"; for relations in `SYNONYMS` they are made here, those that
the fact is asked in already left out. Paraphrases of CounterFact mostly keep the relation's word and put other text before
it: another question.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from palimpsest.evaluate.asks import Ask, Written
from palimpsest.evaluate.suite import Answers, Metric
from palimpsest.evaluate.suites.parts import lacks, likelihoods, mean, new_answer, says, spoken, token_accuracy
from palimpsest.facts import Case, Fact

# The same relation by other names, as prompts about the subject.
SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "P19": ("{} was born in the city of", "{} came into the world in", "The native town of {} is"),
    "P20": ("{} passed away in", "The last days of {} were spent in", "{} breathed their last in"),
    "P30": ("{} lies on the continent of", "{} is a part of the landmass of", "{} can be found on a map of"),
    "P36": ("The capital city of {} is", "The seat of government of {} is in", "The government of {} sits in"),
    "P101": (
        "The discipline of {} is",
        "The specialty of {} is",
        "{} is an expert in the field of",
        "{} does research in the area of",
        "{} made a name in the subject of",
    ),
    "P103": ("The mother tongue of {} is", "As a child, {} first learned to speak", "{} grew up speaking"),
    "P106": ("The occupation of {} is", "{} earns a living as a", "By trade, {} is a"),
    "P159": ("The head office of {} is in", "{} is based in", "The main office of {} can be found in"),
    "P176": ("{} is built by the company", "The maker of {} is", "{} comes from the factories of"),
    "P364": ("The original language of {} is", "{} was first recorded in the language", "The actors in {} speak"),
}


@dataclass(frozen=True)
class Synonymy:
    """The suite; `tokens` are written at most after a prompt."""

    tokens: int = 24
    name = "synonymy"
    metrics = {
        "synonymy_forward": Metric("token accuracy of the new answer after the prompt", True),
        "synonymy_accuracy": Metric("token accuracy of the new answer after synonymous prompts, mean", True),
        "synonymy_score": Metric("1 if the new answer is likelier than the old after a synonymous prompt, mean", True),
        "synonymy_gen": Metric("1 if the text written after a synonymous prompt says the new answer, mean", True),
    }

    def asks(self, case: Case) -> Sequence[Ask]:
        """Both answers after every synonymous prompt, and what is written there."""
        fact, prompts = case.fact, self._prompts(case)
        new = new_answer(fact)
        old = () if fact.target_true is None else ((text, fact.target_true) for text in prompts)
        forced = likelihoods([*((text, new) for text in (fact.text, *prompts)), *old])
        return [*forced, *(Written(text, self.tokens) for text in prompts)]

    def measure(self, case: Case, before: Answers, after: Answers) -> dict[str, float | None]:
        """The four metrics."""
        fact, prompts = case.fact, self._prompts(case)
        new, old = new_answer(fact), fact.target_true
        return {
            "synonymy_forward": token_accuracy(after, fact.text, new),
            "synonymy_accuracy": mean(token_accuracy(after, text, new) for text in prompts),
            "synonymy_score": None
            if old is None
            else mean(after.nll(text, new) < after.nll(text, old) for text in prompts),
            "synonymy_gen": mean(says(spoken(after.written(Written(text, self.tokens))), (new,)) for text in prompts),
        }

    def _prompts(self, case: Case) -> list[str]:
        prompts = synonymous_prompts(case.fact)
        if not prompts:
            raise lacks(
                case, self.name, "synonymous prompts (entailed probes of the kind 'synonymy', or a relation with some)"
            )
        return prompts


def synonymous_prompts(fact: Fact) -> list[str]:
    """The probes of the fact, or else what the table has of its relation and the fact is not asked in."""
    own = [probe.prompt for probe in fact.entailed if probe.kind == "synonymy"]
    if own:
        return own
    made = [prompt.replace("{}", fact.subject) for prompt in SYNONYMS.get(fact.relation, ())]
    return [text for text in made if not any(wording.endswith(text) for wording in fact.wordings)]
