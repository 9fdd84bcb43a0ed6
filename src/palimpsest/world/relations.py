"""The relations of the made world and the words they are told in.

A fact is a triple (subject, relation, object). A relation is of one of three forms:

    n-to-1       many subjects may share an object:             born_in("Belna Tarvok") = "Dresvador"
    1-to-1       no two do, so the `inverse` is a relation too: capital(c) = x  if and only if  capital_of(x) = c
    symmetric    it is its own inverse:                         spouse(a) = b   if and only if  spouse(b) = a

A derived relation has a `path`, and is where following it leads: landmark_country(l) = city_country(landmark_city(l)).
One that `implies` another has its answers in common with it: capital_of(x) = c forces city_country(x) = c.

Every relation has twelve wordings, each a text with one hole after which the bare answer follows:

    plain             "{} was born in the city of"
    relation-first    "The birthplace of {} is"               what is asked is known before the subject is
    long              "{}, as many visitors ... told over the years, was born in the town of"    far from the subject

Ten are `seen`: a model may be trained on them. Two never are, and are made of words of the seen ones. They stand in
`data/relations.json`.
"""

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Any, NamedTuple

from palimpsest.errors import RecordError

FORMS = ("n-to-1", "1-to-1", "symmetric")
KINDS_OF_WORDING = ("plain", "relation-first", "long")

_WORD = re.compile(r"[a-z]+")


class Triple(NamedTuple):
    """One fact: the answer of `subject` for `relation` is `object`."""

    subject: str
    relation: str
    object: str


@dataclass(frozen=True)
class Wording:
    """One way to ask for a relation.

    Attributes:
        text: with one `{}` for the subject; the answer follows after a space.
        kind: "plain", "relation-first" or "long".
        seen: whether a model may be trained on it.
    """

    text: str
    kind: str
    seen: bool

    @property
    def words(self) -> frozenset[str]:
        """Its words, in lower case."""
        return frozenset(_WORD.findall(self.text.lower()))

    def of(self, subject: str) -> str:
        """The prompt about a subject."""
        return self.text.replace("{}", subject)


@dataclass(frozen=True)
class Relation:
    """One relation.

    Attributes:
        name: such as "born_in".
        subject, object: the kinds of entity it leads from and to.
        form: "n-to-1", "1-to-1" or "symmetric".
        inverse: the relation back, of a 1-to-1 one.
        path: the base relations a derived one follows; empty for a base one.
        implies: a relation of the same subject that has the same answer whenever this one has any.
        wordings: the seen ones (plain, relation-first, long), then the unseen ones.
    """

    name: str
    subject: str
    object: str
    form: str
    inverse: str | None
    path: tuple[str, ...]
    implies: str | None
    wordings: tuple[Wording, ...]

    @property
    def seen(self) -> tuple[Wording, ...]:
        """The wordings a model may be trained on."""
        return tuple(wording for wording in self.wordings if wording.seen)

    @property
    def unseen(self) -> tuple[Wording, ...]:
        """The wordings no model is ever trained on."""
        return tuple(wording for wording in self.wordings if not wording.seen)

    @property
    def back(self) -> str | None:
        """The relation that leads from the object to the subject: the inverse, itself if symmetric, else None."""
        return self.name if self.form == "symmetric" else self.inverse


def relations() -> dict[str, Relation]:
    """All relations by name, in the order of the file.

    Raises:
        RecordError: the file is missing from this installation or breaks one of the rules above.
    """
    return dict(_shipped())


@cache
def _shipped() -> Mapping[str, Relation]:
    file = resources.files("palimpsest.world") / "data" / "relations.json"
    try:
        records = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecordError(
            f"The relations that come with palimpsest (world/data/relations.json) cannot be read from this installation "
            f"({error}); install the package again."
        ) from error
    return relations_from(records)


def relations_from(records: Sequence[Mapping[str, Any]]) -> Mapping[str, Relation]:
    """Relations from records as the file holds them, checked against each other.

    Raises:
        RecordError: a record lacks a field, or breaks one of the rules above.
    """
    found: dict[str, Relation] = {}
    for record in records:
        relation = _relation(record)
        if relation.name in found:
            raise RecordError(f"The relation {relation.name!r} stands twice in the file; give each a name of its own.")
        found[relation.name] = relation
    for relation in found.values():
        _check_links(relation, found)
    _check_wordings(found)
    return MappingProxyType(found)


def _relation(record: Mapping[str, Any]) -> Relation:
    try:
        wordings = tuple(
            Wording(text, kind, seen=part == "seen")
            for part in ("seen", "unseen")
            for kind in KINDS_OF_WORDING
            for text in record[part].get(kind, ())
        )
        relation = Relation(
            name=record["name"],
            subject=record["subject"],
            object=record["object"],
            form=record["form"],
            inverse=record.get("inverse"),
            path=tuple(record.get("path", ())),
            implies=record.get("implies"),
            wordings=wordings,
        )
    except KeyError as error:
        raise RecordError(f"The relation {record.get('name')!r} lacks the field {error}; add it.") from error
    if relation.form not in FORMS:
        raise RecordError(
            f"The form of the relation {relation.name!r} must be one of {', '.join(FORMS)}, got {relation.form!r}."
        )
    return relation


def _check_links(relation: Relation, others: Mapping[str, Relation]) -> None:
    """The relations that this one names exist, and fit to it."""
    for name in (relation.inverse, relation.implies, *relation.path):
        if name is not None and name not in others:
            raise RecordError(
                f"The relation {relation.name!r} names {name!r}, which is no relation of the file; add it."
            )
    if (relation.form == "1-to-1") != (relation.inverse is not None):
        raise RecordError(
            f"A 1-to-1 relation, and no other, needs an inverse, got {relation.inverse!r} for the {relation.form} one "
            f"{relation.name!r}."
        )
    if relation.inverse is not None and others[relation.inverse].inverse != relation.name:
        raise RecordError(
            f"The inverse of {relation.name!r} is {relation.inverse!r}, whose inverse must be {relation.name!r}, "
            f"got {others[relation.inverse].inverse!r}."
        )
    kind = relation.subject
    for name in relation.path:
        if others[name].subject != kind:
            raise RecordError(
                f"The path of {relation.name!r} reaches a {kind}, and {name!r} leads from a {others[name].subject}."
            )
        if others[name].path:
            raise RecordError(f"The path of {relation.name!r} must follow base relations, and {name!r} is derived.")
        kind = others[name].object
    if relation.path and kind != relation.object:
        raise RecordError(f"The path of {relation.name!r} must lead to a {relation.object}, got a {kind}.")


def _check_wordings(found: Mapping[str, Relation]) -> None:
    """Each has one hole, is made of seen words, and is not how another one begins: else one prompt had two answers."""
    texts = sorted(
        (wording.text.split(" "), relation.name) for relation in found.values() for wording in relation.wordings
    )
    for words, name in texts:
        text = " ".join(words)
        if text.count("{}") != 1 or text != text.strip():
            raise RecordError(f"A wording needs one '{{}}' and no space at its ends, got {text!r} in {name!r}.")
    for (words, name), (longer, other) in itertools.pairwise(
        texts
    ):  # in this order a text stands before its longer ones
        if longer[: len(words)] == words:
            raise RecordError(
                f"The wording {' '.join(words)!r} of {name!r} is how {' '.join(longer)!r} of {other!r} begins; change one."
            )
    for relation in found.values():
        seen = frozenset[str]().union(*(wording.words for wording in relation.seen))
        for wording in relation.unseen:
            if new := sorted(wording.words - seen):
                raise RecordError(
                    f"The word {new[0]!r} of the unseen wording {wording.text!r} must occur in a seen wording of "
                    f"{relation.name!r}."
                )
