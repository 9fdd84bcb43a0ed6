"""RippleEdits' axes: conditions on the unedited model, answers in the new text, any and all."""

import pytest

from oracles.told import measured, told
from palimpsest.errors import FactError
from palimpsest.evaluate.asks import Answer, Ask
from palimpsest.evaluate.suites.ripple import Ripple
from palimpsest.facts import Case, Check, Fact, Query

FACT = Fact("Ada", "{} is a citizen of", "Denmark", "Syria", id="ripple/record-1/1")
MOTHER = Query("The mother of Ada is", (("Ida", "Mrs Brandt"),))
TONGUES = Query("The languages of Ada are", (("Arabic", "ar"), ("Kurdish",)))
SPEAKS = Query("Ada speaks", (("Arabic",),))
CAPITAL = Query("The capital of Syria is", (("Damascus",),))
CASE = Case(
    "ripple/record-1",
    (FACT,),
    (
        Check("Relation_Specificity", (MOTHER,), conditions=(MOTHER,)),
        Check("Logical_Generalization", (TONGUES, SPEAKS)),
        Check("Logical_Generalization", (TONGUES, SPEAKS), need="all"),
        Check("Compositionality_I", (SPEAKS,), conditions=(CAPITAL,)),
    ),
)


def wrote(success: str, mother: str, tongues: str, speaks: str, capital: str) -> dict[Ask, Answer]:
    prompts = [FACT.text, *(query.prompt for query in (MOTHER, TONGUES, SPEAKS, CAPITAL))]
    return told(wrote=dict(zip(prompts, [success, mother, tongues, speaks, capital], strict=True)), tokens=30)


BEFORE = wrote("Denmark", "Ida.", "Danish", "Danish", "a city")


def test_the_metrics_by_hand() -> None:
    found = measured(Ripple(), CASE, BEFORE, wrote("Syria", "Mrs. Brandt", "Arabic", "arabic", "Damascus"))
    assert {name: value for name, value in found.items() if value is not None} == {
        "ripple_success": 1.0,
        "ripple_relation_specificity": 1.0,
        "ripple_logical_generalization": 0.5,  # of all languages only one is said: "any" holds and "all" does not
        "ripple_relation_specificity_if_edited": 1.0,
        "ripple_logical_generalization_if_edited": 0.5,
        "ripple_executed": 0.75,  # the unedited model does not know the capital, whatever the edited one says
    }


def test_a_failed_edit_leaves_the_published_numbers_out() -> None:
    found = measured(Ripple(), CASE, BEFORE, wrote("Denmark", "Eve", "Arabic and Kurdish", "Arabic", ""))
    assert (found["ripple_success"], found["ripple_logical_generalization"]) == (0.0, 1.0)
    assert found["ripple_relation_specificity"] == 0.0
    assert not any(value is not None for name, value in found.items() if name.endswith("_if_edited"))


def test_an_answer_in_the_prompt_does_not_count() -> None:
    fact = Fact("Syria", "Where {} lies, they say, is", None, "Syria", id="ripple/record-2/1")
    case = Case("ripple/record-2", (fact,), (Check("Forgetfulness", (SPEAKS,)),))
    answers = told(wrote={fact.text: " far away", SPEAKS.prompt: ""}, tokens=30)
    assert measured(Ripple(), case, answers, answers)["ripple_success"] == 0.0


def test_a_case_without_axes_is_refused() -> None:
    with pytest.raises(FactError, match="no check of one of the six axes, which the suite 'ripple' needs"):
        Ripple().asks(Case.of(Fact("Ada", "{} is in", "Rome", "Oslo", id="zsre/record-2")))
