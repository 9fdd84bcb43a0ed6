"""MQuAKE's records as cases, and the real files."""

import json
from pathlib import Path
from typing import Any

import pytest

from palimpsest.facts import CaseFile, Check, Query, read_cases

REWRITE = {
    "prompt": "{} is a citizen of",
    "relation_id": "P27",
    "target_new": {"str": "Croatia", "id": "Q224"},
    "target_true": {"str": "Denmark", "id": "Q35"},
    "subject": "Ada Brandt",
    "question": "What is Ada Brandt a citizen of?",
}
RECORD: dict[str, Any] = {
    "case_id": 14,
    "requested_rewrite": [
        REWRITE,
        REWRITE | {"subject": "Croatia", "prompt": "The head of {} is", "question": "Who heads Croatia?"},
    ],
    "questions": ["Who heads the country of Ada Brandt?", "Ada Brandt's head of state is who?"],
    "answer": "Bo",
    "answer_alias": [],
    "new_answer": "Kolinda",
    "new_answer_alias": ["K. G.", " ", "Kolinda"],
    "single_hops": [],
    "new_single_hops": [
        {"question": "What is Ada Brandt a citizen of?", "cloze": "...", "answer": "Croatia", "answer_alias": ["HR"]},
        {"question": "Who is the head of Croatia?", "cloze": "...", "answer": "Kolinda", "answer_alias": []},
    ],
}


def read(tmp_path: Path, *records: dict[str, Any]) -> CaseFile:
    file = tmp_path / "mquake.json"
    file.write_text(json.dumps(records))
    return read_cases(file)


def test_a_record_becomes_a_case(tmp_path: Path) -> None:
    found = read(tmp_path, RECORD)
    (case,) = found
    assert (found.schema, case.id) == ("mquake", "mquake/14")
    assert [(fact.id, fact.subject, fact.relation) for fact in case.facts] == [
        ("mquake/14/1", "Ada Brandt", "P27"),
        ("mquake/14/2", "Croatia", "P27"),
    ]
    assert found.facts == case.facts
    citizen = Query("What is Ada Brandt a citizen of?", (("Croatia", "HR"),))
    kolinda = (("Kolinda", "K. G."),)
    assert case.checks == (
        Check("edit_wise", (citizen,)),
        Check("edit_wise", (Query("Who heads Croatia?", (("Croatia",),)),)),  # not among the hops: no aliases known
        Check("instance_wise", (citizen, Query("Who is the head of Croatia?", (("Kolinda",),))), need="all"),
        Check("multi_hop", tuple(Query(question, kolinda) for question in RECORD["questions"]), need="any"),
    )


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"requested_rewrite": []}, "field 'requested_rewrite': there is nothing to edit"),
        ({"requested_rewrite": "x"}, "field 'requested_rewrite': expected a list of objects, got 'x'"),
        ({"requested_rewrite": [REWRITE | {"prompt": "no hole"}]}, "expected exactly one '{}'"),
        ({"new_answer_alias": "K"}, "field 'new_answer_alias': expected a list of texts, got 'K'"),
        ({"new_answer": ""}, "field 'new_answer': the text is empty or blank"),
    ],
)
def test_a_bad_record_is_told_and_leaves_the_others(tmp_path: Path, change: dict[str, Any], problem: str) -> None:
    found = read(tmp_path, RECORD | change, RECORD)
    assert len(found) == 1
    assert [problem in str(one) for one in found.problems] == [True]


@pytest.mark.parametrize(("name", "cases", "facts"), [("CF", 257, 316), ("hard", 20, 80)])
def test_the_real_files(records: Path, name: str, cases: int, facts: int) -> None:
    found = read_cases(records / "mquake" / f"MQuAKE-{name}.json")
    assert (found.schema, len(found), len(found.facts), found.problems) == ("mquake", cases, facts, ())
    for case in found:
        kinds = [check.kind for check in case.checks]
        assert kinds == ["edit_wise"] * len(case.facts) + ["instance_wise", "multi_hop"]
        assert len(case.checks[-1].queries) == 3
