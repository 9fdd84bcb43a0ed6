"""Records of the world: that their prompts and answers are the world's, and that the house reads them."""

from dataclasses import replace
from pathlib import Path

import pytest

from palimpsest.errors import InputError, SettingError
from palimpsest.facts import STRATA, Fact, Probe, read_facts, write_facts
from palimpsest.world.newcomers import new_aliases, newcomers
from palimpsest.world.relations import Triple, relations
from palimpsest.world.world import World, made_world

WORLD = made_world()
SOME = ("capital", "capital_of", "sister_city", "landmark_country", "headquarters", "founder")
RECORDS = WORLD.records(SOME)
PROMPTS = {
    relation.wordings[0].of(subject): (subject, name)
    for name, relation in relations().items()
    for subject in WORLD.entities[relation.subject]
}


def says(world: World, probe: Probe) -> str | None:
    return world.answer(*PROMPTS[probe.prompt])


def test_there_is_a_record_for_each_fact() -> None:
    wanted = [fact for fact in WORLD.facts if fact.relation in SOME]
    assert [(record.subject, record.relation, record.target_true) for record in RECORDS] == wanted
    assert len({record.id for record in RECORDS}) == len(RECORDS)
    geography = {kind: WORLD.entities[kind] for kind in ("country", "city", "language", "currency")}
    countries = replace(WORLD, entities=dict.fromkeys(WORLD.entities, ()) | geography)
    assert [(record.subject, record.relation, record.target_true) for record in countries.records()] == [
        *countries.facts
    ]


def test_a_new_answer_is_another_of_the_relation() -> None:
    for record in RECORDS:
        answers = {fact.object for fact in WORLD.facts if fact.relation == record.relation}
        assert record.target_new in answers - {record.target_true, record.subject}
    assert [r.target_new for r in WORLD.records(["spouse"], seed=1)] != [
        r.target_new for r in WORLD.records(["spouse"])
    ]


def test_every_probe_expects_what_the_coherent_world_says() -> None:
    for record in RECORDS:
        assert record.target_new is not None
        after = WORLD.after(record.subject, record.relation, record.target_new)
        for probe in record.entailed:
            assert (probe.before, probe.answer) == (says(WORLD, probe), says(after, probe))
            assert probe.before != probe.answer
        for stratum in ("same_subject", "neighbours", "far"):
            for probe in getattr(record, stratum):
                assert probe.answer == says(WORLD, probe) == says(after, probe)
                assert probe.before is None
        for stratum in ("entailed", "same_subject", "neighbours", "far"):
            for probe in getattr(record, stratum):
                assert PROMPTS[probe.prompt][0] == (probe.subject or record.subject)


def test_strata_hold_what_they_are_named_for() -> None:
    for record in RECORDS:
        assert all(len(getattr(record, stratum)) <= 5 for stratum in STRATA)
        assert all(PROMPTS[probe.prompt][0] == record.subject for probe in record.same_subject)
        assert all(PROMPTS[probe.prompt][1] == record.relation for probe in record.neighbours)
        assert len({PROMPTS[probe.prompt][1] for probe in record.far}) == len(record.far) == 5
        assert [probe.prompt.endswith(record.subject) for probe in record.generation] == [True, True, True]
    assert all(len(record.entailed) == 3 for record in RECORDS if record.relation == "sister_city")


def test_neighbours_with_the_same_answer_come_first() -> None:
    for record in RECORDS:
        same = sum(
            fact.relation == record.relation and fact.object == record.target_true and fact.subject != record.subject
            for fact in WORLD.facts
        )
        unmoved = [probe.answer == record.target_true for probe in record.neighbours]
        assert unmoved == [True] * min(same, 5) + [False] * (5 - min(same, 5))


def test_paraphrases_are_the_other_wordings_the_unseen_ones_last() -> None:
    for record in RECORDS:
        relation = relations()[record.relation]
        assert record.prompt == next(wording.text for wording in relation.seen if wording.kind == "plain")
        assert sorted(record.wordings) == sorted(wording.of(record.subject) for wording in relation.wordings)
        unseen = [text.replace("{}", record.subject) for text in WORLD.unseen_wordings(record.relation)]
        assert list(record.paraphrases[-2:]) == unseen


def test_another_name_of_an_answer_counts() -> None:
    alias, name = next((a, n) for a, n in WORLD.aliases.items() if WORLD.kind_of(n) == "company")
    fact = next(fact for fact in WORLD.facts if fact.relation == "employer" and fact.object == name)
    assert WORLD.record(fact).answer_aliases == (alias,)


def test_records_are_read_back(tmp_path: Path) -> None:
    write_facts(tmp_path / "world.jsonl", RECORDS)
    assert list(read_facts(tmp_path / "world.jsonl")) == RECORDS
    assert [Fact.from_json(record.to_json()) for record in RECORDS] == RECORDS


def test_a_newcomer_and_a_new_name_have_records_too() -> None:
    some = newcomers(WORLD, 4)
    larger = WORLD.with_newcomers(some)
    records = [larger.record(fact) for fact in some.facts]
    assert [(record.subject, record.target_true, record.target_new) for record in records] == [
        (fact.subject, fact.object, None) for fact in some.facts
    ]
    assert all(record.entailed == () and len(record.same_subject) == 3 for record in records)

    ((alias, name),) = new_aliases(WORLD, 1).items()
    city = WORLD.answer(name, "born_in")
    assert city is not None
    record = WORLD.with_aliases({alias: name}).record(Triple(alias, "born_in", city), target_new=None)
    assert record.subject == alias
    assert all(alias in probe.prompt and name not in probe.prompt for probe in record.same_subject)
    assert not any(probe.prompt.startswith(name) for probe in (*record.neighbours, *record.far))


def test_what_has_no_record_is_refused() -> None:
    fact = next(fact for fact in WORLD.facts if fact.relation == "born_in")
    other = next(city for city in WORLD.entities["city"] if city != fact.object)
    with pytest.raises(InputError, match="of a fact that holds, got .* where the world answers"):
        WORLD.record(Triple(fact.subject, "born_in", other))
    with pytest.raises(SettingError, match="0 or more, got -1"):
        WORLD.record(fact, probes=-1)
    with pytest.raises(InputError, match="Did you mean 'born_in'"):
        WORLD.records(["born"])
