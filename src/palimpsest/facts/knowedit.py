"""KnowEdit: an edit with what must follow from it and what must stay, by kind (Zhang et al. 2024; EasyEdit's files).

    {
      "subject": "Leonardo DiCaprio",
      "prompt": "The name of the country of citizenship of Leonardo DiCaprio is",
      "target_new": "Syria",
      "ground_truth": "United States of America",
      "rephrase": "Leonardo DiCaprio is a citizen of",                                      only in some files
      "portability": {
        "Reasoning": [{"prompt": "The name of the currency in the country of citizenship of Leonardo DiCaprio is",
                       "ground_truth": [["Syrian pound", "SYP"]]}],                         answers, each with its spellings,
        "Subject_Aliasing": [{"prompt": "... of Leo DiCaprio is", "ground_truth": "Syria"}]     or one as plain text
      },
      "locality": {"Relation_Specificity": [...], "Forgetfulness": [...]}
    }

    prompt               becomes   `prompt`, the first occurrence of the subject replaced by {}; the file names no relation
    ground_truth         becomes   `target_true` and `answer_aliases`
    rephrase             becomes   `paraphrases`
    portability          becomes   `entailed`, each probe of the kind "reasoning", "subject_aliasing" or "logical_generalization"
    locality             becomes   `same_subject`, of the kind "relation_specificity" or "forgetfulness"; a kind whose name holds
                                   "neighbor" becomes `neighbours`
    the position         becomes   `id`: "knowedit/record-7"

Of several right answers the first is the one that is shown; every spelling of any of them counts as right. A record whose
`target_new` is its `ground_truth` asks for no edit and is left out; a probe without an answer is left out of its record.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from palimpsest.facts.fact import Fact, Probe
from palimpsest.facts.records import short
from palimpsest.facts.schema import FieldError, find, identifier, make_hole, required_text


class KnowEdit:
    """The schema of KnowEdit's files of triples."""

    name = "knowedit"
    title = "KnowEdit"

    def matches(self, record: Mapping[str, Any]) -> bool:
        return "prompt" in record and bool({"portability", "locality"} & set(record))

    def to_fact(self, record: Mapping[str, Any], position: int) -> Fact:
        subject = required_text(record, "subject")
        new = required_text(record, "target_new").strip()
        true = _spellings(find(record, "ground_truth"), "ground_truth")
        if new in true:
            raise FieldError(
                "target_new", f"the new answer {short(new)} is the right one already, so nothing is edited"
            )
        locality = tuple(_probes(record, "locality"))
        near = tuple(probe for probe in locality if "neighbor" in (probe.kind or ""))
        return Fact(
            subject=subject,
            prompt=make_hole(required_text(record, "prompt"), subject, "prompt"),
            target_true=true[0] if true else None,
            target_new=new,
            id=identifier(record, "case_id", self.name, position),
            answer_aliases=true[1:],
            paraphrases=_spellings(find(record, "rephrase"), "rephrase"),
            entailed=tuple(_probes(record, "portability")),
            same_subject=tuple(probe for probe in locality if probe not in near),
            neighbours=near,
        )


def _probes(record: Mapping[str, Any], path: str) -> Iterator[Probe]:
    """The probes of every kind under `portability` or `locality`."""
    kinds = find(record, path)
    if kinds is None:
        return
    if not isinstance(kinds, Mapping):
        raise FieldError(path, f"expected lists of prompts by kind, got {short(kinds)}")
    for kind, members in kinds.items():
        here = f"{path}.{kind}"
        if not isinstance(members, list):
            raise FieldError(here, f"expected a list of prompts, got {short(members)}")
        for member in members:
            if not isinstance(member, Mapping):
                raise FieldError(here, f"expected an object with a prompt and its ground_truth, got {short(member)}")
            answers = _spellings(member.get("ground_truth"), f"{here}.ground_truth")
            if answers:
                yield Probe(
                    required_text(member, "prompt"), answer=answers[0], aliases=answers[1:], kind=kind.strip().lower()
                )


def _spellings(value: object, path: str) -> tuple[str, ...]:
    """Every spelling in a text, a list of texts or a list of lists of texts, each once; blank ones are dropped."""
    if value is None:
        return ()
    if isinstance(value, str):
        return (value.strip(),) if value.strip() else ()
    if not isinstance(value, list):
        raise FieldError(path, f"expected text or a list of spellings, got {short(value)}")
    return tuple(dict.fromkeys(spelling for member in value for spelling in _spellings(member, path)))


SCHEMA = KnowEdit()
