"""BLiMP as pairs of whole sentences, one of them grammatical: every paradigm, for the question which one a model prefers.

    {"sentence_good": "Amanda was respected by some waitresses.", "sentence_bad": "Amanda was respected by some picture.",
     "UID": "animate_subject_passive", "pairID": "0", ...}

    sentence_good, sentence_bad    become    `text` of a case without facts, the good one on its first line
    UID and pairID                 become    `id`: "blimp/animate_subject_passive/0"

`read_cases` reads BLiMP so. `read_facts` makes facts of it instead, which only the agreement of determiner and noun allows
(`blimp`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from palimpsest.facts.case import Case
from palimpsest.facts.schema import FieldError, identifier, required_text


class BlimpPairs:
    """The schema of BLiMP's files, read as pairs."""

    name = "blimp_pairs"
    title = "BLiMP"

    def matches(self, record: Mapping[str, Any]) -> bool:
        return {"sentence_good", "sentence_bad"} <= set(record)

    def to_case(self, record: Mapping[str, Any], position: int) -> Case:
        good, bad = (_sentence(record, f"sentence_{which}") for which in ("good", "bad"))
        if good == bad:
            raise FieldError("sentence_bad", "the two sentences are the same")
        paradigm = required_text(record, "UID")
        return Case(identifier(record, "pairID", f"blimp/{paradigm}", position), text=f"{good}\n{bad}")


def _sentence(record: Mapping[str, Any], path: str) -> str:
    return " ".join(required_text(record, path).split())


SCHEMA = BlimpPairs()
