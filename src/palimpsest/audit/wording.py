"""What may be said: the claim's sentence with every phrase that its evidence does not carry replaced by one that it does.

    "Facts are stored in the feed-forward weights of middle layers."       the claim
    "Facts are recalled through the feed-forward weights of middle layers."  what is licensed, where they mediate

Phrases and their weaker forms are data (`verbs` of the rules): a phrase needs a tag to be licensed, or criteria to be established,
and names what to say instead for each tag that may be licensed in its place. Replacements never need more than what they replace.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from palimpsest.audit.report_data import Status, Wording
from palimpsest.audit.rules import Rules, Verb


def phrases(sentence: str, rules: Rules) -> list[tuple[int, int, Verb]]:
    """Where the rules' phrases stand in a sentence, in order and without overlap; of two at one place the longer one."""
    found: list[tuple[int, int, Verb]] = []
    for phrase in sorted(rules.verbs, key=lambda phrase: (-len(phrase), phrase)):
        for match in re.finditer(rf"\b{re.escape(phrase)}\b", sentence, re.IGNORECASE):
            if all(match.end() <= start or match.start() >= end for start, end, _ in found):
                found.append((match.start(), match.end(), rules.verbs[phrase]))
    return sorted(found, key=lambda one: one[0])


def unlicensed(sentence: str, tag: str, rules: Rules) -> list[str]:
    """The phrases of a sentence that its declared tag does not permit: those of a higher tag."""
    order = list(rules.tags)
    allowed = set(order[: order.index(tag) + 1]) if tag in order else set()
    return [
        sentence[start:end] for start, end, verb in phrases(sentence, rules) if verb.tag and verb.tag not in allowed
    ]


def inferred_tag(sentence: str, rules: Rules) -> str:
    """The highest tag that a phrase of the sentence needs; "" where none needs any."""
    order = list(rules.tags)
    named = [verb.tag for _, _, verb in phrases(sentence, rules) if verb.tag]
    return max(named, key=order.index, default="")


def licensed_wording(sentence: str, rules: Rules, licensed: frozenset[str], statuses: Mapping[str, Status]) -> Wording:
    """The sentence, phrase by phrase: kept where its tag is licensed and its criteria established, else replaced."""
    pieces: list[tuple[str, str]] = []
    struck: list[str] = []
    at = 0
    for start, end, verb in phrases(sentence, rules):
        if (not verb.tag or verb.tag in licensed) and _established(verb, statuses):
            continue
        said = sentence[start:end]
        # what stands in for a phrase may itself need criteria: "can be read from" needs the reading-out to have worked
        weaker = [verb.instead[tag] for tag in verb.instead if tag in licensed]
        able = (one for one in weaker if one not in rules.verbs or _established(rules.verbs[one], statuses))
        instead = next(able, verb.instead[""])
        pieces += [("kept", sentence[at:start]), ("struck", said), ("added", _cased(instead, said))]
        struck.append(said)
        at = end
    pieces = [(kind, text) for kind, text in [*pieces, ("kept", sentence[at:])] if text]
    missing = ", ".join(repr(one) for one in struck)
    return Wording(
        claimed=sentence,
        licensed="".join(text for kind, text in pieces if kind != "struck"),
        pieces=tuple(pieces),
        unlicensed=tuple(struck),
        reason=f"The evidence does not carry {missing}." if struck else "The evidence carries every word of it.",
    )


def _established(verb: Verb, statuses: Mapping[str, Status]) -> bool:
    return all(statuses.get(one, Status.NOT_TESTED).establishes for one in verb.needs)


def _cased(instead: str, said: str) -> str:
    return instead[:1].upper() + instead[1:] if said[:1].isupper() else instead
