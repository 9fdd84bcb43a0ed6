"""Strata and coverage, computed by hand; the bound against binomial sums and published values."""

from math import comb

import pytest
import torch

from oracles.told import measured, told
from palimpsest.errors import FactError, InputError, SettingError
from palimpsest.evaluate.asks import Answer, Ask, NextToken, NextTokenAnswer
from palimpsest.evaluate.suites.coverage import Coverage, coverage_bound
from palimpsest.evaluate.suites.strata import Strata
from palimpsest.facts import Case, Fact, Probe

FACT = Fact(
    "tower",
    "The {} is in",
    "Paris",
    "Rome",
    id="tower",
    paraphrases=("One sees the tower in", "Go to the tower in"),
    entailed=(
        Probe("The tower's country is", "Italy", before="France", aliases=("IT",)),
        Probe("Its spouse is", before="Bo"),
    ),
    same_subject=(Probe("The tower was built by", "Eiffel"),),
    neighbours=(Probe("The Louvre is in", "Paris"), Probe("The Seine is in", "Paris")),
    far=(Probe("Water is", "wet"), Probe("Fire is")),
)
STAYING = ["The tower was built by", "The Louvre is in", "The Seine is in", "Water is", "Fire is"]


def likeliest(*tokens: int) -> dict[Ask, Answer]:
    distributions = [torch.log_softmax(torch.eye(3)[token], 0) for token in tokens]
    return {NextToken(text): NextTokenAnswer(log_p) for text, log_p in zip(STAYING, distributions, strict=True)}


def test_the_strata_by_hand() -> None:
    text, one, two = FACT.wordings
    forced = {
        (text, "Rome"): [1, 1],
        (one, "Rome"): [1, 0],
        (two, "Rome"): [1, 1],
        ("The tower's country is", "Italy"): [0],
        ("The tower's country is", "IT"): [1],
        ("The tower's country is", "France"): [0],
        ("Its spouse is", "Bo"): [1],
        ("The tower was built by", "Eiffel"): [1],
        ("The Louvre is in", "Paris"): [0],
        ("The Seine is in", "Paris"): [1],
        ("Water is", "wet"): [0],
    }
    before = told(forced) | likeliest(0, 1, 2, 0, 1)
    after = told(forced) | likeliest(0, 1, 1, 0, 1)
    assert measured(Strata(), Case.of(FACT), before, after) == {
        "strata_edited_right": 1.0,
        "strata_paraphrases_right": 0.5,  # half of the tokens is not enough
        "strata_entailed_right": 1.0,  # by an alias; the probe without an answer says nothing here
        "strata_entailed_old": 0.5,
        "strata_same_subject_right": 1.0,
        "strata_neighbours_right": 0.5,
        "strata_far_right": 0.0,
        "strata_same_subject_kept": 1.0,
        "strata_neighbours_kept": 0.5,
        "strata_far_kept": 1.0,
    }


def test_strata_that_a_fact_lacks_have_no_value() -> None:
    fact = Fact("tower", "The {} is in", "Paris", "Rome", far=(Probe("Water is", "wet"),))
    answers = told({(fact.text, "Rome"): [1], ("Water is", "wet"): [1]}) | {
        NextToken("Water is"): NextTokenAnswer(torch.zeros(3))
    }
    found = measured(Strata(), Case.of(fact), answers, answers)
    assert [name for name, value in found.items() if value is not None] == [
        "strata_edited_right",
        "strata_far_right",
        "strata_far_kept",
    ]
    with pytest.raises(FactError, match="has no probe"):
        Strata().asks(Case.of(Fact("tower", "The {} is in", "Paris", "Rome")))


def test_coverage_by_hand() -> None:
    _, one, two = FACT.wordings
    after = told({(one, "Rome"): [1, 1], (two, "Rome"): [1, 0]})
    assert measured(Coverage(), Case.of(FACT), after, after) == {
        "coverage_failed": 0.5,
        "coverage_upper": pytest.approx(0.95**0.5),  # u^2 = 0.95: two failures in two are the rest
        "coverage_whole": 0.0,
    }
    with pytest.raises(FactError, match="has no paraphrase"):
        Coverage().asks(Case.of(Fact("tower", "The {} is in", "Paris", "Rome")))


@pytest.mark.parametrize(("failed", "n"), [(0, 1), (0, 59), (1, 2), (3, 10), (9, 10), (40, 200)])
@pytest.mark.parametrize("level", [0.5, 0.95, 0.999])
def test_the_bound_makes_so_few_failures_rare(failed: int, n: int, level: float) -> None:
    u = coverage_bound(failed, n, level)
    chance = sum(comb(n, i) * u**i * (1 - u) ** (n - i) for i in range(failed + 1))
    assert chance == pytest.approx(1 - level, abs=1e-9)
    assert failed / n < u or level == 0.5


def test_the_bound_in_known_cases() -> None:
    assert coverage_bound(0, 59) == pytest.approx(1 - 0.05 ** (1 / 59))
    assert coverage_bound(1, 10) == pytest.approx(0.39416, abs=1e-5)  # tables of exact limits, one-sided 95 %
    assert coverage_bound(4, 4) == 1.0


@pytest.mark.parametrize(("failed", "n"), [(0, 0), (-1, 3), (4, 3)])
def test_impossible_counts_are_refused(failed: int, n: int) -> None:
    with pytest.raises(InputError, match=f"got {failed} of {n}"):
        coverage_bound(failed, n)


def test_an_impossible_level_is_refused() -> None:
    with pytest.raises(SettingError, match="strictly between 0 and 1, got 1"):
        coverage_bound(0, 3, 1.0)
