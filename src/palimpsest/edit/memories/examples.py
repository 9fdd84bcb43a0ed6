"""Examples: facts that a memory learns its borders of."""

from collections.abc import Sequence

from palimpsest.errors import SettingError
from palimpsest.facts import Fact, read_facts

COUNT = 96  # of the shipped facts, where none are given


def examples_or_shipped(given: Sequence[Fact] | None) -> tuple[Fact, ...]:
    """Those given, or some of the shipped facts of every relation."""
    if given is not None:
        return tuple(given)
    shipped = read_facts("shipped").facts
    return tuple(shipped[:: max(1, len(shipped) // COUNT)][:COUNT])


def refuse_edited(given: Sequence[Fact] | None, facts: Sequence[Fact]) -> None:
    """Raise `SettingError` where one of the examples that were given is edited."""
    texts = {fact.text for fact in facts}
    if both := next((fact for fact in given or () if fact.text in texts), None):
        raise SettingError(f"The fact {both.id} is edited and an example too; take it out of the examples.")
