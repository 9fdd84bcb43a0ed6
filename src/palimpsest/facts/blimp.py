"""BLiMP's determiner-noun agreement as facts: grammar traced by the instruments that trace knowledge (Warstadt et al. 2020).

    {
      "sentence_good": "Craig explored that grocery store.",
      "sentence_bad": "Craig explored that grocery stores.",
      "one_prefix_prefix": "Craig explored that",
      "one_prefix_word_good": "grocery store",
      "one_prefix_word_bad": "grocery stores",
      "UID": "determiner_noun_agreement_1",                            the paradigm
      "one_prefix_method": true,                                       the two sentences differ in their end alone
      "pairID": "1"
    }

    the determiner       becomes   `subject`: the last this, that, these or those of `one_prefix_prefix`
    one_prefix_prefix    becomes   `prompt`, the determiner in it replaced by {}, and after it the words with which good
                                   and bad both begin: "Craig explored {} grocery"
    the rest of good     becomes   `target_true`: "store"
    the rest of bad      becomes   `target_new`: "stores"
    UID                  becomes   `relation`
    UID and pairID       become    `id`: "blimp/determiner_noun_agreement_1/1"

The determiner is to a noun's number what a subject is to its attribute: swap it for its counterpart (`other_number`) and
bad becomes good. In the paradigms whose name ends in _2 the determiners differ and the noun stays: no one text has two
answers there, and such a record is refused. So is one of any other phenomenon, whose prefix may hold a "that" which
decides nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from palimpsest.errors import FactError
from palimpsest.facts.fact import Fact
from palimpsest.facts.records import short
from palimpsest.facts.schema import FieldError, find, identifier, required_text

PARADIGMS = "determiner_noun_agreement"  # what the names of the paradigms that are read begin with

_OTHER_NUMBER = {"this": "these", "these": "this", "that": "those", "those": "that"}
_DETERMINER = re.compile(rf"(?<!\w)({'|'.join(_OTHER_NUMBER)})(?!\w)", re.IGNORECASE)


class Blimp:
    """The schema of BLiMP's files, one paradigm each."""

    name = "blimp"
    title = "BLiMP"

    def matches(self, record: Mapping[str, Any]) -> bool:
        return "sentence_good" in record or "one_prefix_prefix" in record or {"UID", "pairID"} <= set(record)

    def to_fact(self, record: Mapping[str, Any], position: int) -> Fact:
        paradigm = required_text(record, "UID")
        if not paradigm.startswith(PARADIGMS):
            raise FieldError("UID", f"of BLiMP only the paradigms {PARADIGMS}* become facts, got {short(paradigm)}")
        if find(record, "one_prefix_method") is False:
            raise FieldError(
                "one_prefix_method",
                f"the sentences of {paradigm} differ in the determiner and not in the noun, so no text has two answers",
            )
        before, determiner, after = _around_determiner(required_text(record, "one_prefix_prefix").rstrip())
        shared, good, bad = _split(required_text(record, "one_prefix_word_good"), record)
        return Fact(
            subject=determiner,
            prompt=" ".join([f"{before}{{}}{after}", *shared]),
            target_true=good,
            target_new=bad,
            id=identifier(record, "pairID", f"{self.name}/{paradigm}", position),
            relation=paradigm,
        )


def other_number(determiner: str) -> str:
    """The determiner of the other number; a capital stays a capital.

    >>> other_number("this"), other_number("Those")
    ('these', 'That')

    Raises:
        FactError: it is none of this, that, these and those.
    """
    other = _OTHER_NUMBER.get(determiner.lower())
    if other is None:
        raise FactError(f"Expected one of the determiners {', '.join(_OTHER_NUMBER)}, got {determiner!r}.")
    return other.capitalize() if determiner[0].isupper() else other


def _around_determiner(prefix: str) -> tuple[str, str, str]:
    """What stands before the last determiner of a prefix, the determiner, and what stands after it."""
    field = "one_prefix_prefix"
    if "{}" in prefix:
        raise FieldError(field, f"expected complete text, found '{{}}' in {short(prefix)}")
    found = list(_DETERMINER.finditer(prefix))
    if not found:
        raise FieldError(field, f"none of {', '.join(_OTHER_NUMBER)} is a word of the prefix {short(prefix)}")
    start, end = found[-1].span()
    return prefix[:start], prefix[start:end], prefix[end:]


def _split(good: str, record: Mapping[str, Any]) -> tuple[list[str], str, str]:
    """The words with which good and bad both begin, and the rest of each."""
    bad = required_text(record, "one_prefix_word_bad")
    goods, bads = good.split(), bad.split()
    same = 0
    while same < min(len(goods), len(bads)) and goods[same] == bads[same]:
        same += 1
    if same == min(len(goods), len(bads)):
        raise FieldError(
            "one_prefix_word_bad", f"expected another last word than that of {short(good)}, got {short(bad)}"
        )
    return goods[:same], " ".join(goods[same:]), " ".join(bads[same:])


SCHEMA = Blimp()
