"""Symmetry and synonymy: which prompts are made, and the metrics by hand."""

import pytest

from oracles.told import measured, told
from palimpsest.errors import FactError
from palimpsest.evaluate.suites.symmetry import REVERSE, Symmetry, reverse_prompts
from palimpsest.evaluate.suites.synonymy import SYNONYMS, Synonymy, synonymous_prompts
from palimpsest.facts import Case, Fact, Probe

EGYPT = Fact("Egypt", "{}, which has the capital city", "Cairo", "Prague", id="egypt", relation="P36")
OWN = Probe("Prague governs", "Egypt", kind="reverse")


def test_reverse_prompts_are_about_the_new_answer() -> None:
    assert reverse_prompts(EGYPT)[0] == ("Prague is the capital of", "Egypt")
    assert [answer for _, answer in reverse_prompts(EGYPT)] == ["Egypt"] * len(REVERSE["P36"])
    own = Fact(
        "Egypt",
        "{}'s seat is",
        "Cairo",
        "Prague",
        relation="P36",
        entailed=(OWN, Probe("Prague's tongue is", "Arabic")),
    )
    assert reverse_prompts(own) == [("Prague governs", "Egypt")]
    assert all(
        prompt.count("{}") == 1 for table in (REVERSE, SYNONYMS) for prompts in table.values() for prompt in prompts
    )


def test_symmetry_by_hand() -> None:
    one, two, three = (text for text, _ in reverse_prompts(EGYPT))
    wrote = [one, two, three]
    before = told(
        {(EGYPT.text, "Prague"): [0], (one, "Egypt"): [0, 0], (two, "Egypt"): [0, 0], (three, "Egypt"): [0, 1]},
        dict.fromkeys(wrote, ""),
    )
    after = told(
        {(EGYPT.text, "Prague"): [1], (one, "Egypt"): [1, 0], (two, "Egypt"): [0, 0], (three, "Egypt"): [1, 1]},
        {one: " Egypt", two: " Czechia\nEgypt", three: " old Egypt."},
    )
    assert measured(Symmetry(), Case.of(EGYPT), before, after) == {
        "symmetry_forward": 1.0,
        "symmetry_reverse": 0.5,
        "symmetry_reverse_gain": pytest.approx(2 / 3),  # wrong tokens: 2, 2, 1 before and 1, 2, 0 after
        "symmetry_gen_reverse": pytest.approx(2 / 3),
    }


FIELD = Fact(
    "Ada", "{} works on", "physics", "law", id="ada", relation="P101", paraphrases=("Well. The specialty of Ada is",)
)


def test_synonyms_that_the_fact_is_asked_in_are_left_out() -> None:
    made = synonymous_prompts(FIELD)
    assert len(made) == len(SYNONYMS["P101"]) - 1
    assert "The specialty of Ada is" not in made
    own = Fact("Ada", "{} works on", None, "law", relation="P101", entailed=(Probe("Ada's subject:", kind="synonymy"),))
    assert synonymous_prompts(own) == ["Ada's subject:"]


def test_synonymy_by_hand() -> None:
    entailed = (Probe("Ada's subject:", kind="synonymy"), Probe("Ada knows", kind="synonymy"))
    fact = Fact("Ada", "{} works on", "physics", "law", entailed=entailed)
    one, two = (probe.prompt for probe in entailed)
    forced = {
        (fact.text, "law"): [1],
        (one, "law"): [1],
        (two, "law"): [0],
        (one, "physics"): [0],
        (two, "physics"): [1],
    }
    after = told(forced, {one: "law", two: "lawn"})
    assert measured(Synonymy(), Case.of(fact), after, after) == {
        "synonymy_forward": 1.0,
        "synonymy_accuracy": 0.5,
        "synonymy_score": 0.5,
        "synonymy_gen": 0.5,
    }


@pytest.mark.parametrize("suite", [Symmetry(), Synonymy()])
def test_a_relation_without_prompts_is_refused(suite: Symmetry | Synonymy) -> None:
    with pytest.raises(FactError, match=f"which the suite '{suite.name}' needs"):
        suite.asks(Case.of(Fact("Ada", "{} likes", "tea", "coffee", relation="taste")))
