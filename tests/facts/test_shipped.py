"""The shipped facts are well formed, varied, and exactly what their tool makes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from palimpsest.facts.fact import Fact

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "src" / "palimpsest" / "facts" / "data" / "shipped.jsonl"
# A wording has the subject first when no more than this stands before it: "The ", "Country: ", "The city of ".
LONGEST_LEAD = len("The city of ")


@pytest.fixture(scope="module")
def facts() -> list[Fact]:
    with SHIPPED.open(encoding="utf-8") as lines:
        return [Fact.from_json(json.loads(line)) for line in lines]


def holds_word(text: str, word: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE) is not None


def first_word(text: str) -> str:
    return text.split()[0].casefold()


def test_there_are_about_four_hundred_over_many_relations(facts: list[Fact]) -> None:
    counts = Counter(fact.relation for fact in facts)

    assert 370 <= len(facts) <= 430
    assert len(counts) >= 12
    assert max(counts.values()) <= 40
    assert min(counts.values()) >= 10


def test_ids_are_unique_and_begin_with_the_relation(facts: list[Fact]) -> None:
    assert len({fact.id for fact in facts}) == len(facts)
    assert all(re.fullmatch(rf"{fact.relation}/[a-z0-9-]+", fact.id) for fact in facts)
    assert len({(fact.relation, fact.subject) for fact in facts}) == len(facts)


def test_a_line_is_what_to_json_writes(facts: list[Fact]) -> None:
    lines = SHIPPED.read_text(encoding="utf-8").splitlines()

    assert [json.dumps(fact.to_json(), ensure_ascii=False) for fact in facts] == lines


def test_each_fact_is_asked_in_three_wordings_in_both_orders(facts: list[Fact]) -> None:
    for fact in facts:
        assert len(set(fact.wordings)) == len(fact.wordings) >= 3, fact.id
        assert all(fact.subject in wording for wording in fact.wordings), fact.id
        assert all(wording == wording.strip() for wording in fact.wordings), fact.id
        starts = [wording.index(fact.subject) for wording in fact.wordings]
        assert min(starts) <= LONGEST_LEAD < max(starts), (fact.id, starts)


def test_no_wording_holds_its_answers(facts: list[Fact]) -> None:
    for fact in facts:
        assert fact.target_true is not None
        assert fact.target_new is not None
        for answer in (fact.target_true, fact.target_new, *fact.answer_aliases):
            assert not any(holds_word(wording, answer) for wording in fact.wordings), (fact.id, answer)


def test_the_new_answer_is_another_answer_of_the_relation(facts: list[Fact]) -> None:
    answers = {(fact.relation, fact.target_true) for fact in facts}

    for fact in facts:
        assert fact.target_new is not None
        assert (fact.relation, fact.target_new) in answers, fact.id
        old = {first_word(answer) for answer in (fact.target_true, *fact.answer_aliases) if answer}
        assert first_word(fact.target_new) not in old, fact.id


def test_each_fact_has_its_strata(facts: list[Fact]) -> None:
    for fact in facts:
        assert 3 <= len(fact.neighbours) <= 5, fact.id
        assert 1 <= len(fact.same_subject) <= 3, fact.id
        assert len(fact.far) == 2, fact.id
        assert 1 <= len(fact.generation) <= 2, fact.id
        assert all(fact.subject in probe.prompt for probe in (*fact.same_subject, *fact.generation)), fact.id


def test_probes_that_must_stay_do_not_touch_the_edit(facts: list[Fact]) -> None:
    for fact in facts:
        for probe in (*fact.neighbours, *fact.far):
            assert probe.answer, fact.id
            assert probe.subject, fact.id
            assert probe.subject in probe.prompt, fact.id
            assert probe.subject != fact.subject, fact.id
            assert probe.answer != fact.target_new, fact.id
        for probe in fact.same_subject:
            assert probe.answer, fact.id
            assert probe.answer not in (fact.target_true, fact.target_new), fact.id
        assert not {probe.prompt for probe in fact.same_subject} & set(fact.wordings), fact.id


def test_neighbours_share_the_old_answer_where_enough_subjects_do(facts: list[Fact]) -> None:
    sharing = Counter((fact.relation, fact.target_true) for fact in facts)

    for fact in facts:
        shared = sum(probe.answer == fact.target_true for probe in fact.neighbours)
        assert shared >= min(3, sharing[fact.relation, fact.target_true] - 1), fact.id


def test_entailed_facts_change_with_the_edit(facts: list[Fact]) -> None:
    for fact in facts:
        for probe in fact.entailed:
            assert probe.answer, fact.id
            assert probe.before, fact.id
            assert probe.answer != probe.before, fact.id
            assert probe.prompt not in fact.wordings, fact.id
    assert sum(bool(fact.entailed) for fact in facts) >= len(facts) // 2


def test_the_tool_makes_the_same_bytes_again(tmp_path: Path) -> None:
    tool = ROOT / "tools" / "shipped_facts.py"
    if not tool.exists():
        pytest.skip("The tools do not come with an installed package.")
    again = tmp_path / "again.jsonl"

    subprocess.run([sys.executable, str(tool), str(again)], check=True, capture_output=True)

    assert again.read_bytes() == SHIPPED.read_bytes()
