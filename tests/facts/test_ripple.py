"""RippleEdits' records, written by hand after its description: edits with and without an original fact, and their tests."""

import json
from pathlib import Path
from typing import Any

import pytest

from palimpsest.facts import CaseFile, Check, Query, read_cases


def query(prompt: str, *answers: tuple[str, ...], subject: str = "Q1") -> dict[str, Any]:
    told = [{"value": value, "aliases": list(aliases)} for value, *aliases in answers]
    return {"prompt": prompt, "answers": told, "query_type": "regular", "subject_id": subject, "phrase": None}


MOTHER = query("The name of the mother of Ada de la Cour Brandt is", ("Ida", "Ida Brandt"))
RECORD: dict[str, Any] = {
    "example_type": "popular",
    "edit": {
        "prompt": "The name of the country of citizenship of Ada de la Cour Brandt is New Syria.",
        "subject_id": "Q1",
        "relation": "COUNTRY_OF_CITIZENSHIP",
        "target_id": "Q858",
        "original_fact": {
            "prompt": "The name of the country of citizenship of Ada de la Cour Brandt is Norway.",
            "subject_id": "Q1",
        },
    },
    "Relation_Specificity": [{"test_queries": [MOTHER], "test_condition": "OR", "condition_queries": [MOTHER]}],
    "Logical_Generalization": [
        {
            "test_queries": [
                query("The languages of Ada de la Cour Brandt are", ("Arabic", "ar"), ("Kurdish",)),
                query("Ada de la Cour Brandt speaks", ("Arabic",)),
            ],
            "test_condition": "AND",
            "condition_queries": [],
        }
    ],
    "Subject_Aliasing": [
        {"test_queries": [query("The country of Countess Ada is", ("New Syria",))], "test_condition": "OR"}
    ],
    "Compositionality_I": [
        {"test_queries": [query("Nothing is said of")], "test_condition": "OR", "condition_queries": []}
    ],
    "Compositionality_II": [],
}


def read(tmp_path: Path, *records: dict[str, Any]) -> CaseFile:
    file = tmp_path / "ripple.json"
    file.write_text(json.dumps(records))
    return read_cases(file)


def test_a_record_becomes_a_case(tmp_path: Path) -> None:
    found = read(tmp_path, RECORD)
    (case,) = found
    assert (found.schema, case.id, found.problems) == ("ripple", "ripple/record-1", ())
    fact = case.fact
    assert fact.subject == "Ada de la Cour Brandt"
    assert fact.prompt == "The name of the country of citizenship of {} is"
    assert (fact.target_true, fact.target_new, fact.relation) == ("Norway", "New Syria", "COUNTRY_OF_CITIZENSHIP")
    mother = Query("The name of the mother of Ada de la Cour Brandt is", (("Ida", "Ida Brandt"),))
    assert case.checks == (  # the query without answers is gone, and its check with it
        Check("Relation_Specificity", (mother,), "any", (mother,)),
        Check(
            "Logical_Generalization",
            (
                Query("The languages of Ada de la Cour Brandt are", (("Arabic", "ar"), ("Kurdish",))),
                Query("Ada de la Cour Brandt speaks", (("Arabic",),)),
            ),
            "all",
        ),
        Check("Subject_Aliasing", (Query("The country of Countess Ada is", (("New Syria",),)),)),
    )


def test_answers_that_begin_with_the_same_letters_are_parted_at_words(tmp_path: Path) -> None:
    edit = {
        "prompt": "The spouse of Ada Brandt is Carol Chu.",
        "original_fact": {"prompt": "The spouse of Ada Brandt is Casey."},
    }
    (case,) = read(tmp_path, RECORD | {"edit": {"subject": "Ada Brandt", **edit}})
    assert (case.fact.prompt, case.fact.target_new, case.fact.target_true) == (
        "The spouse of {} is",
        "Carol Chu",
        "Casey",
    )


def test_a_recent_record_has_no_original_fact(tmp_path: Path) -> None:
    edit = {name: value for name, value in RECORD["edit"].items() if name != "original_fact"}
    (case,) = read(tmp_path, RECORD | {"example_type": "recent", "edit": edit})
    assert (case.fact.target_new, case.fact.target_true) == ("New Syria", None)
    assert case.fact.text == "The name of the country of citizenship of Ada de la Cour Brandt is"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"edit": RECORD["edit"] | {"subject_id": "Q2"}}, "no query about its subject_id tells its name"),
        (
            {"edit": RECORD["edit"] | {"original_fact": {"prompt": RECORD["edit"]["prompt"]}}},
            "there is nothing to edit",
        ),
        ({"edit": {"prompt": "Nothing at all.", "subject": "all"}}, "no ' is ' tells the answer from the prompt"),
        ({"Forgetfulness": [{"test_queries": [MOTHER], "test_condition": "XOR"}]}, "expected 'OR' or 'AND', got 'XOR'"),
        ({"Forgetfulness": ["x"]}, "field 'Forgetfulness': expected a list of objects"),
    ],
)
def test_a_bad_record_is_told_and_leaves_the_others(tmp_path: Path, change: dict[str, Any], problem: str) -> None:
    found = read(tmp_path, RECORD | change, RECORD)
    assert [case.id for case in found] == ["ripple/record-2"]
    assert [problem in str(one) for one in found.problems] == [True]
