"""BLiMP: does the model still find the grammatical one of two sentences likelier (Warstadt et al. 2020)?

With nll(x) the sum over the tokens of a sentence, good and bad the pair:

    blimp_right     1 if nll(good) < nll(bad)
    blimp_margin    nll(bad) - nll(good), in nats
    blimp_kept      1 if the verdict is the unedited model's

The sum and not the mean, as published: sentences of a pair have nearly the same length, and where one is longer it is so for
its grammar. The first token is given, not predicted, unless the tokenizer begins every text with a token of its own: of a
pair that differs in its first word, such a model is asked only what follows. Cases are pairs from `read_cases`, good and bad
on two lines; a fact of the schema "blimp" is the pair of its text with either answer.
"""

from collections.abc import Sequence

from palimpsest.evaluate.asks import Ask, Passage
from palimpsest.evaluate.suite import Answers, Metric
from palimpsest.evaluate.suites.parts import lacks
from palimpsest.facts import Case


class Blimp:
    """The suite, for minimal pairs."""

    name = "blimp"
    metrics = {
        "blimp_right": Metric("1 if the grammatical sentence is likelier", True),
        "blimp_margin": Metric("log-probability of the grammatical sentence less that of the other", True, "nats"),
        "blimp_kept": Metric("1 if the verdict is that of the unedited model", True, needs_before=True),
    }

    def asks(self, case: Case) -> Sequence[Ask]:
        """Both sentences."""
        return [Passage(sentence) for sentence in pair(case)]

    def measure(self, case: Case, before: Answers, after: Answers) -> dict[str, float | None]:
        """The three metrics."""
        margin, old = _margin(case, after), _margin(case, before)
        return {
            "blimp_right": float(margin > 0),
            "blimp_margin": margin,
            "blimp_kept": float((margin > 0) == (old > 0)),
        }


def pair(case: Case) -> tuple[str, str]:
    """The grammatical sentence of a case, and the other."""
    if case.text is not None and case.text.count("\n") == 1:
        good, bad = case.text.split("\n")
        return good, bad
    if len(case.facts) == 1 and case.id.startswith("blimp/"):
        fact = case.fact
        return f"{fact.text} {fact.target_true}", f"{fact.text} {fact.target_new}"
    raise lacks(case, Blimp.name, "minimal pair (a text of two lines)")


def _margin(case: Case, answers: Answers) -> float:
    good, bad = (answers.passage(sentence).nll for sentence in pair(case))
    return bad - good
