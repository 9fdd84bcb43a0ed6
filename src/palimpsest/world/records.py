"""Facts of the world as the `Fact` records that the rest of the house reads.

    prompt            the first plain wording that may be seen in training
    paraphrases       the other seen wordings, then the unseen ones (`World.unseen_wordings` tells them apart)
    target_new        the given one, or one drawn from the other answers of the relation
    answer_aliases    other names of the true answer
    strata            from `World.consequences` of setting `target_new`, up to `probes` of each, each asked as in `prompt`
    generation        the subject's name at the beginning of a text, and after a sentence of filler

What an edit leaves unsaid (an old spouse now has none) is an entailed probe without an answer, with what was said
`before`. Neighbours that share the old answer are taken first: they are the ones an edit is most likely to move.
"""

from collections.abc import Sequence
from itertools import zip_longest
from random import Random
from typing import TypeVar

from palimpsest.errors import InputError, SettingError, did_you_mean
from palimpsest.facts import Fact, Probe
from palimpsest.world.consequences import Change
from palimpsest.world.filler import filler
from palimpsest.world.relations import Triple, Wording, relations
from palimpsest.world.world import World

F = TypeVar("F", Triple, Change)


def record(world: World, triple: Triple, target_new: str | None = None, *, probes: int = 5, seed: int = 0) -> Fact:
    """One fact as a record.

    Args:
        world: in which it holds.
        triple: a fact of it; a subject given by an alias is called so in every prompt.
        target_new: the answer an edit asks for; None: nothing is edited, so nothing is entailed.
        probes: at most so many of each stratum.
        seed: of what is drawn.

    Raises:
        InputError: the triple is no fact of the world, or `target_new` does not fit.
        SettingError: `probes` is negative.
    """
    if probes < 0:
        raise SettingError(f"The number of probes must be 0 or more, got {probes}.")
    if world.answer(triple.subject, triple.relation) != triple.object:
        raise InputError(
            f"A record is of a fact that holds, got {tuple(triple)}, where the world answers "
            f"{world.answer(triple.subject, triple.relation)!r}."
        )
    random = Random(f"record/{seed}/{triple.relation}/{triple.subject}")
    name = world.named(triple.subject)
    effects = world.consequences(name, triple.relation, triple.object if target_new is None else target_new)

    def asked(fact: Triple | Change) -> Probe:
        about_subject = fact.subject == name
        prompt = _prompt(fact.relation).replace("{}", triple.subject if about_subject else fact.subject)
        other = None if about_subject else fact.subject
        if isinstance(fact, Change):
            return Probe(prompt, answer=fact.after, before=fact.before, subject=other)
        return Probe(prompt, answer=fact.object, subject=other)

    old = world.answer(name, triple.relation)
    near = [fact for fact in effects.neighbours if fact.object == old]
    others = effects.neighbours[len(near) :]
    neighbours = [*random.sample(near, len(near)), *random.sample(others, min(probes, len(others)))]
    first, *rest = [wording.of(triple.subject) for wording in _wordings(triple.relation)]
    openings = ["".join(f"{filler(random)} " for _ in range(count)) for count in range(3)]
    return Fact(
        subject=triple.subject,
        prompt=_prompt(triple.relation),
        target_true=triple.object,
        target_new=target_new,
        id=f"world/{triple.relation}/{triple.subject}",
        relation=triple.relation,
        answer_aliases=tuple(alias for alias, known in world.aliases.items() if known == triple.object),
        paraphrases=tuple(rest),
        neighbours=tuple(asked(fact) for fact in neighbours[:probes]),
        same_subject=tuple(asked(fact) for fact in _varied(random, effects.same_subject, probes)),
        entailed=tuple(asked(fact) for fact in _varied(random, effects.entailed, probes)),
        far=tuple(asked(fact) for fact in _varied(random, effects.far, probes)),
        generation=tuple(Probe(f"{opening}{triple.subject}") for opening in openings),
    )


def records(world: World, some: Sequence[str] | None = None, *, probes: int = 5, seed: int = 0) -> list[Fact]:
    """Every fact as a record, each with a new answer drawn from the other answers of its relation.

    Args:
        world: whose facts.
        some: names of relations; None: all.
        probes: at most so many of each stratum.
        seed: of what is drawn.

    Raises:
        InputError: there is no such relation.
    """
    for name in some or ():
        if name not in relations():
            raise InputError(f"There is no relation {name!r}.{did_you_mean(name, relations())}")
    answers: dict[str, list[str]] = {}
    for fact in world.facts:
        answers.setdefault(fact.relation, []).append(fact.object)
    found: list[Fact] = []
    for fact in world.facts:
        if some is None or fact.relation in some:
            choice = sorted(set(answers[fact.relation]) - {fact.object, fact.subject})
            new = Random(f"target/{seed}/{fact.relation}/{fact.subject}").choice(choice)
            found.append(record(world, fact, new, probes=probes, seed=seed))
    return found


def _wordings(relation: str) -> list[Wording]:
    """The one that prompts ask in, and then the others."""
    first = next(wording for wording in relations()[relation].seen if wording.kind == "plain")
    return [first, *(wording for wording in relations()[relation].wordings if wording != first)]


def _prompt(relation: str) -> str:
    return _wordings(relation)[0].text


def _varied(random: Random, facts: Sequence[F], count: int) -> list[F]:
    """Up to `count` facts, of as many relations as there are: one of each in turn."""
    of: dict[str, list[F]] = {}
    for fact in random.sample(facts, len(facts)):
        of.setdefault(fact.relation, []).append(fact)
    turns = zip_longest(*of.values())
    return [fact for turn in turns for fact in turn if fact is not None][:count]
