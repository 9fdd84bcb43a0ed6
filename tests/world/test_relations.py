"""Relations and their wordings: the rules the shipped file keeps, and what breaks them."""

import copy
import json
from importlib import resources
from typing import Any

import pytest

from palimpsest.errors import RecordError
from palimpsest.world.relations import FORMS, relations, relations_from

RELATIONS = relations()
RECORDS = json.loads((resources.files("palimpsest.world") / "data" / "relations.json").read_text(encoding="utf-8"))


def test_there_are_relations_of_every_form() -> None:
    assert len(RELATIONS) >= 12
    assert {relation.form for relation in RELATIONS.values()} == set(FORMS)
    assert sum(bool(relation.path) for relation in RELATIONS.values()) >= 2


@pytest.mark.parametrize("name", RELATIONS)
def test_a_relation_has_wordings_of_every_kind(name: str) -> None:
    relation = RELATIONS[name]
    kinds = [wording.kind for wording in relation.seen]
    assert len(kinds) >= 10
    assert min(kinds.count(kind) for kind in ("relation-first", "long")) >= 2
    assert [wording.kind for wording in relation.unseen] == ["plain", "relation-first"]
    assert relation.wordings == relation.seen + relation.unseen


@pytest.mark.parametrize("name", RELATIONS)
def test_a_wording_is_of_the_kind_it_says(name: str) -> None:
    for wording in RELATIONS[name].wordings:
        before, after = wording.text.split("{}")
        if wording.kind == "relation-first":
            assert len(before.split()) >= 3
            assert after in {" is", " is called", " is in", " is that of a"}  # nothing is left to say but the answer
        else:
            assert before == ""
            assert len(after.split()) >= 12 if wording.kind == "long" else len(after.split()) <= 10


@pytest.mark.parametrize("name", RELATIONS)
def test_an_unseen_wording_is_new_and_made_of_seen_words(name: str) -> None:
    seen = {word.strip(",").lower() for wording in RELATIONS[name].seen for word in wording.text.split()}
    for wording in RELATIONS[name].unseen:
        assert {word.strip(",").lower() for word in wording.text.split()} <= seen
        assert wording.text not in {other.text for other in RELATIONS[name].seen}


def test_no_prompt_has_two_answers() -> None:
    texts = [wording.text for relation in RELATIONS.values() for wording in relation.wordings]
    assert len(set(texts)) == len(texts)
    assert not [(one, other) for one in texts for other in texts if one != other and f"{other} ".startswith(f"{one} ")]


def test_a_prompt_is_the_wording_with_the_subject_in_its_hole() -> None:
    assert RELATIONS["born_in"].seen[0].of("Belvi Tarvok") == "Belvi Tarvok was born in the city of"


def test_the_way_back() -> None:
    assert RELATIONS["capital"].back == "capital_of"
    assert RELATIONS["spouse"].back == "spouse"
    assert RELATIONS["born_in"].back is None


def changed(name: str, **fields: Any) -> list[dict[str, Any]]:
    records = copy.deepcopy(RECORDS)
    next(record for record in records if record["name"] == name).update(fields)
    return records


def with_wording(name: str, text: str, part: str = "seen") -> list[dict[str, Any]]:
    records = copy.deepcopy(RECORDS)
    next(record for record in records if record["name"] == name)[part]["plain"].append(text)
    return records


@pytest.mark.parametrize(
    ("records", "message"),
    [
        (changed("spouse", form="mutual"), "form of the relation 'spouse' must be one of .*, got 'mutual'"),
        (changed("capital", inverse="founder"), "inverse of 'capital' is 'founder'"),
        (changed("capital", inverse=None), "1-to-1 relation, and no other, needs an inverse, got None"),
        (changed("born_in", inverse="spouse"), "needs an inverse, got 'spouse' for the n-to-1 one 'born_in'"),
        (changed("capital_of", implies="city_state"), "names 'city_state', which is no relation"),
        (changed("work_city", path=["employer", "city_country"]), "reaches a company, and 'city_country' leads from a"),
        (changed("work_city", path=["employer"]), "must lead to a city, got a company"),
        (changed("landmark_country", path=["landmark_country"]), "'landmark_country' is derived"),
        ([*RECORDS, RECORDS[0]], "'capital' stands twice"),
        ([{"name": "capital"}], "'capital' lacks the field 'seen'"),
        (with_wording("born_in", "Born in"), "needs one '{}' and no space at its ends, got 'Born in' in 'born_in'"),
        (with_wording("born_in", "{} was born near "), "no space at its ends"),
        (with_wording("born_in", "{} works"), "'{} works' of 'born_in' is how '{} works as a' of 'profession' begins"),
        (with_wording("born_in", "{} works as a"), "is how '{} works as a' of"),
        (with_wording("born_in", "{} hails from", "unseen"), "word 'from' of the unseen wording '{} hails from' must"),
    ],
)
def test_a_file_that_breaks_a_rule_is_refused(records: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(RecordError, match=message):
        relations_from(records)
