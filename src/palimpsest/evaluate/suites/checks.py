"""Whether a model passes a check: questions answered by free generation, and the answers looked for in what it wrote."""

from collections.abc import Callable

from palimpsest.evaluate.suites.parts import says_all
from palimpsest.facts import Check, Query


def passes(check: Check, said: Callable[[Query], str]) -> bool:
    """Whether any or all of the queries, as the check needs, are answered with all of their answers."""
    right = (says_all(said(query), query.answers) for query in check.queries)
    return any(right) if check.need == "any" else all(right)


def applies(check: Check, said: Callable[[Query], str]) -> bool:
    """Whether all conditions hold for the model that `said` it, which should be the unedited one."""
    return all(says_all(said(query), query.answers) for query in check.conditions)
