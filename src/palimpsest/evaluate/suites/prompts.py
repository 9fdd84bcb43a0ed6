"""What several suites need of a fact and of numbers."""

from collections.abc import Iterable

from palimpsest.errors import FactError
from palimpsest.facts import Fact


def mean(values: Iterable[float | bool]) -> float | None:
    """The mean, None of nothing."""
    found = [float(value) for value in values]
    return sum(found) / len(found) if found else None


def new_answer(fact: Fact) -> str:
    """The answer that an edit writes; raises `FactError` where there is none."""
    if fact.target_new is None:
        raise FactError(
            f"The fact {fact.id} ({fact.text!r}) has no target_new; give the answer that an edit should write."
        )
    return fact.target_new
