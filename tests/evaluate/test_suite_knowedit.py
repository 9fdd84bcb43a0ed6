"""KnowEdit's metrics by kind, computed by hand from answers written by hand."""

import pytest

from oracles.told import measured, told
from palimpsest.errors import FactError
from palimpsest.evaluate.suites.knowedit import KnowEdit
from palimpsest.facts import Case, Fact, Probe

FACT = Fact(
    "Ada",
    "The country of {} is",
    "Denmark",
    "Syria",
    id="knowedit/record-1",
    paraphrases=("Ada comes from",),
    entailed=(
        Probe("The currency is", "pound", aliases=("SYP",), kind="reasoning"),
        Probe("The capital is", "Damascus", kind="reasoning"),
        Probe("A. is from", "Syria", kind="subject_aliasing"),
    ),
    same_subject=(
        Probe("The gender is", "female", kind="relation_specificity"),
        Probe("Not Syria but", "Denmark", kind="forgetfulness"),
    ),
)


def test_the_metrics_by_hand() -> None:
    pairs = [(text, "Syria") for text in FACT.wordings]
    pairs += [(probe.prompt, str(probe.answer)) for probe in (*FACT.entailed, *FACT.same_subject)]
    written = [FACT.text, *(probe.prompt for probe in FACT.entailed)]
    before = told(
        dict(zip(pairs, [[0], [0], [0, 0], [0], [0], [5, 6], [1, 1]], strict=True)), dict.fromkeys(written, "")
    )
    after = told(
        dict(zip(pairs, [[1], [0], [1, 0], [1], [0], [5, 1], [0, 0]], strict=True)),
        dict(zip(written, ["Syria, of course", "the SYP", "Paris", "Denmark"], strict=True)),
    )
    assert measured(KnowEdit(), Case.of(FACT), before, after) == {
        "knowedit_success": 1.0,
        "knowedit_rephrase": 0.0,
        "knowedit_portability": 0.375,  # mean of the kinds, not of the probes
        "knowedit_portability_reasoning": 0.75,
        "knowedit_portability_subject_aliasing": 0.0,
        "knowedit_portability_logical_generalization": None,
        "knowedit_locality": 0.25,
        "knowedit_locality_relation_specificity": 0.5,  # 5 stays, and 6 becomes the right token: a change all the same
        "knowedit_locality_forgetfulness": 0.0,
        "knowedit_locality_distracting_neighbor": None,
        "knowedit_gen_success": 1.0,
        "knowedit_gen_portability": 0.25,
    }


def test_a_fact_without_kinds_is_refused() -> None:
    with pytest.raises(FactError, match="no probes of portability or locality by kind, which the suite"):
        KnowEdit().asks(Case.of(Fact("Ada", "{} is in", "Rome", "Oslo", id="zsre/record-2", far=(Probe("who?"),))))
