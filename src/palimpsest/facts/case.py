"""A case: what one record of a benchmark edits and everything it then asks.

    case = Case.of(fact)                       # one fact; what to ask is in its strata
    case = Case("mquake/14", (fact,), checks=(
        Check("multi_hop", (Query("Which country is the creator of Devious Maids a citizen of?", (("Bulgaria", "BUL"),)),)),
    ))

Most benchmarks ask single questions, which the strata of a `Fact` hold. Multi-hop and ripple benchmarks edit several facts
at once and ask for several answers, some of them only where the unedited model knew what the question rests on: those are
`checks` (Cohen et al. 2024, section 3; Zhong et al. 2023, section 2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from palimpsest.errors import FactError
from palimpsest.facts.fact import Fact


@dataclass(frozen=True)
class Query:
    """One question with its right answers.

    Attributes:
        prompt: complete text, which the answer follows.
        answers: each right answer as a tuple of its spellings, the first being the one to show; all of them are wanted (a list of
            the languages of a country), each in any spelling. Empty where the right answer is that there is none.
    """

    prompt: str
    answers: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        if not isinstance(self.prompt, str) or not self.prompt.strip():
            raise FactError(f"The prompt of a query must be visible text, got {self.prompt!r}.")
        for spellings in self.answers:
            if (
                not isinstance(spellings, tuple)
                or not spellings
                or not all(isinstance(s, str) and s.strip() for s in spellings)
            ):
                raise FactError(
                    f"Each answer of a query is a tuple of spellings, got {spellings!r} for {self.prompt!r}; write ('Rome',)."
                )


@dataclass(frozen=True)
class Check:
    """One test of a case.

    Attributes:
        kind: what it tests, in the words of the benchmark ("Compositionality_I", "multi_hop").
        queries: of which one or all must be answered, as `need` says.
        need: "any" or "all".
        conditions: queries that the unedited model must answer, or the check says nothing and is left out.
    """

    kind: str
    queries: tuple[Query, ...]
    need: Literal["any", "all"] = "any"
    conditions: tuple[Query, ...] = ()

    def __post_init__(self) -> None:
        if not self.queries:
            raise FactError(f"A check must have at least one query, got none for {self.kind!r}.")
        if self.need not in ("any", "all"):
            raise FactError(f"A check needs 'any' or 'all' of its queries, got {self.need!r}.")


@dataclass(frozen=True)
class Case:
    """What is edited together and what is asked of it.

    Attributes:
        id: unique name.
        facts: to be edited together; none for what only reads the model (a minimal pair, a passage).
        checks: tests beside those in the strata of the facts.
        text: the passage or pair to read where there is no fact.
    """

    id: str
    facts: tuple[Fact, ...] = ()
    checks: tuple[Check, ...] = ()
    text: str | None = None

    @classmethod
    def of(cls, fact: Fact | Case) -> Case:
        """A fact as a case of its own; a case is given back."""
        return fact if isinstance(fact, Case) else cls(fact.id, (fact,))

    @property
    def fact(self) -> Fact:
        """The one fact of the case; raises `FactError` where there are none or several."""
        if len(self.facts) != 1:
            raise FactError(
                f"The case {self.id} holds {len(self.facts)} facts where one is expected; choose its own suite."
            )
        return self.facts[0]

    @property
    def cluster(self) -> tuple[str, str]:
        """(relation, subject) of its first fact, or its id twice: what intervals resample."""
        return (self.facts[0].relation, self.facts[0].subject) if self.facts else (self.id, self.id)

    def to_json(self) -> dict[str, Any]:
        """Plain data, for hashes and files."""
        plain = asdict(self)
        return {
            "id": self.id,
            "facts": [fact.to_json() for fact in self.facts],
            "checks": plain["checks"],
            "text": self.text,
        }


def cases_of(facts: Sequence[Fact | Case]) -> tuple[Case, ...]:
    """Each fact as a case."""
    return tuple(Case.of(fact) for fact in facts)
