"""ParaRel's patterns and facts: which patterns can be used from left to right, and how the files find each other."""

import json
from pathlib import Path

import pytest

from palimpsest.errors import RecordError
from palimpsest.facts import Fact, read_cases, read_facts
from palimpsest.facts.pararel import left_to_right

PATTERNS = ["[X] is located in [Y] .", "[Y] is where [X] is.", "[X], which lies in [Y].", "[X] lies [Y]-wards."]
FACTS = [
    {"sub_label": "Mons", "obj_label": "Belgium", "uuid": "a"},
    {"sub_label": "Ulm", "obj_label": "Germany", "uuid": "b"},
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two relations, the second without a usable pattern, and a file of facts without patterns."""
    for room in ("patterns", "facts"):
        (tmp_path / room).mkdir()
    write(tmp_path / "patterns" / "P17.jsonl", [{"pattern": pattern, "lemma": "x"} for pattern in PATTERNS])
    write(tmp_path / "facts" / "P17.jsonl", FACTS)
    write(tmp_path / "patterns" / "P99.jsonl", [{"pattern": PATTERNS[1], "lemma": "x"}])
    write(tmp_path / "facts" / "P99.jsonl", FACTS[:1])
    write(tmp_path / "facts" / "P50.jsonl", FACTS)
    return tmp_path


def write(path: Path, records: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


@pytest.mark.parametrize(
    ("pattern", "prompt"),
    [
        ("[X] is located in [Y] .", "{} is located in"),
        ("[X] is located in [Y].", "{} is located in"),
        ("The capital of [X] is [Y]", "The capital of {} is"),
        ("[Y] is the capital of [X].", None),
        ("[X] and [X] are in [Y].", None),
        ("{} of [X] is [Y].", None),
        ("It is [Y].", None),
    ],
)
def test_patterns_that_end_in_their_answer_can_be_used(pattern: str, prompt: str | None) -> None:
    assert left_to_right(pattern) == prompt


def test_a_folder_is_read_whole(folder: Path) -> None:
    found = read_facts(folder)
    assert found.schema == "pararel"
    assert found[0] == Fact(
        "Mons",
        "{} is located in",
        "Belgium",
        id="pararel/P17/record-1",
        relation="P17",
        paraphrases=("Mons, which lies in",),
    )
    assert [fact.subject for fact in found] == ["Mons", "Ulm"]
    assert [problem.file.endswith("facts/P99.jsonl") for problem in found.problems] == [True]
    assert "no pattern of P99 ends in its answer, [Y]" in found.problems[0].message


def test_one_file_finds_its_patterns(folder: Path) -> None:
    assert [fact.text for fact in read_facts(folder / "facts" / "P17.jsonl")] == [
        "Mons is located in",
        "Ulm is located in",
    ]
    assert len(read_cases(folder / "facts" / "P17.jsonl", limit=1)) == 1


@pytest.mark.parametrize("name", ["facts/P50.jsonl", "patterns/P17.jsonl"])
def test_facts_without_patterns_and_patterns_alone_are_refused(folder: Path, name: str) -> None:
    with pytest.raises(RecordError, match="the patterns of its relation are missing; name ParaRel's folder"):
        read_facts(folder / name)


def test_a_damaged_file_of_patterns_is_told(folder: Path) -> None:
    (folder / "patterns" / "P17.jsonl").write_text('{"pattern": 7}\n')
    with pytest.raises(RecordError, match="line 1: expected the text of a pattern, got 7"):
        read_facts(folder)


def test_a_folder_without_relations_is_told(folder: Path) -> None:
    for file in (folder / "patterns").iterdir():
        file.unlink()
    with pytest.raises(RecordError, match="holds no relation with both facts and patterns"):
        read_facts(folder)


def test_the_real_folder(records: Path) -> None:
    found = read_facts(records / "pararel")
    assert (len(found), found.problems) == (13930, ())
    assert len({fact.relation for fact in found}) == 22
    wordings = {fact.relation: len(fact.wordings) for fact in found}
    assert (wordings["P17"], wordings["P36"], wordings["P495"], wordings["P1001"]) == (3, 8, 17, 1)
    assert sum(wordings.values()) == 138
