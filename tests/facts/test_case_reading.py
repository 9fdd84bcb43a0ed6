"""`read_cases`: everything that holds facts or cases, through one function."""

import json
from pathlib import Path

import pytest

from palimpsest.errors import RecordError, SettingError
from palimpsest.facts import Case, read_cases, read_facts

PAIR = {"sentence_good": "Some cats sleep.", "sentence_bad": "Some cats  sleeps.", "UID": "agreement", "pairID": "3"}


def test_facts_become_cases_of_their_own() -> None:
    cases, facts = read_cases("shipped", limit=3), read_facts("shipped", limit=3)
    assert cases.cases == tuple(Case.of(fact) for fact in facts)
    assert [case.id for case in cases[1:]] == [fact.id for fact in facts[1:]]
    assert repr(cases) == "<CaseFile 'shipped': 3 cases, 0 problems, jsonl>"


def test_pairs_of_sentences_become_cases_without_facts(tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_text(json.dumps(PAIR) + "\n" + json.dumps(PAIR | {"sentence_bad": "Some cats sleep."}) + "\n")
    found = read_cases(file)
    assert found.cases == (Case("blimp/agreement/3", text="Some cats sleep.\nSome cats sleeps."),)
    assert "the two sentences are the same" in str(found.problems[0])


def test_equal_ids_are_told_apart(tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_text(json.dumps(PAIR) + "\n" + json.dumps(PAIR) + "\n")
    assert [case.id for case in read_cases(file)] == ["blimp/agreement/3", "blimp/agreement/3-2"]


def test_a_schema_can_be_named_and_must_exist(tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_text(json.dumps(PAIR))
    with pytest.raises(RecordError, match=r"of BLiMP only the paradigms determiner_noun_agreement\* become facts"):
        read_cases(file, schema="blimp")
    with pytest.raises(SettingError, match="There is no schema 'mquke'. Did you mean"):
        read_cases(file, schema="mquke")


def test_every_paradigm_of_the_real_files_is_read_as_pairs(records: Path) -> None:
    found = [read_cases(file) for file in sorted((records / "blimp").glob("*.jsonl"))]
    assert (len(found), sum(len(file) for file in found)) == (30, 3_800)
    assert {file.schema for file in found} == {"blimp_pairs"}
    assert not any(file.problems for file in found)
    assert all(case.text is not None and case.text.count("\n") == 1 for file in found for case in file)


@pytest.mark.parametrize(
    ("name", "cases"),
    [
        ("counterfact/counterfact.json", 205),
        ("counterfact/counterfact_flat.json", 8842),
        ("known_1000/known_1000.json", 493),
    ],
)
def test_the_real_files_of_facts_are_read_as_cases(records: Path, name: str, cases: int) -> None:
    assert len(read_cases(records / name)) == cases
