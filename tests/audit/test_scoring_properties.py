"""Scoring, for every evidence there could be: it is monotone, and depends on no order."""

import json

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scoring_cases import BARS, READINGS, RULES, evidence, failing, passing, scored

from palimpsest.audit.evidence import Control, Evidence
from palimpsest.audit.report_data import ReadingReport, Status
from palimpsest.statistics import Estimate

ENDPOINTS = sorted(BARS)
FAMILY = ("causal", "weights", "representational", "behavioural")
# a busy machine draws slowly, which says nothing of the property
many_times = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def records(draw, endpoint=None):
    name = endpoint or draw(st.sampled_from(ENDPOINTS))
    bar = BARS[name]
    band = max(bar.bar - bar.floor, 0.1)
    low = bar.floor + band * draw(st.sampled_from([-2.0, -0.5, 0.0, 0.5, 1.0, 2.0]))
    sane = draw(st.booleans())
    return evidence(
        name,
        low,
        low + band * draw(st.sampled_from([0.0, 0.3, 1.0, 4.0])),
        about=draw(st.sampled_from(["", "a", "b"])),
        family=draw(st.sampled_from(FAMILY)),
        p=draw(st.sampled_from([None, 0.0005, 0.02, 0.5])),
        level=draw(st.sampled_from(["model", "model", "instrument", "literature"])),
        split=draw(st.sampled_from(["confirmation", "confirmation", "all"])),
        controls=tuple(
            Control(kind, Estimate(0.0, -0.1, 0.1, 40, 10), sane=sane)
            for kind in draw(st.sampled_from([(), ("N1",), ("N1", "N6")]))
        ),
    )


many = st.lists(records(), max_size=12)
any_reading = st.sampled_from(READINGS)


def ranks(report: ReadingReport) -> dict[str, int]:
    return {name: one.status.rank for name, one in report.criteria.items()} | {
        one.lens: one.status.rank for one in report.lenses
    }


@many_times
@given(given_records=many, reading=any_reading, data=st.data())
def test_a_sub_test_that_fails_never_raises_a_status(given_records, reading, data):
    endpoint = data.draw(st.sampled_from(ENDPOINTS))
    lost = failing(
        endpoint, about="new", family=data.draw(st.sampled_from(FAMILY)), p=data.draw(st.sampled_from([None, 0.9]))
    )
    one, two = scored(*given_records, reading=reading), scored(*given_records, lost, reading=reading)
    before, after = ranks(one), ranks(two)
    assert {name: (before[name], rank) for name, rank in after.items() if rank > before[name]} == {}
    # the lowest rung asks for one measurement, whatever it says
    for rung, later in list(zip(one.verdict.ladder, two.verdict.ladder, strict=True))[1:]:
        assert rung.reached or not later.reached


@many_times
@given(given_records=many, reading=any_reading, by=st.sampled_from([0.1, 1.0, 10.0]), data=st.data())
def test_a_wider_interval_never_turns_weak_into_pass(given_records, reading, by, data):
    if not given_records:
        return
    at = data.draw(st.integers(0, len(given_records) - 1))
    narrow = given_records[at]
    wide = Evidence(
        **{
            **vars(narrow),
            "estimate": Estimate(narrow.estimate.value, narrow.estimate.low - by, narrow.estimate.high + by, 40, 10),
        }
    )
    before = scored(*given_records, reading=reading)
    after = scored(*given_records[:at], wide, *given_records[at + 1 :], reading=reading)
    for name, one in after.criteria.items():
        if one.status is Status.PASS:
            assert before.criteria[name].status is Status.PASS, name


@many_times
@given(given_records=many, reading=any_reading, data=st.data())
def test_the_same_evidence_in_any_order_gives_the_same_report(given_records, reading, data):
    shuffled = data.draw(st.permutations(given_records))
    assert json.dumps(scored(*given_records, reading=reading).to_json()) == json.dumps(
        scored(*shuffled, reading=reading).to_json()
    )


@many_times
@given(given_records=many, reading=any_reading, endpoint=st.sampled_from(ENDPOINTS), good=st.booleans())
def test_what_chose_the_place_never_counts(given_records, reading, endpoint, good):
    seen = (passing if good else failing)(endpoint, split="discovery")
    assert scored(*given_records, seen, reading=reading).to_json() == scored(*given_records, reading=reading).to_json()


@many_times
@given(
    reading=any_reading,
    level=st.sampled_from(["literature", "instrument"]),
    names=st.sets(st.sampled_from(ENDPOINTS), max_size=30),
)
def test_quotations_and_instruments_alone_never_pass(reading, level, names):
    report = scored(*(passing(name, level=level) for name in sorted(names)), reading=reading)
    experimental = [one for name, one in report.criteria.items() if not RULES.procedural(name)]
    assert all(one.status is not Status.PASS for one in experimental)


@many_times
@given(given_records=many, reading=any_reading)
def test_a_report_is_json_and_every_sentence_ends(given_records, reading):
    report = scored(*given_records, reading=reading)
    plain = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert plain["criteria"]["I1"]["status"] == report.criteria["I1"].status.value
    assert all(one.reason.endswith(".") for one in report.criteria.values())
    assert sum(plain["counts"][status.value] for status in Status) == plain["counts"]["criteria"] == 27
