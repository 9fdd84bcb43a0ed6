"""Pairs for the tests of residue, and the plainest way to read them."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from random import Random

import torch

from palimpsest.erase.residue.pair import EDITED, NEVER_KNOWN, SAME_ANSWER, Pair
from palimpsest.facts import Fact
from palimpsest.model import Model
from palimpsest.world import Triple, made_world, newcomers, relations

RELATIONS = ("profession", "headquarters")


def pair_of(fact: Fact, answer: str, others: Sequence[str], group: str = EDITED, of: str | None = None) -> Pair:
    """A pair that belongs to its own fact."""
    return Pair(fact, answer, tuple(others), group, fact.id if of is None else of)


@torch.no_grad()
def log_p(model: Model, text: str, answer: str) -> float:
    """Sum over the answer's tokens of their log-probability, one forward pass of the network itself for this answer alone."""
    ids, begin = model.encode_answer(text, answer)
    logits = model.net(input_ids=torch.tensor([ids]), use_cache=False).logits[0].double().log_softmax(-1)
    return float(sum(logits[at - 1, ids[at]] for at in range(begin, len(ids))))


@cache
def world_pairs(each: int, seed: int = 0) -> tuple[tuple[Fact, ...], list[Pair]]:
    """(all facts of the world, pairs): so many edited facts, as many controls with their answers, as many never-known facts.

    The never-known are persons of whom the model has read nothing, with the profession they are given.
    """
    world, draw = made_world(), Random(seed)
    pool = tuple(_fact(triple) for triple in world.facts)
    pairs: list[Pair] = []
    for relation in RELATIONS:
        facts = [fact for fact in pool if fact.relation == relation]
        answers = sorted({str(fact.target_true) for fact in facts})
        own = draw.sample(facts, each // 2)
        edited = {fact.subject for fact in own}
        for fact in own:
            answer = str(fact.target_true)
            new = draw.choice([one for one in answers if one != answer])
            pairs.append(pair_of(replace(fact, target_new=new), answer, _others(draw, answers, answer, new)))
            near = [one for one in facts if one.subject not in edited and one.target_true != answer]
            control = draw.choice(near)
            pairs.append(pair_of(control, answer, _others(draw, answers, answer, new), SAME_ANSWER, fact.id))
    answers = sorted({str(fact.target_true) for fact in pool if fact.relation == "profession"})
    for triple in newcomers(world, each, seed=1).facts:
        if triple.relation == "profession":
            pairs.append(pair_of(_fact(triple), triple.object, _others(draw, answers, triple.object), NEVER_KNOWN))
    return pool, pairs


def _fact(triple: Triple) -> Fact:
    """A fact in the words of its relation, without the strata that `World.record` works out (a minute for all of them)."""
    first, *rest = [one.text for one in relations()[triple.relation].wordings if one.kind == "plain" and one.seen]
    told = tuple(text.replace("{}", triple.subject) for text in rest)
    return Fact(triple.subject, first, triple.object, relation=triple.relation, paraphrases=told)


def _others(draw: Random, answers: Sequence[str], *but: str) -> tuple[str, ...]:
    rest = [answer for answer in answers if answer not in but]
    return tuple(draw.sample(rest, min(6, len(rest))))
