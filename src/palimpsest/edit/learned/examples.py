"""What an editor learns from: facts with a new answer, another wording, and a text that must stay; and how many it takes.

    one example    write      fact.text -> target_new
                   judged on  a paraphrase -> target_new, and the model's own answer after a neighbour, or a far text

The subjects are split once: a share of them validates and is never learned from, so no wording of a subject is on both sides.
At least `LEAST` subjects must be left to validate on, and a whole batch of records to learn from.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random

from palimpsest.edit.learned.settings import Learning
from palimpsest.errors import InputError
from palimpsest.facts import Fact, Probe

LEAST = 5  # subjects to validate on: with fewer, one odd subject decides when learning stops


@dataclass(frozen=True)
class Examples:
    """The records that can be used, split by subject, and why others cannot (reason to how many)."""

    learning: tuple[Fact, ...]
    validation: tuple[Fact, ...]
    left_out: dict[str, int]


def examples(records: Iterable[Fact], settings: Learning) -> Examples:
    """Split `records` by subject.

    Raises:
        InputError: too few can be used; the message says how many are needed.
    """
    usable: list[Fact] = []
    left_out: dict[str, int] = {}
    for fact in records:
        if reason := _lacks(fact):
            left_out[reason] = left_out.get(reason, 0) + 1
        else:
            usable.append(fact)
    subjects = sorted({fact.subject for fact in usable})
    Random(f"split {settings.seed}").shuffle(subjects)
    kept = set(subjects[: math.floor(len(subjects) * settings.validation)])
    split = Examples(
        tuple(fact for fact in usable if fact.subject not in kept),
        tuple(fact for fact in usable if fact.subject in kept),
        left_out,
    )
    if len(kept) < LEAST or len(split.learning) < settings.batch:
        raise InputError(_too_few(len(usable), len(subjects), left_out, settings))
    return split


def needed(settings: Learning) -> int:
    """How many usable records of different subjects are enough: `LEAST` to validate on at their share, and a batch beside them."""
    count = math.ceil(LEAST / settings.validation)
    while (
        math.floor(count * settings.validation) < LEAST
        or count - math.floor(count * settings.validation) < settings.batch
    ):
        count += 1
    return count


def stays(fact: Fact) -> tuple[Probe, ...]:
    """The texts about something else that an edit of `fact` must leave as they are."""
    return (*fact.neighbours, *fact.same_subject, *fact.far)


def drawn(facts: Sequence[Fact], count: int, step: int, seed: int) -> list[tuple[Fact, str, Probe]]:
    """The examples of one step: records, each with a wording and a text that stays. They depend on the seed and the step alone.

    Records are taken in passes, each in an order of its own, so that every one comes once before any comes twice.
    """
    chosen = []
    for place in range(step * count, (step + 1) * count):
        turn, index = divmod(place, len(facts))
        order = list(range(len(facts)))
        Random(f"pass {seed} {turn}").shuffle(order)
        chosen.append(asked(facts[order[index]], Random(f"example {seed} {place}")))
    return chosen


def asked(fact: Fact, draw: Random) -> tuple[Fact, str, Probe]:
    """`fact` with one of its paraphrases and one text that stays."""
    return fact, draw.choice(fact.paraphrases), draw.choice(stays(fact))


def _lacks(fact: Fact) -> str:
    if fact.target_new is None:
        return "no target_new"
    if not fact.paraphrases:
        return "no paraphrase"
    return "" if stays(fact) else "no neighbour, same_subject or far prompt"


def _too_few(usable: int, subjects: int, left_out: dict[str, int], settings: Learning) -> str:
    number = needed(settings)
    reasons = "; ".join(f"{count} with {reason}" for reason, count in left_out.items())
    without = f" ({sum(left_out.values())} more cannot be used: {reasons})" if left_out else ""
    return (
        f"Learning an editor needs {number} usable records of as many subjects ({LEAST} subjects to validate on, a share of "
        f"{settings.validation:g}, and a batch of {settings.batch}), got {usable} records of {subjects} subjects{without}; "
        f"give more, or a smaller batch."
    )
