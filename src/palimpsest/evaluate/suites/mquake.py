"""The MQuAKE suite: are facts that were edited together also used together (Zhong et al. 2023, section 2.3).

    mquake_edit_wise        share of the edited facts whose question is answered with the new answer
    mquake_instance_wise    1 if every single hop of the new chain is answered
    mquake_multi_hop        1 if any of the three wordings of the question over the whole chain is answered

A question is put as "Q: ...\\nA:", by default without examples before it; `shots` is text that goes before, such as

    "Q: What is the capital of France?\\nA: Paris\\n\\n"

and every number should be told with it, because a base model answers few bare questions. What the model writes, greedily, up
to the end of the line is its answer; it is right where it says the answer, or an alias of it, in whole words. Equality, as
published, is missed by "It is Rome." and not by "Rome"; whole words are found in both.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from palimpsest.evaluate.asks import Ask, Written
from palimpsest.evaluate.suite import Answers, Metric
from palimpsest.evaluate.suites.checks import passes
from palimpsest.evaluate.suites.parts import lacks, mean, spoken
from palimpsest.facts import Case, Query

KINDS = ("edit_wise", "instance_wise", "multi_hop")


@dataclass(frozen=True)
class Mquake:
    """The suite; `shots` stands before each question, and `tokens` are written at most to it."""

    shots: str = ""
    tokens: int = 24
    name = "mquake"
    metrics = {
        "mquake_edit_wise": Metric("share of the edited facts whose question is answered", True),
        "mquake_instance_wise": Metric("1 if every single hop of the new chain is answered", True),
        "mquake_multi_hop": Metric("1 if any wording of the multi-hop question is answered", True),
    }

    def asks(self, case: Case) -> Sequence[Ask]:
        """Every question of its checks."""
        checks = [check for check in case.checks if check.kind in KINDS]
        if not checks:
            raise lacks(case, self.name, f"check of the kind {', '.join(KINDS)}")
        return list(dict.fromkeys(self._asked(query) for check in checks for query in check.queries))

    def measure(self, case: Case, before: Answers, after: Answers) -> dict[str, float | None]:
        """The metrics above."""

        def said(query: Query) -> str:
            return spoken(after.written(self._asked(query)))

        return {
            f"mquake_{kind}": mean(passes(check, said) for check in case.checks if check.kind == kind) for kind in KINDS
        }

    def _asked(self, query: Query) -> Written:
        return Written(f"{self.shots}Q: {query.prompt}\nA:", self.tokens)
