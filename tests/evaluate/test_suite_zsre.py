"""zsRE's metrics, computed by hand from answers written by hand."""

import pytest

from oracles.told import measured, told
from palimpsest.errors import FactError
from palimpsest.evaluate.suites.zsre import Zsre
from palimpsest.facts import Case, Fact, Probe

FACT = Fact(
    "Ada",
    "What country is {} from?",
    "Denmark",
    "Yemen",
    id="zsre/record-1",
    paraphrases=("Where does Ada come from?", "Ada's country?"),
    entailed=(Probe("What is the capital of Ada's country?", "Sana'a", kind="portability"),),
    far=(Probe("who paints?", "a painter"), Probe("who knows?")),
)
ASKED, FIRST, SECOND = FACT.wordings
CAPITAL, PAINTS, KNOWS = FACT.entailed[0].prompt, "who paints?", "who knows?"


def test_the_metrics_by_hand() -> None:
    before = told(
        {
            (ASKED, "Yemen"): [0, 0],
            (FIRST, "Yemen"): [0, 0],
            (SECOND, "Yemen"): [0, 0],
            (CAPITAL, "Sana'a"): [2],
            (PAINTS, "a painter"): [1, 7, 8, 1],
        },
        {ASKED: " Denmark.", FIRST: "", SECOND: "", CAPITAL: "", PAINTS: "\n A painter!\nWho?", KNOWS: "Bo"},
    )
    after = told(
        {
            (ASKED, "Yemen"): [1, 1],
            (FIRST, "Yemen"): [1, 0],
            (SECOND, "Yemen"): [0, 0],
            (CAPITAL, "Sana'a"): [1],
            (PAINTS, "a painter"): [1, 7, 1, 0],
        },
        {
            ASKED: " from Yemen",
            FIRST: "Yemenite\nYemen",
            SECOND: "YEMEN",
            CAPITAL: "sanaa",
            PAINTS: "a  painter",
            KNOWS: "Ida",
        },
    )
    assert measured(Zsre(), Case.of(FACT), before, after) == {
        "zsre_efficacy": 1.0,
        "zsre_paraphrase": 0.25,
        "zsre_specificity_gold": 0.5,  # the first and third of four tokens are right
        "zsre_specificity": 0.5,  # the first two are those of before: 1 and 7
        "zsre_portability": 1.0,
        "zsre_gen_efficacy": 1.0,
        "zsre_gen_paraphrase": 0.5,  # only the first line counts, and whole words
        "zsre_gen_specificity": 0.5,
        "zsre_gen_portability": 1.0,
    }


def test_facts_of_another_benchmark_are_refused() -> None:
    with pytest.raises(FactError, match="no unrelated question .*, which the suite 'zsre' needs"):
        Zsre().asks(Case.of(Fact("Ada", "{} is in", "Rome", "Oslo", id="counterfact/7")))
    with pytest.raises(FactError, match="has no target_new"):
        Zsre().asks(Case.of(Fact("Ada", "{} is in", "Rome")))
