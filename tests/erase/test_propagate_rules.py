"""The rule file: what it says, what it refuses, and that it comes back unchanged."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from palimpsest.erase.propagate import Composition, Inverse, Rules, Statement, read_rules, rules_from, write_rules
from palimpsest.errors import RecordError
from palimpsest.world import made_world
from palimpsest.world.rules import world_rules

GOOD: dict[str, Any] = {
    "palimpsest_rules": 1,
    "relations": {
        "capital": {"wordings": ["The capital of {} is"], "subjects": ["France", "Spain"]},
        "capital_of": {"wordings": ["{} is the capital of"], "nothing": "no country"},
        "country": {"wordings": ["{} is in the country of", "The country of {} is"]},
        "born_in": {"wordings": ["{} was born in"]},
        "birth_country": {"wordings": ["{} was born in the country of"]},
        "spouse": {"wordings": ["{} is married to"]},
        "friend": {"wordings": ["A friend of {} is"], "functional": False},
    },
    "rules": [
        {"inverse": ["capital", "capital_of"]},
        {"symmetric": "spouse"},
        {"composition": ["capital_of"], "gives": "country"},
        {"composition": ["born_in", "country"], "gives": "birth_country"},
        {"alias": ["New York City", "NYC"]},
    ],
    "facts": [["Lyon", "country", "France"]],
}


def changed(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    data = json.loads(json.dumps(GOOD))
    change(data)
    return data


def test_a_good_file_says_what_it_says(tmp_path: Path) -> None:
    path = tmp_path / "rules.json"
    path.write_text(json.dumps(GOOD))
    rules = read_rules(path)
    assert rules.rules == (
        Inverse("capital", "capital_of"),
        Inverse("spouse", "spouse"),
        Composition(("capital_of",), "country"),
        Composition(("born_in", "country"), "birth_country"),
    )
    assert rules.facts == (Statement("Lyon", "country", "France"),)
    assert rules.entity("NYC") == "New York City"
    assert rules.entity("Lyon") == "Lyon"
    assert not rules.relations["friend"].functional
    assert rules.relations["capital_of"].nothing == "no country"


@pytest.mark.parametrize("rules", [rules_from(GOOD), world_rules(made_world(), facts=True)], ids=["good", "world"])
def test_rules_come_back_unchanged(rules: Rules, tmp_path: Path) -> None:
    write_rules(rules, tmp_path / "rules.json")
    assert read_rules(tmp_path / "rules.json") == rules


def rule(record: object) -> dict[str, Any]:
    return changed(lambda data: data["rules"].append(record))


def relation(**fields: object) -> dict[str, Any]:
    return changed(lambda data: data["relations"].update(new=fields))


WRONG = {
    "no version": (changed(lambda d: d.pop("palimpsest_rules")), "its version"),
    "another version": (changed(lambda d: d.update(palimpsest_rules=2)), "must be 1, got 2"),
    "a list": ([1], "is an object with the field"),
    "a misspelt part": (changed(lambda d: d.update(rulse=[])), "Did you mean 'rules'"),
    "no relation": (changed(lambda d: d.update(relations={}, rules=[], facts=[])), "at least one relation"),
    "rules as an object": (changed(lambda d: d.update(rules={})), "must be a list"),
    "a misspelt field": (relation(wordings=["{} is"], functoinal=True), "Did you mean 'functional'"),
    "no wording": (relation(), "At least one of the wordings"),
    "a wording without a hole": (relation(wordings=["it is"]), "one '{}'"),
    "a wording that ends in a space": (relation(wordings=["{} is "]), "no space at its ends"),
    "functional as text": (relation(wordings=["{} is"], functional="yes"), "must be true or false"),
    "nothing blank": (relation(wordings=["{} is"], nothing=" "), "'nothing'"),
    "a relation as text": (changed(lambda d: d["relations"].update(new="{} is")), "object with its wordings"),
    "an unknown kind": (rule({"symetric": "spouse"}), "Did you mean 'symmetric'"),
    "two kinds": (rule({"symmetric": "spouse", "alias": ["a", "b"]}), "one of inverse"),
    "a rule as text": (rule("spouse"), "one of inverse"),
    "an unknown relation": (rule({"symmetric": "spuose"}), "Did you mean 'spouse'"),
    "an inverse of itself": (rule({"inverse": ["friend", "friend"]}), "write symmetric"),
    "a second inverse": (rule({"inverse": ["capital", "friend"]}), "can have one inverse"),
    "a composition that gives nothing": (rule({"composition": ["born_in"]}), "says what it 'gives'"),
    "an inverse that gives": (rule({"inverse": ["born_in", "friend"], "gives": "x"}), "says what it 'gives'"),
    "an empty composition": (rule({"composition": [], "gives": "country"}), "at least one relation"),
    "an alias of two subjects": (
        rule({"alias": ["York", "NYC"]}),
        "'NYC' must belong to one entity, got 'New York City'",
    ),
    "an alias of itself": (rule({"alias": ["York", "York"]}), "two or more different names"),
    "a loop": (rule({"composition": ["country"], "gives": "capital_of"}), "loop at 'capital'"),
    "a loop by way of an inverse": (
        rule({"composition": ["capital", "spouse"], "gives": "capital_of"}),
        "loop at 'capital'",
    ),
    "a relation that gives itself": (
        rule({"composition": ["born_in", "born_in"], "gives": "born_in"}),
        "loop at 'born_in'",
    ),
    "half a fact": (changed(lambda d: d["facts"].append(["Lyon", "country"])), "[subject, relation, object]"),
    "facts that contradict": (changed(lambda d: d["facts"].append(["Lyon", "country", "Spain"])), "one answer"),
    "a fact of no relation": (
        changed(lambda d: d["facts"].append(["Lyon", "contry", "Spain"])),
        "Did you mean 'country'",
    ),
}


@pytest.mark.parametrize(("data", "said"), WRONG.values(), ids=WRONG.keys())
def test_a_mistake_is_named_in_one_sentence(data: object, said: str) -> None:
    with pytest.raises(RecordError) as error:
        rules_from(data)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rules.json"
    with pytest.raises(RecordError, match="cannot be read"):
        read_rules(path)
    path.write_bytes(b'{"\xff')
    with pytest.raises(RecordError, match="not UTF-8"):
        read_rules(path)
    path.write_text('{"palimpsest_rules": 1,\n oops}')
    with pytest.raises(RecordError, match="line 2"):
        read_rules(path)
