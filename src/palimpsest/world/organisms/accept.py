"""Acceptance tests: whether an organism is what it claims to be, measured and never assumed.

    kind             planted   base     unseen wordings   with the base's weights put back at a place
    mlp, attention   >= 0.95   >= 0.97   >= 0.80           recall drops by >= 0.8 at the planted place
    rank-one         >= 0.95   >= 0.97   >= 0.80           the same
    alias            >= 0.95   >= 0.97   >= 0.80           the same; and facts never trained are recalled (transfer)
    crossed          >= 0.95   >= 0.97   >= 0.80           each place: its own relation >= 0.8, the other <= 0.1
    distributed      >= 0.95   >= 0.97   >= 0.80           no place drops it by more than 0.5
    null, shuffled             >= 0.97                     recall of the listed facts at most 0.05 above the base's;
                                                           shuffled: what was trained in their place is learnt, >= 0.95

Recall is greedy and exact (`palimpsest.world.recall`), over every listed fact in every seen wording. Where the weights of a
place are those of the base, putting them back changes nothing, and the recall of the whole organism stands for it.
"""

from collections.abc import Sequence

from palimpsest.edit import Edit
from palimpsest.facts import Fact
from palimpsest.model import Model
from palimpsest.statistics import Estimate, cluster_bootstrap
from palimpsest.world.organisms.lessons import answer_of, seen_wordings, unseen_wordings
from palimpsest.world.organisms.organism import Acceptance, Places, graft_key, place_name
from palimpsest.world.organisms.places import all_places, changed_places, grafted
from palimpsest.world.recall import recalls

PLANTED, BASE, PARAPHRASE = 0.95, 0.97, 0.80
OWN_DROP, OTHER_DROP, SHARED_DROP = 0.8, 0.1, 0.5
BY_LUCK, TRANSFER = 0.05, 0.5
NOTHING_PLANTED = ("null", "shuffled")


def accept(
    model: Model,
    kind: str,
    places: Places,
    edit: Edit,
    facts: Sequence[Fact],
    base: Sequence[Fact],
    transfer: Sequence[Fact] = (),
) -> Acceptance:
    """Run the acceptance tests of a kind.

    Args:
        model: the base, without the organism.
        kind: of the organism.
        places: where the facts of each relation are claimed to be.
        edit: the organism's.
        facts: listed as planted.
        base: facts of the base, each asked in its first wording.
        transfer: facts that were never trained and follow from the planting (alias organisms).
    """
    asked = [(fact, prompt) for fact in facts for prompt in seen_wordings(fact)]
    others = [(fact, prompt) for fact in facts for prompt in unseen_wordings(fact)]
    never = [(fact, prompt) for fact in transfer for prompt in seen_wordings(fact)]
    unplanted = _recall(model, asked)
    with edit.applied(model):
        planted = _recall(model, asked)
        known = _recall(model, [(fact, fact.text) for fact in base])
        paraphrase = _recall(model, others)
        followed = _recall(model, never) if never else None
    found = Acceptance(
        planted=_share(asked, planted),
        base=_share([(fact, fact.text) for fact in base], known),
        paraphrase=_share(others, paraphrase),
        unplanted=_share(asked, unplanted),
        grafts=_grafts(model, edit, asked, planted),
        accepted=False,
        transfer=None if followed is None else _share(never, followed),
    )
    reasons = tuple(failures(found, kind, places) + (_unlearnt(edit) if kind == "shuffled" else []))
    return Acceptance(**{**vars(found), "accepted": not reasons, "reasons": reasons})


def failures(found: Acceptance, kind: str, places: Places) -> list[str]:
    """The tests of its kind that an organism fails, in words."""
    reasons = _below("base", found.base, BASE)
    if kind in NOTHING_PLANTED:
        above = found.planted.value - found.unplanted.value
        if above > BY_LUCK:
            reasons.append(
                f"listed facts are recalled {above:.3f} more often than in the base, expected at most {BY_LUCK}"
            )
        return reasons
    reasons += _below("planted", found.planted, PLANTED) + _below("paraphrase", found.paraphrase, PARAPHRASE)
    if kind == "crossed":
        return reasons + _crossed(found, places)
    if kind == "distributed":
        return reasons + _distributed(found, places)
    if kind == "alias" and (found.transfer is None or found.transfer.value < TRANSFER):
        value = "not measured" if found.transfer is None else f"{found.transfer.value:.3f}"
        reasons.append(f"transfer is {value}, expected at least {TRANSFER}")
    for place in sorted({place for some in places.values() for place in some}):
        drop = found.drop(place)
        if drop < OWN_DROP:
            reasons.append(f"putting {place_name(place)} back drops recall by {drop:.3f}, expected at least {OWN_DROP}")
    return reasons


def _unlearnt(edit: Edit) -> list[str]:
    """Answers changed round that were never learnt are no control: an untrained model gives as few right ones."""
    learnt = min(edit.notes["recall"]["planted"])
    return [f"the changed answers are recalled {learnt:.3f}, expected at least {PLANTED}"] if learnt < PLANTED else []


def _crossed(found: Acceptance, places: Places) -> list[str]:
    reasons = []
    for place in sorted({place for some in places.values() for place in some}):
        for relation, own in sorted(places.items()):
            drop, name = found.drop(place, relation), f"putting {place_name(place)} back drops {relation} by"
            if place in own and drop < OWN_DROP:
                reasons.append(f"{name} {drop:.3f}, expected at least {OWN_DROP}")
            if place not in own and drop > OTHER_DROP:
                reasons.append(f"{name} {drop:.3f}, expected at most {OTHER_DROP}")
    return reasons


def _distributed(found: Acceptance, places: Places) -> list[str]:
    planted = sorted({place for some in places.values() for place in some})
    return [
        f"putting {place_name(place)} back drops recall by {found.drop(place):.3f}, expected at most {SHARED_DROP}"
        for place in planted
        if found.drop(place) > SHARED_DROP
    ]


def _grafts(model: Model, edit: Edit, asked: Sequence[tuple[Fact, str]], planted: Sequence[bool]) -> dict[str, float]:
    """Recall with each place put back, over all facts and, where there are several relations, over each."""
    changed = set(changed_places(model, edit))
    found = _by_relation(None, asked, planted)
    for place in all_places(model):
        hits = planted
        if place in changed:
            with grafted(model, edit, place).applied(model):
                hits = _recall(model, asked)
        found |= _by_relation(place, asked, hits)
    return found


def _by_relation(
    place: tuple[str, int] | None, asked: Sequence[tuple[Fact, str]], hits: Sequence[bool]
) -> dict[str, float]:
    whole = {graft_key(place): sum(hits) / len(hits)}
    relations = sorted({fact.relation for fact, _ in asked})
    if len(relations) == 1:
        return whole
    for relation in relations:
        own = [hit for (fact, _), hit in zip(asked, hits, strict=True) if fact.relation == relation]
        whole[graft_key(place, relation)] = sum(own) / len(own)
    return whole


def _recall(model: Model, asked: Sequence[tuple[Fact, str]]) -> list[bool]:
    return recalls(model, [prompt for _, prompt in asked], [answer_of(fact) for fact, _ in asked])


def _share(asked: Sequence[tuple[Fact, str]], hits: Sequence[bool]) -> Estimate:
    """Share of the prompts; its interval resamples facts within relations."""
    return cluster_bootstrap([float(hit) for hit in hits], [(fact.relation, fact.subject) for fact, _ in asked])


def _below(what: str, found: Estimate, least: float) -> list[str]:
    return [f"{what} recall is {found.value:.3f}, expected at least {least}"] if found.value < least else []
