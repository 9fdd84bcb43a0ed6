"""The RippleEdits suite: six axes along which an edit should, or should not, spread (Cohen et al. 2024, section 3).

A check counts only where the *unedited* model answers its condition queries; it is passed where any or all of its queries, as
it says, are answered. A query is answered where every one of its answers stands, in any spelling and in whole words, in the
first line that the model writes after it.

    ripple_success            1 if the first line after the edit's prompt says the new answer
    ripple_AXIS               share of the checks of the axis that count and are passed; none where none counts
    ripple_AXIS_if_edited     the same, of the cases with ripple_success = 1 alone: the published number
    ripple_executed           share of all checks that count: says how much the others rest on; neither large nor small is better

    AXIS    relation_specificity, forgetfulness                      other facts must stay
            logical_generalization, subject_aliasing,
            compositionality_i, compositionality_ii                  what follows must change

The published script looks for answers in the prompt too, where some of them stand already, and lets the model write as many
tokens as the prompt has characters and 30 more. Here only the new text is searched, of at most `tokens` tokens. The published
number has a condition that an edit decides, so two methods are compared on different cases; compare them by `ripple_AXIS`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from palimpsest.evaluate.asks import Ask, Written
from palimpsest.evaluate.suite import Answers, Metric
from palimpsest.evaluate.suites.checks import applies, passes
from palimpsest.evaluate.suites.parts import lacks, mean, new_answer, says, spoken
from palimpsest.facts import Case, Query
from palimpsest.facts.ripple import AXES


@dataclass(frozen=True)
class Ripple:
    """The suite; `tokens` are written at most after a prompt."""

    tokens: int = 30
    name = "ripple"
    metrics = {
        "ripple_success": Metric("1 if the text written after the prompt says the new answer", True),
        **{
            f"ripple_{axis.lower()}": Metric(f"share of the {axis} checks that count and are passed", True)
            for axis in AXES
        },
        **{
            f"ripple_{axis.lower()}_if_edited": Metric(
                f"share of the {axis} checks passed where the edit succeeded", True
            )
            for axis in AXES
        },
        "ripple_executed": Metric("share of the checks whose conditions the unedited model meets", None),
    }

    def asks(self, case: Case) -> Sequence[Ask]:
        """What is written after the prompt and every query."""
        fact = case.fact
        new_answer(fact)
        if not any(check.kind in AXES for check in case.checks):
            raise lacks(case, self.name, "check of one of the six axes")
        queries = [query for check in case.checks for query in (*check.conditions, *check.queries)]
        return [Written(text, self.tokens) for text in dict.fromkeys([fact.text, *(query.prompt for query in queries)])]

    def measure(self, case: Case, before: Answers, after: Answers) -> dict[str, float | None]:
        """The metrics above."""
        fact, new = case.fact, new_answer(case.fact)
        checks = [check for check in case.checks if check.kind in AXES]
        counted = [check for check in checks if applies(check, lambda query: self._said(before, query))]
        success = says(spoken(after.written(Written(fact.text, self.tokens))), (new,))
        values: dict[str, float | None] = {"ripple_success": float(success)}
        for axis in AXES:
            own = [check for check in counted if check.kind == axis]
            share = mean(passes(check, lambda query: self._said(after, query)) for check in own)
            values[f"ripple_{axis.lower()}"] = share
            values[f"ripple_{axis.lower()}_if_edited"] = share if success else None
        return values | {"ripple_executed": len(counted) / len(checks)}

    def _said(self, answers: Answers, query: Query) -> str:
        return spoken(answers.written(Written(query.prompt, self.tokens)))
