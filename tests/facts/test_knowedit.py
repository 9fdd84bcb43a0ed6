"""KnowEdit's records in both forms of its answers, and the real files."""

import json
from pathlib import Path
from typing import Any

import pytest

from palimpsest.facts import FactFile, Probe, read_facts

RECORD: dict[str, Any] = {
    "subject": "Ada Brandt",
    "prompt": "The name of the country of Ada Brandt is",
    "target_new": "Syria",
    "ground_truth": "Denmark",
    "portability": {
        "Reasoning": [
            {"prompt": "The currency of the country of Ada Brandt is", "ground_truth": [["pound", "SYP"], ["lira"]]}
        ],
        "Subject_Aliasing": [{"prompt": "The country of A. Brandt is", "ground_truth": "Syria"}],
    },
    "locality": {
        "Relation_Specificity": [{"prompt": "The gender of Ada Brandt is", "ground_truth": ["female", "woman"]}],
        "Distracting_Neighbor": [{"prompt": "The country of Bo Lind is", "ground_truth": "Sweden"}],
    },
}


def read(tmp_path: Path, *records: dict[str, Any]) -> FactFile:
    file = tmp_path / "knowedit.json"
    file.write_text(json.dumps(records))
    return read_facts(file)


def test_a_record_becomes_a_fact_with_kinds(tmp_path: Path) -> None:
    found = read(tmp_path, RECORD)
    (fact,) = found
    assert found.schema == "knowedit"
    assert (fact.prompt, fact.target_true, fact.target_new) == ("The name of the country of {} is", "Denmark", "Syria")
    assert fact.entailed == (
        Probe("The currency of the country of Ada Brandt is", "pound", aliases=("SYP", "lira"), kind="reasoning"),
        Probe("The country of A. Brandt is", "Syria", kind="subject_aliasing"),
    )
    assert fact.same_subject == (
        Probe("The gender of Ada Brandt is", "female", aliases=("woman",), kind="relation_specificity"),
    )
    assert fact.neighbours == (Probe("The country of Bo Lind is", "Sweden", kind="distracting_neighbor"),)
    assert fact.paraphrases == ()


def test_a_rephrased_prompt_and_lists_of_answers(tmp_path: Path) -> None:
    (fact,) = read(tmp_path, RECORD | {"rephrase": "Ada Brandt is from", "ground_truth": [["Denmark", "DK"], [" "]]})
    assert fact.paraphrases == ("Ada Brandt is from",)
    assert (fact.target_true, fact.answer_aliases) == ("Denmark", ("DK",))


def test_a_probe_without_an_answer_is_left_out(tmp_path: Path) -> None:
    (fact,) = read(
        tmp_path, RECORD | {"locality": {"Forgetfulness": [{"prompt": "Not Syria but", "ground_truth": [[]]}]}}
    )
    assert fact.same_subject == ()


def test_a_fact_with_kinds_survives_the_way_through_json(tmp_path: Path) -> None:
    (fact,) = read(tmp_path, RECORD)
    assert type(fact).from_json(json.loads(json.dumps(fact.to_json()))) == fact


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"target_new": "Denmark"}, "field 'target_new': the new answer 'Denmark' is the right one already"),
        ({"portability": []}, "field 'portability': expected lists of prompts by kind, got []"),
        ({"locality": {"Forgetfulness": {}}}, "field 'locality.Forgetfulness': expected a list of prompts, got {}"),
        ({"locality": {"Forgetfulness": ["x"]}}, "expected an object with a prompt and its ground_truth, got 'x'"),
        ({"ground_truth": 7}, "field 'ground_truth': expected text or a list of spellings, got 7"),
        ({"prompt": "It is"}, "the subject 'Ada Brandt' does not occur in the prompt"),
    ],
)
def test_a_bad_record_is_told_and_leaves_the_others(tmp_path: Path, change: dict[str, Any], problem: str) -> None:
    found = read(tmp_path, RECORD | change, RECORD)
    assert [fact.id for fact in found] == ["knowedit/record-2"]
    assert [problem in str(one) for one in found.problems] == [True]


@pytest.mark.parametrize(
    ("name", "facts", "problems", "kinds"),
    [
        ("train", 1421, 6, {"reasoning": 502, "subject_aliasing": 1403, "logical_generalization": 304}),
        ("test", 40, 0, {"reasoning": 122, "subject_aliasing": 174, "logical_generalization": 32}),
    ],
)
def test_the_real_files(records: Path, name: str, facts: int, problems: int, kinds: dict[str, int]) -> None:
    found = read_facts(records / "knowedit" / f"wiki_counterfact_{name}.json")
    assert (found.schema, len(found), len(found.problems)) == ("knowedit", facts, problems)
    assert {problem.field for problem in found.problems} <= {"target_new"}
    entailed = [probe.kind for fact in found for probe in fact.entailed]
    assert {kind: entailed.count(kind) for kind in kinds} == kinds
    local = {probe.kind for fact in found for probe in fact.same_subject}
    assert local == {"relation_specificity", "forgetfulness"}
    assert all(len(fact.paraphrases) == (name == "test") for fact in found)
