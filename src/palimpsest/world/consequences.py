"""What follows from an edit, and what must not: every fact of the world in exactly one class.

    edited          the fact itself
    entailed        another fact whose answer differs in the coherent world
    same_subject    unchanged, of the subject of the edit
    neighbours      unchanged, of its relation at other subjects (those that had the same answer stand first)
    far             unchanged, all the rest

A success on the first two and a change in any of the last three are different things and are never added up.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from palimpsest.world.relations import Triple

Answers = Mapping[tuple[str, str], str]


@dataclass(frozen=True)
class Change:
    """One fact that an edit changes beside its own; None: the world does not say."""

    subject: str
    relation: str
    before: str | None
    after: str | None


@dataclass(frozen=True)
class Consequences:
    """All facts but the edited one, by what an edit must do to them."""

    entailed: tuple[Change, ...]
    same_subject: tuple[Triple, ...]
    neighbours: tuple[Triple, ...]
    far: tuple[Triple, ...]


def consequences(before: Answers, after: Answers, edited: Triple) -> Consequences:
    """Sort the facts of two worlds by what became of them.

    Args:
        before, after: every fact of the world without the edit and of the coherent one with it.
        edited: with the new answer.
    """
    entailed: list[Change] = []
    same_subject: list[Triple] = []
    neighbours: list[Triple] = []
    far: list[Triple] = []
    for subject, relation in sorted({*before, *after} - {edited[:2]}):
        old, new = before.get((subject, relation)), after.get((subject, relation))
        if old != new or old is None:
            entailed.append(Change(subject, relation, old, new))
        elif subject == edited.subject:
            same_subject.append(Triple(subject, relation, old))
        elif relation == edited.relation:
            neighbours.append(Triple(subject, relation, old))
        else:
            far.append(Triple(subject, relation, old))
    answer = before.get(edited[:2])
    neighbours.sort(key=lambda fact: fact.object != answer)  # a stable sort
    return Consequences(tuple(entailed), tuple(same_subject), tuple(neighbours), tuple(far))
