"""ParaRel's consistency by the first word written and among candidates, computed by hand."""

import pytest

from oracles.told import measured, told
from palimpsest.errors import FactError
from palimpsest.evaluate.asks import Likelihood, LikelihoodAnswer
from palimpsest.evaluate.suites.pararel import ParaRel
from palimpsest.facts import Case, Fact

FACT = Fact(
    "Mons",
    "{} is in",
    "Belgium",
    None,
    id="pararel/P17/record-1",
    relation="P17",
    paraphrases=("Mons, in", "Mons lies in"),
)
OTHER = Fact("Ulm", "{} is in", "Germany", None, relation="P17")


def test_the_first_word_by_hand() -> None:
    before = told(wrote=dict(zip(FACT.wordings, ["Belgium", "France", "Spain"], strict=True)), tokens=6)
    after = told(wrote=dict(zip(FACT.wordings, [" Belgium, of", "the belgium", " France"], strict=True)), tokens=6)
    assert measured(ParaRel(), Case.of(FACT), before, after) == {
        "pararel_consistency": pytest.approx(1 / 3),
        "pararel_accuracy": pytest.approx(2 / 3),
        "pararel_all_right": 0.0,
        "pararel_kept": pytest.approx(1 / 3),
    }


def test_where_no_word_is_written_nothing_is_said_the_same() -> None:
    silent = told(wrote=dict(zip(FACT.wordings, ["", " -", "\n"], strict=True)), tokens=6)
    assert measured(ParaRel(), Case.of(FACT), silent, silent) == {
        "pararel_consistency": 0.0,
        "pararel_accuracy": 0.0,
        "pararel_all_right": 0.0,
        "pararel_kept": 1.0,
    }


def test_candidates_by_hand() -> None:
    suite = ParaRel.over([Case.of(FACT), Case.of(OTHER)])
    assert suite.candidates == {"P17": ("Belgium", "Germany")}

    def liked(*answers: str) -> dict[Likelihood, LikelihoodAnswer]:
        return {
            Likelihood(text, one): LikelihoodAnswer(0.0 if one == best else 1.0, (False,), (0,))
            for text, best in zip(FACT.wordings, answers, strict=True)
            for one in suite.candidates["P17"]
        }

    before, after = liked("Germany", "Belgium", "Belgium"), liked("Belgium", "Belgium", "Belgium")
    assert measured(suite, Case.of(FACT), before, after) == {  # type: ignore[arg-type]
        "pararel_consistency": 1.0,
        "pararel_accuracy": 1.0,
        "pararel_all_right": 1.0,
        "pararel_kept": pytest.approx(2 / 3),
    }


def test_an_edit_makes_its_answer_the_right_one() -> None:
    fact = Fact("Mons", "{} is in", "Belgium", "New Spain")
    after = told(wrote={fact.text: " new spain"}, tokens=6)
    found = measured(ParaRel(), Case.of(fact), after, after)
    assert (found["pararel_accuracy"], found["pararel_consistency"]) == (1.0, None)  # one wording has no pair


def test_a_fact_without_an_answer_is_refused() -> None:
    with pytest.raises(FactError, match="has no answer"):
        ParaRel().asks(Case.of(Fact("Mons", "{} is in")))
