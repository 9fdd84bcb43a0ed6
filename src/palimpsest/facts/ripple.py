"""RippleEdits: an edit and its ripples along six axes, each asked only where the model knew what it rests on (Cohen et al.
2024).

    {
      "example_type": "popular",
      "edit": {"prompt": "The name of the country of citizenship of Leonardo DiCaprio is Syria.",
               "subject_id": "Q38111", "relation": "COUNTRY_OF_CITIZENSHIP", "target_id": "Q858",
               "original_fact": {"prompt": "The name of the country of citizenship of Leonardo DiCaprio is Italy.", ...}},
      "Relation_Specificity": [{
          "test_queries": [{"prompt": "The name of the mother of Leonardo DiCaprio is", "subject_id": "Q38111",
                            "answers": [{"value": "Irmelin DiCaprio", "aliases": ["Irmelin Indenbirken"]}]}],
          "test_condition": "OR",                                                  one of the queries, or "AND": all of them
          "condition_queries": [...]                                               what the unedited model must know
      }],
      "Logical_Generalization": [...], "Subject_Aliasing": [...], "Compositionality_I": [...],
      "Compositionality_II": [...], "Forgetfulness": [...]
    }

    edit                  becomes   the fact of the case: the words its sentence shares with that of the original fact are the
                                    prompt, the rest of each is an answer. A "recent" record has no original fact; there the
                                    answer is what follows the last " is "
    each test             becomes   a check of the axis as `kind`; every one of its `answers` is wanted, in any spelling
    the position          becomes   `id`: "ripple/record-7"

The file tells its subject by number, not by name. The name is what the edit's prompt shares with a query about the same
number, without the small words around it; a record where that gives nothing is left out, unless `edit` has a field
"subject". A query without answers holds on any text and says nothing: it is left out, and with its last query a check.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any

from palimpsest.facts.case import Case, Check, Query
from palimpsest.facts.fact import Fact
from palimpsest.facts.records import short
from palimpsest.facts.schema import FieldError, find, identifier, make_hole, objects, optional_text, required_text

AXES = (
    "Relation_Specificity",
    "Logical_Generalization",
    "Subject_Aliasing",
    "Compositionality_I",
    "Compositionality_II",
    "Forgetfulness",
)

_SMALL = re.compile(r"[a-z]+")  # a word in small letters: "of", "is", "which"


class Ripple:
    """The schema of RippleEdits' three files."""

    name = "ripple"
    title = "RippleEdits"

    def matches(self, record: Mapping[str, Any]) -> bool:
        return isinstance(record.get("edit"), Mapping) and bool({"example_type", *AXES} & set(record))

    def to_case(self, record: Mapping[str, Any], position: int) -> Case:
        name = identifier(record, "case_id", self.name, position)
        prompt, new, old = _split(record)
        subject = optional_text(record, "edit.subject") or _subject(record, prompt)
        fact = Fact(
            subject=subject,
            prompt=make_hole(prompt, subject, "edit.prompt"),
            target_true=old,
            target_new=new,
            id=f"{name}/1",
            relation=optional_text(record, "edit.relation") or "",
        )
        checks = [check for axis in AXES for test in objects(record, axis) if (check := _check(axis, test)) is not None]
        return Case(name, (fact,), tuple(checks))


def _split(record: Mapping[str, Any]) -> tuple[str, str, str | None]:
    """Prompt, new answer and old answer of the edit."""
    sentence = required_text(record, "edit.prompt").strip()
    original = optional_text(record, "edit.original_fact.prompt")
    if original is None:
        prompt, found, new = sentence.removesuffix(".").rpartition(" is ")
        if not found:
            raise FieldError("edit.prompt", f"no ' is ' tells the answer from the prompt in {short(sentence)}")
        return f"{prompt} is", new, None
    if original.strip() == sentence:
        raise FieldError("edit.prompt", "the edit says what the original fact says, so there is nothing to edit")
    words, before = sentence.removesuffix(".").split(" "), original.strip().removesuffix(".").split(" ")
    same = 0  # whole words, since answers may begin with the same letters
    while same < min(len(words), len(before)) and words[same] == before[same]:
        same += 1
    new, old = " ".join(words[same:]), " ".join(before[same:]).strip()
    if not same or not new:
        raise FieldError("edit.prompt", f"expected another answer than in the original fact, got {short(sentence)}")
    return " ".join(words[:same]), new, old or None


def _subject(record: Mapping[str, Any], prompt: str) -> str:
    """The longest run of words, small ones at its ends left out, that the prompt shares with a query about its subject."""
    number = find(record, "edit.subject_id")
    others = [
        required_text(query, "prompt").split()
        for axis in AXES
        if axis != "Subject_Aliasing"  # which calls it by other names
        for test in objects(record, axis)
        for part in ("test_queries", "condition_queries")
        for query in objects(test, part)
        if number is not None and query.get("subject_id") == number
    ]
    words = prompt.split()
    shared: list[list[str]] = [run for other in others for run in _shared(words, other)]
    if not shared:
        raise FieldError(
            "edit.subject", "no query about its subject_id tells its name, and there is no field 'subject'"
        )
    longest = max(shared, key=len)
    return " ".join(longest)


def _shared(words: Sequence[str], other: Sequence[str]) -> Iterator[list[str]]:
    """Runs of words that both have, without the first word of a prompt and without small words at the ends of a run."""
    matcher = SequenceMatcher(None, words[1:], other[1:], autojunk=False)
    for match in matcher.get_matching_blocks():
        run = list(words[1:][match.a : match.a + match.size])
        while run and _SMALL.fullmatch(run[0]):
            del run[0]
        while run and _SMALL.fullmatch(run[-1]):
            del run[-1]
        if run:
            yield run


def _check(axis: str, test: Mapping[str, Any]) -> Check | None:
    queries = tuple(_queries(test, "test_queries"))
    need = find(test, "test_condition") or "OR"
    if need not in ("OR", "AND"):
        raise FieldError(f"{axis}.test_condition", f"expected 'OR' or 'AND', got {short(need)}")
    if not queries:
        return None
    return Check(axis, queries, "any" if need == "OR" else "all", tuple(_queries(test, "condition_queries")))


def _queries(test: Mapping[str, Any], path: str) -> Iterator[Query]:
    for query in objects(test, path):
        answers = tuple(spellings for answer in objects(query, "answers") if (spellings := _spellings(answer)))
        if answers:
            yield Query(required_text(query, "prompt"), answers)


def _spellings(answer: Mapping[str, Any]) -> tuple[str, ...]:
    """The value and its aliases, each once, blank ones dropped."""
    given = [answer.get("value"), *(answer.get("aliases") or [])]
    return tuple(dict.fromkeys(text.strip() for text in given if isinstance(text, str) and text.strip()))


SCHEMA = Ripple()
