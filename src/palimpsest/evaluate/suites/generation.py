"""Free generation: what does the edited model write by itself after the prompt, greedily and with a natural stop?

    gen_exact       1 if the text up to a natural stop (end of a sentence, of a line, of the text) is o* and nothing else
    gen_begins      1 if the text begins with o*
    gen_contains    1 if o* stands anywhere in the first 24 tokens
    p_...           the same, mean over paraphrases

Text and answer are compared as normalised words (`palimpsest.evaluate.words`). gen_exact is the strictest and is low for
models that go on talking ("Rome, Italy."); gen_contains is the most lenient, and also true of "not Rome but Paris". Nothing
of the prompt is searched, and the answer's length is not told to the model: published scripts that search the prompt too, or
write exactly as many tokens as the answer has, score higher (Yang et al. 2025, "The Mirage of Model Editing", find 96.8 %
become 38.5 %).
"""

from collections.abc import Sequence

from palimpsest.evaluate.asks import Ask, Written
from palimpsest.evaluate.suite import Answers, Metric
from palimpsest.evaluate.suites.parts import mean, new_answer
from palimpsest.evaluate.words import begins, contains, equals
from palimpsest.facts.case import Case

TESTS = {"exact": equals, "begins": begins, "contains": contains}


class Generation:
    """The suite, for facts with a new answer."""

    name = "generation"
    metrics = {
        "gen_exact": Metric("1 if the greedy text up to a natural stop is the new answer", True),
        "gen_begins": Metric("1 if the greedy text begins with the new answer", True),
        "gen_contains": Metric("1 if the new answer stands in 24 greedy tokens", True),
        "p_gen_exact": Metric("gen_exact, mean over paraphrases", True),
        "p_gen_begins": Metric("gen_begins, mean over paraphrases", True),
        "p_gen_contains": Metric("gen_contains, mean over paraphrases", True),
    }

    def asks(self, case: Case) -> Sequence[Ask]:
        """Greedy text after every wording."""
        new_answer(case.fact)
        return [Written(text) for text in case.fact.wordings]

    def measure(self, case: Case, before: Answers, after: Answers) -> dict[str, float | None]:
        """The six metrics."""
        new = new_answer(case.fact)
        texts = [after.written(Written(text)) for text in case.fact.wordings]
        found: dict[str, float | None] = {}
        for name, test in TESTS.items():
            said = [float(test(text, new)) for text in texts]
            found |= {f"gen_{name}": said[0], f"p_gen_{name}": mean(said[1:])}
        return found
