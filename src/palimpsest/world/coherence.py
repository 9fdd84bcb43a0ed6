"""What else must be said otherwise once one fact is: the rules of coherence, as they follow from the relations.

Facts are held as a map (subject, relation) -> object, 1-to-1 and symmetric ones in both directions. To set r(s) = o:

    n-to-1       the old answer goes
    1-to-1       so does the tie of o to its old partner, who then has no answer; the inverse follows: r'(o) = s
    symmetric    the same, with r' = r: if a marries c, then c is a's spouse, and the old spouses of both have none
    implied      what r implies is set as well; and a relation that implies r and now contradicts it is given up
    derived      r(s) = r2(r1(s)) can be made true at r1 or at r2, and nothing says where: r1(s), which is told of s
                 alone, is no longer known, and r(s) = o is held on its own until r1(s) is set again

Nothing else changes: of all coherent worlds in which r(s) = o, this is the one nearest to the old.
"""

from collections.abc import Mapping

from palimpsest.world.relations import Relation, relations

Held = dict[tuple[str, str], str]


def with_answer(held: Mapping[tuple[str, str], str], subject: str, relation: str, new: str) -> Held:
    """What is held once `relation` of `subject` is `new`."""
    held = dict(held)
    path = relations()[relation].path
    if path:
        _forget(held, subject, path[0])
        held[subject, relation] = new
    else:
        _set(held, subject, relation, new)
    return held


def answer(held: Mapping[tuple[str, str], str], subject: str, relation: Relation) -> str | None:
    """What is held of a base relation; where the path of a derived one leads, or what is held on its own where it ends."""
    reached: str | None = subject
    for step in relation.path:
        reached = held.get((reached, step)) if reached is not None else None
    return reached if relation.path and reached is not None else held.get((subject, relation.name))


def _set(held: Held, subject: str, relation: str, new: str) -> None:
    """Make a base fact true, and what follows from it."""
    if held.get((subject, relation)) == new:
        return
    back = relations()[relation].back
    _forget(held, subject, relation)
    if back is not None:
        _forget(held, new, back)
        held[new, back] = subject
    held[subject, relation] = new
    for start, name, end in ((subject, relation, new), (new, back, subject)):
        implied = relations()[name].implies if name is not None else None
        if implied is not None:
            _set(held, start, implied, end)
    for name, other in relations().items():
        if other.implies == relation and held.get((subject, name), new) != new:
            _forget(held, subject, name)
        if other.path and other.path[0] == relation:
            held.pop((subject, name), None)  # its path leads somewhere again


def _forget(held: Held, subject: str, relation: str) -> None:
    """Give up a base fact, in both directions."""
    old = held.pop((subject, relation), None)
    back = relations()[relation].back
    if old is not None and back is not None:
        held.pop((old, back), None)
