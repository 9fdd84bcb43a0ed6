"""Coverage: of all the ways to ask for a fact, how many may still give another answer?

A benchmark tries n held-out wordings of a fact and k of them fail. The share of *all* such wordings that fail is then at
most, with confidence `level`, the u that makes k or fewer failures as rare as 1 - level (Clopper and Pearson 1934,
one-sided):

    sum_{i=0}^{k} C(n, i) u^i (1 - u)^(n - i) = 1 - level          u = 1 - (1 - level)^(1/n) where k = 0

    coverage_failed    k / n
    coverage_upper     u
    coverage_whole     1 if k = 0

A wording fails where not every token of the new answer is the likeliest in its place, that is where greedy writing does not
begin with the answer. Two paraphrases that both hold bound the share of failing wordings by 0.78 only: "generalises" is a
large word for them. The bound takes wordings for independent draws from those one would use; the two or ten of a benchmark
are seldom that. For a method, add up the k and n of its facts and give them to `coverage_bound`: the mean of `coverage_upper`
bounds each fact, not all of them together.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

from palimpsest.errors import InputError, SettingError
from palimpsest.evaluate.asks import Ask
from palimpsest.evaluate.suite import Answers, Metric
from palimpsest.evaluate.suites.parts import exact, lacks, likelihoods, new_answer
from palimpsest.facts import Case


@dataclass(frozen=True)
class Coverage:
    """The suite, for facts with paraphrases; `level` is the confidence of the bound."""

    level: float = 0.95
    name = "coverage"
    metrics = {
        "coverage_failed": Metric("share of the held-out wordings that fail", False),
        "coverage_upper": Metric("upper confidence limit of the share of wordings that would fail", False),
        "coverage_whole": Metric("1 if no held-out wording fails", True),
    }

    def asks(self, case: Case) -> Sequence[Ask]:
        """The new answer after every paraphrase."""
        if not case.fact.paraphrases:
            raise lacks(case, self.name, "paraphrase")
        return likelihoods((text, new_answer(case.fact)) for text in case.fact.paraphrases)

    def measure(self, case: Case, before: Answers, after: Answers) -> dict[str, float | None]:
        """The three metrics."""
        wordings = case.fact.paraphrases
        failed = sum(not exact(after, text, (new_answer(case.fact),)) for text in wordings)
        return {
            "coverage_failed": failed / len(wordings),
            "coverage_upper": coverage_bound(failed, len(wordings), self.level),
            "coverage_whole": float(failed == 0),
        }


def coverage_bound(failed: int, n: int, level: float = 0.95) -> float:
    """The upper confidence limit of the share of wordings that fail, `failed` of n having done so.

    >>> round(coverage_bound(0, 2), 3), round(coverage_bound(0, 59), 3)
    (0.776, 0.05)

    Raises:
        InputError: n is below 1, or `failed` not between 0 and n.
        SettingError: level is not strictly between 0 and 1.
    """
    if n < 1 or not 0 <= failed <= n:
        raise InputError(f"Expected 0 to n failures among n >= 1 wordings, got {failed} of {n}.")
    if not 0 < level < 1:
        raise SettingError(f"The level must lie strictly between 0 and 1, got {level}; 0.95 is usual.")
    if failed == n:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(60):  # the sum falls as u rises
        u = (low + high) / 2
        chance = sum(comb(n, i) * u**i * (1 - u) ** (n - i) for i in range(failed + 1))
        low, high = (u, high) if chance > 1 - level else (low, u)
    return high
