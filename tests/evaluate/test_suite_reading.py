"""The suites that only read: minimal pairs and passages, computed by hand."""

from math import exp, log

import pytest

from oracles.told import measured
from palimpsest.errors import FactError, InputError, SettingError
from palimpsest.evaluate.asks import Passage, PassageAnswer
from palimpsest.evaluate.suites.blimp import Blimp, pair
from palimpsest.evaluate.suites.text import Text, passages
from palimpsest.facts import Case, Fact

PAIR = Case("blimp/agreement/1", text="Cats sleep.\nCats sleeps.")


def read(good: float, bad: float) -> dict[Passage, PassageAnswer]:
    return {Passage("Cats sleep."): PassageAnswer(good, 3), Passage("Cats sleeps."): PassageAnswer(bad, 4)}


@pytest.mark.parametrize(
    ("before", "after", "right", "margin", "kept"),
    [
        ((4.0, 5.0), (2.0, 5.0), 1.0, 3.0, 1.0),
        ((4.0, 5.0), (5.0, 4.5), 0.0, -0.5, 0.0),
        ((5.0, 4.0), (5.0, 4.0), 0.0, -1.0, 1.0),
    ],
)
def test_blimp_by_hand(
    before: tuple[float, float], after: tuple[float, float], right: float, margin: float, kept: float
) -> None:
    """Sums are compared and not means: 5.0 over 4 tokens is less a token than 4.0 over 3."""
    found = measured(Blimp(), PAIR, read(*before), read(*after))  # type: ignore[arg-type]
    assert found == {"blimp_right": right, "blimp_margin": margin, "blimp_kept": kept}


def test_a_fact_of_blimp_is_a_pair_and_others_are_not() -> None:
    fact = Fact("that", "Craig saw {} grocery", "store", "stores", id="blimp/determiner_noun_agreement_1/1")
    assert pair(Case.of(fact)) == ("Craig saw that grocery store", "Craig saw that grocery stores")
    for case in (Case.of(Fact("Ada", "{} is in", "Rome", "Oslo")), Case("passage/1", text="One line.")):
        with pytest.raises(FactError, match="has no minimal pair"):
            Blimp().asks(case)


def test_text_by_hand() -> None:
    case = Case("passage/1", text="All is well.")
    before, after = ({Passage("All is well."): PassageAnswer(nll, 4)} for nll in (4 * log(2), 4 * log(3)))
    assert measured(Text(), case, before, after) == {  # type: ignore[arg-type]
        "text_nll": pytest.approx(log(3)),
        "text_perplexity": pytest.approx(3.0),
        "text_nll_rise": pytest.approx(log(1.5)),
    }
    assert exp(log(3)) == pytest.approx(3.0)
    nothing = {Passage("All is well."): PassageAnswer(0.0, 0)}
    assert set(measured(Text(), case, nothing, nothing).values()) == {None}  # type: ignore[arg-type]
    with pytest.raises(FactError, match="has no text"):
        Text().asks(Case.of(Fact("Ada", "{} is in", "Rome", "Oslo")))


def test_passages_are_whole_words_with_their_blanks() -> None:
    cut = passages(" one two\n\nthree  four five ", words=2)
    assert [(case.id, case.text) for case in cut] == [("passage/1", "one two"), ("passage/2", "three  four")]
    assert [case.text for case in passages("one two\nthree ", words=9)] == ["one two\nthree"]
    assert [case.text for case in passages("a b c d", words=2)] == ["a b", "c d"]
    assert not cut[0].facts


def test_what_cannot_be_cut_is_told() -> None:
    with pytest.raises(InputError, match="blank"):
        passages(" \n")
    with pytest.raises(SettingError, match="at least 2 words, got 1"):
        passages("one two", words=1)
