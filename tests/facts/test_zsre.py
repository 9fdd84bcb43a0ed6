"""zsRE's records, each oddity written by hand, and the real files."""

import json
from pathlib import Path
from typing import Any

import pytest

from palimpsest.errors import RecordError
from palimpsest.facts import Fact, FactFile, Probe, read_facts

RECORD: dict[str, Any] = {
    "subject": "Ada Brandt",
    "src": "What country is Ada Brandt from?",
    "pred": "Norway",
    "rephrase": "Which country is Ada Brandt from?",
    "alt": " Yemen",
    "answers": [" Denmark", "Kingdom of Denmark"],
    "loc": "nq question: who paints the town red",
    "loc_ans": "a painter",
    "cond": "Norway >> Yemen || What country is Ada Brandt from?",
}


def read(tmp_path: Path, *records: dict[str, Any], schema: str | None = None) -> FactFile:
    file = tmp_path / "zsre.json"
    file.write_text(json.dumps(records))
    return read_facts(file, schema=schema)


def test_a_record_becomes_a_fact(tmp_path: Path) -> None:
    read_file = read(tmp_path, RECORD)
    assert read_file.schema == "zsre"
    assert read_file.problems == ()
    assert read_file[0] == Fact(
        subject="Ada Brandt",
        prompt="What country is {} from?",
        target_true="Denmark",
        target_new="Yemen",
        id="zsre/record-1",
        answer_aliases=("Kingdom of Denmark",),
        paraphrases=("Which country is Ada Brandt from?",),
        far=(Probe("who paints the town red?", answer="a painter"),),
    )
    assert read_file[0].relation == "What country is {} from?"


def test_portability_is_entailed(tmp_path: Path) -> None:
    moved = {
        "Recalled Relation": "(Yemen, capital, Sana'a)",
        "New Question": "Whose capital is it?",
        "New Answer": "Sana'a",
    }
    (fact,) = read(tmp_path, RECORD | {"portability": moved})
    assert fact.entailed == (Probe("Whose capital is it?", answer="Sana'a", kind="portability"),)


def test_a_question_that_has_its_mark_gets_no_second_one(tmp_path: Path) -> None:
    (fact,) = read(tmp_path, RECORD | {"loc": "who paints?"})
    assert fact.far[0].prompt == "who paints?"


def test_parts_that_are_missing_do_no_harm(tmp_path: Path) -> None:
    (fact,) = read(tmp_path, {name: RECORD[name] for name in ("subject", "src", "alt")})
    assert (fact.target_true, fact.paraphrases, fact.far, fact.entailed) == (None, (), (), ())


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"alt": ""}, "field 'alt': the text is empty or blank; this record was left out"),
        (
            {"alt": "Denmark "},
            "field 'alt': the new answer 'Denmark' is a right answer already, so there is nothing to edit",
        ),
        ({"alt": "Kingdom of Denmark"}, "is a right answer already"),
        ({"subject": "Ida"}, "field 'src': the subject 'Ida' does not occur in the prompt"),
        ({"answers": "Denmark"}, "field 'answers': expected a list of texts, got 'Denmark'"),
        ({"portability": {"New Question": "Where?"}}, "field 'portability.New Answer'"),
    ],
)
def test_a_bad_record_is_told_and_leaves_the_others(tmp_path: Path, change: dict[str, Any], problem: str) -> None:
    found = read(tmp_path, RECORD | change, RECORD)
    assert [fact.id for fact in found] == ["zsre/record-2"]
    assert len(found.problems) == 1
    assert problem in str(found.problems[0])


def test_another_schema_says_what_it_looks_like(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="This looks like zsRE; read it with schema='zsre'"):
        read(tmp_path, RECORD, schema="knowedit")


@pytest.mark.parametrize(("name", "facts", "problems"), [("train", 977, 23), ("eval", 98, 2)])
def test_the_real_files(records: Path, name: str, facts: int, problems: int) -> None:
    """Of 1,000 and 100 records, 2 ask for an empty answer and 21 and 2 for one that is right already."""
    found = read_facts(records / "zsre" / f"zsre_mend_{name}.json")
    assert (found.schema, len(found), len(found.problems)) == ("zsre", facts, problems)
    assert {problem.field for problem in found.problems} == {"alt"}
    assert all(fact.target_new == (fact.target_new or "").strip() for fact in found)
    assert all(len(fact.paraphrases) == len(fact.far) == 1 for fact in found)
    assert not any("nq question" in fact.far[0].prompt for fact in found)
    assert all(len(fact.entailed) == (name == "eval") for fact in found)
