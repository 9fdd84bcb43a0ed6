"""MQuAKE's three accuracies, computed by hand."""

import pytest

from oracles.told import measured, told
from palimpsest.errors import FactError
from palimpsest.evaluate.asks import Written
from palimpsest.evaluate.suites.mquake import Mquake
from palimpsest.facts import Case, Check, Fact, Query

FACTS = (
    Fact("Ada", "{} is a citizen of", "Denmark", "Croatia", id="mquake/1/1"),
    Fact("Croatia", "The head of {} is", "Zoran", "Kolinda", id="mquake/1/2"),
)
CITIZEN = Query("What is Ada a citizen of?", (("Croatia", "HR"),))
HEAD = Query("Who heads Croatia?", (("Kolinda",),))
LONG = tuple(
    Query(text, (("Kolinda", "K. G."),)) for text in ("Who heads Ada's country?", "Ada's head?", "Whose head?")
)
CASE = Case(
    "mquake/1",
    FACTS,
    (
        Check("edit_wise", (CITIZEN,)),
        Check("edit_wise", (HEAD,)),
        Check("instance_wise", (CITIZEN, HEAD), need="all"),
        Check("multi_hop", LONG),
    ),
)


def asked(suite: Mquake, *answers: str) -> dict[Written, str]:
    queries = (CITIZEN, HEAD, *LONG)
    return {
        Written(f"{suite.shots}Q: {query.prompt}\nA:", suite.tokens): answer
        for query, answer in zip(queries, answers, strict=True)
    }


@pytest.mark.parametrize(
    ("answers", "edit", "instance", "multi"),
    [
        ((" It is HR.\nQ: next", " Kolinda", " Zoran", " Bo", " k G,"), 1.0, 1.0, 1.0),
        ((" Croatia", " Zoran\nKolinda", " Zoran", " Bo", " nobody"), 0.5, 0.0, 0.0),
        ((" Denmark", " Zoran", " Kolinda", "", ""), 0.0, 0.0, 1.0),
    ],
)
@pytest.mark.parametrize("shots", ["", "Q: What is the capital of France?\nA: Paris\n\n"])
def test_the_metrics_by_hand(answers: tuple[str, ...], edit: float, instance: float, multi: float, shots: str) -> None:
    suite = Mquake(shots=shots)
    after = told(wrote=asked(suite, *answers))
    assert measured(suite, CASE, dict.fromkeys(after, ""), after) == {
        "mquake_edit_wise": edit,
        "mquake_instance_wise": instance,
        "mquake_multi_hop": multi,
    }


def test_a_case_without_its_checks_is_refused() -> None:
    with pytest.raises(FactError, match="has no check of the kind edit_wise"):
        Mquake().asks(Case.of(FACTS[0]))
