"""Which pairs are read for some edited facts: the facts themselves, the same answers elsewhere, and facts never known.

    asked = pairs_of(facts, unknown, pool)
    asked.pairs         for "capital of France: Paris -> Rome"
                            edited         (France, Paris)
                            same answer    (Peru, Paris), (Kenya, Paris), (Japan, Paris), (Egypt, Paris)
                            never known    (Nauru, Yaren)
    asked.left_out      {id: why it cannot be asked}

Every answer is compared with the same kind of others: answers of the relation, without the answer itself, without what the edit
writes, and without what the subject that is asked about really has. The model's favourite at the subject is thus left out of
an edited pair (the new answer) and of a control (its own answer) alike; otherwise the one group would be measured against a
stronger rival than the other.

Draws depend on the seed and on what is drawn from, never on the order in which facts are given.
"""

import hashlib
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from palimpsest.erase.residue.pair import EDITED, NEVER_KNOWN, SAME_ANSWER, Pair
from palimpsest.errors import InputError, SettingError
from palimpsest.facts import Fact, read_facts

CONTROLS, OTHERS = 4, 16
LEAST_CONTROLS = 40  # over all facts: the 95th percentile of fewer is a guess


@dataclass(frozen=True)
class PairSet:
    """What can be asked, and what cannot.

    Attributes:
        pairs: facts in the order given, each followed by its controls, then the never-known ones.
        left_out: id of a fact to one sentence.
        pool: what controls were drawn from, each fact once.
    """

    pairs: tuple[Pair, ...]
    left_out: dict[str, str]
    pool: tuple[Fact, ...] = ()


def pairs_of(
    facts: Sequence[Fact],
    unknown: Sequence[Fact] = (),
    pool: Sequence[Fact] | None = None,
    *,
    controls: int | None = None,
    others: int = OTHERS,
    seed: int = 0,
) -> PairSet:
    """The pairs of some edited facts.

    Args:
        facts: edited, and known before.
        unknown: facts the model never knew, with the answers the world gives.
        pool: facts whose subjects and answers serve as controls; `facts`, `unknown` and the shipped ones when None.
        controls: same-answer controls a fact; 4, or more where that would make fewer than 40 in all, when None.
        others: at most so many answers that each is compared with.
        seed: of both draws.

    Raises:
        SettingError: `controls` or `others` is below 1.
        InputError: there are no facts, two share an id, or none can be asked.
    """
    for name, number in (("controls", controls), ("others", others)):
        if number is not None and number < 1:
            raise SettingError(f"The number of {name} must be 1 or more, got {number}; there is no base rate without.")
    _check_ids([*facts, *unknown])
    pool = (*facts, *unknown, *(read_facts("shipped").facts if pool is None else pool))
    wanted = controls or max(CONTROLS, math.ceil(LEAST_CONTROLS / len(facts)))
    relations = {fact.relation: _Relation(pool, fact.relation) for fact in (*facts, *unknown)}
    edited = {fact.subject for fact in (*facts, *unknown)}
    pairs: list[Pair] = []
    left_out: dict[str, str] = {}
    for fact in facts:
        relation = relations[fact.relation]
        rivals = relation.others(fact, [fact], others, seed)
        subjects = relation.subjects(fact, edited, seed)
        if reason := _why_not(fact, rivals) or ("" if subjects else _no_control(fact)):
            left_out[fact.id] = reason
            continue
        pairs.append(Pair(fact, str(fact.target_true), rivals, EDITED, fact.id))
        for other in subjects[:wanted]:
            if rivals := relation.others(fact, [fact, other], others, seed):
                pairs.append(Pair(other, str(fact.target_true), rivals, SAME_ANSWER, fact.id))
    for fact in unknown:
        rivals = relations[fact.relation].others(fact, [fact], others, seed)
        if reason := _why_not(fact, rivals):
            left_out[fact.id] = reason
        else:
            pairs.append(Pair(fact, str(fact.target_true), rivals, NEVER_KNOWN, fact.id))
    if not any(pair.group == EDITED for pair in pairs):
        raise InputError(
            f"None of the {len(facts)} facts can be asked; the first reason: {next(iter(left_out.values()))}"
        )
    once = {(fact.subject, fact.relation, fact.prompt, fact.target_true): fact for fact in reversed(pool)}
    return PairSet(tuple(pairs), left_out, tuple(reversed(once.values())))


class _Relation:
    """Subjects and answers of one relation."""

    def __init__(self, pool: Sequence[Fact], relation: str) -> None:
        own = {
            (fact.subject, fact.target_true): fact for fact in pool if fact.relation == relation and fact.target_true
        }
        self.facts = [own[key] for key in sorted(own, key=str)]
        self.of: dict[str, set[str]] = {}
        for fact in self.facts:
            self.of.setdefault(fact.subject, set()).update(_names(fact))

    def others(self, fact: Fact, about: Sequence[Fact], count: int, seed: int) -> tuple[str, ...]:
        """Answers to compare with: none that is true of a subject in `about`, and not what `fact`'s edit writes."""
        taken = _names(fact) | {str(fact.target_new)}
        taken |= {name for asked in about for name in self.of.get(asked.subject, ())}
        answers = {str(other.target_true) for other in self.facts}
        return tuple(_drawn(answers, f"others/{fact.id}", seed, taken)[:count])

    def subjects(self, fact: Fact, edited: Collection[str], seed: int) -> list[Fact]:
        """Facts of other subjects, of which the old answer is not true and the new one is not either."""
        barred = _names(fact) | {str(fact.target_new)}
        by_subject = {
            other.subject: other
            for other in reversed(self.facts)
            if other.subject not in edited and not barred & self.of[other.subject]
        }
        return [by_subject[name] for name in _drawn(by_subject, f"controls/{fact.id}", seed, ())]


def drawn_order(count: int, key: str, seed: int) -> list[int]:
    """0 to count - 1 in an order that depends on the seed and on the key alone."""
    digest = hashlib.blake2b(f"{seed}\0{key}".encode(), digest_size=8).digest()
    return [int(i) for i in np.random.default_rng(int.from_bytes(digest, "big")).permutation(count)]


def _drawn(names: Collection[str], key: str, seed: int, without: Collection[str]) -> list[str]:
    """`names` in a drawn order; what is left out changes nothing in the order of the rest."""
    ordered = sorted(names)
    return [ordered[i] for i in drawn_order(len(ordered), key, seed) if ordered[i] not in without]


def _names(fact: Fact) -> set[str]:
    return {str(fact.target_true), *fact.answer_aliases}


def _why_not(fact: Fact, rivals: Sequence[str]) -> str:
    if fact.target_true is None:
        return f"{fact.text!r} has no target_true, so there is no old answer to look for; give it one."
    if not rivals:
        return (
            f"The relation {fact.relation!r} has no answer to compare {fact.target_true!r} with; "
            f"give facts of it with other answers (pool)."
        )
    return ""


def _no_control(fact: Fact) -> str:
    return (
        f"The relation {fact.relation!r} has no unedited subject with another answer than {fact.target_true!r}, so there is no "
        f"base rate; give more facts of it (pool)."
    )


def _check_ids(facts: Sequence[Fact]) -> None:
    if not facts:
        raise InputError("There are no facts to look for; give at least one.")
    ids = [fact.id for fact in facts]
    twice = next((name for name in ids if ids.count(name) > 1), None)
    if twice is not None:
        raise InputError(
            f"Two of the facts have the id {twice!r}; each must have its own, and be edited or never known, not both."
        )
