"""`palimpsest edit --propagate RULES.json`: the plan comes first, and mistakes are named before a model is loaded."""

import json
from collections.abc import Callable
from pathlib import Path

import palimpsest as pal
from palimpsest.erase.propagate import rules_from, write_rules
from palimpsest.facts import Fact, write_facts

RULES = {
    "palimpsest_rules": 1,
    "relations": {
        "city": {"wordings": ["The {} is located in the city of"]},
        "holds": {"wordings": ["{} holds the"], "nothing": "no tower"},
    },
    "rules": [{"inverse": ["city", "holds"]}],
}


def test_the_command_shows_the_plan_first_and_writes_nothing_with_plan(
    palimpsest: Callable[..., tuple[int, str, str]], tiny_folder: Path, tmp_path: Path
) -> None:
    facts, rules, out = tmp_path / "facts.jsonl", tmp_path / "rules.json", tmp_path / "out"
    write_facts(
        facts, [Fact("Eiffel Tower", "The {} is located in the city of", "Paris", "Rome", id="e", relation="city")]
    )
    write_rules(rules_from(RULES), rules)
    code, said, _ = palimpsest("edit", tiny_folder, facts, "--propagate", rules, "--plan")
    assert code == 0
    assert "holds(Rome) = Eiffel Tower" in said
    assert not out.exists()
    code, said, _ = palimpsest("edit", tiny_folder, facts, "--propagate", rules, "--plan", "--json")
    assert [step["kind"] for step in json.loads(said)["steps"]][:2] == ["edit", "entailed"]
    common = ("--out", out, "--method", "ft", "--layers", "1", "--set", "steps=2")
    code, said, err = palimpsest("edit", tiny_folder, facts, "--propagate", rules, *common)
    assert code == 0
    assert "holds(Rome) = Eiffel Tower" in err
    assert len(pal.Edit.load(out / "edit.safetensors").facts) >= 2


def test_the_plan_is_of_the_facts_that_can_be_written(
    palimpsest: Callable[..., tuple[int, str, str]], tiny_folder: Path, tmp_path: Path
) -> None:
    facts, rules = tmp_path / "facts.jsonl", tmp_path / "rules.json"
    good = Fact("Eiffel Tower", "The {} is located in the city of", "Paris", "Rome", id="e", relation="city")
    open_one = Fact("Big Ben", "The {} is located in the city of", "London", id="open", relation="city")
    write_facts(facts, [good, open_one])
    write_rules(rules_from(RULES), rules)
    code, said, err = palimpsest("edit", tiny_folder, facts, "--propagate", rules, "--plan", "--json")
    assert code == 1
    assert "the fact open is left out" in err
    assert [one["fact"] for one in json.loads(said)["left_out"]] == ["open"]
    assert "Big Ben" not in json.dumps(json.loads(said)["steps"])


def test_the_command_names_mistakes(
    palimpsest: Callable[..., tuple[int, str, str]], tiny_folder: Path, facts_file: Path, tmp_path: Path
) -> None:
    rules = tmp_path / "rules.json"
    code, _, err = palimpsest("edit", tiny_folder, facts_file, "--plan")
    assert code == 2
    assert "needs --propagate" in err
    code, _, err = palimpsest("edit", tiny_folder, facts_file)
    assert code == 2
    assert "--out" in err
    code, _, err = palimpsest("edit", "no-such-model", facts_file, "--propagate", rules, "--plan")
    assert code == 2
    assert "cannot be read" in err
    write_rules(rules_from(RULES), rules)
    code, _, err = palimpsest("edit", "no-such-model", facts_file, "--propagate", rules, "--plan")
    assert code == 2
    assert "No fact is about a relation of the rules" in err
