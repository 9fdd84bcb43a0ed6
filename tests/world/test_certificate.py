"""`certify` on organisms planted in a tiny model: grafting finds every place, chance finds none, and nothing is changed."""

import dataclasses
from importlib import import_module

import numpy as np
import pytest
import torch
from planted_models import base, facts, one_layer, organism

import palimpsest as pal
from palimpsest.errors import InputError, RecordError, SettingError, WeightError
from palimpsest.world.certificate import Certificate, Evidence, Instrument, Reading, certify, instruments
from palimpsest.world.certificate.certify import copied, some_facts
from palimpsest.world.certificate.graft import graft_drops, grafted
from palimpsest.world.certificate.instrument import LAST, NOWHERE, SUBJECT, WEIGHTS
from palimpsest.world.certificate.instruments import graft, knock_out, lens, random_scorer, tracing

QUICK = {"resamples": 100}


def models():
    return {base().name: base()}


@pytest.fixture(scope="module")
def controls() -> Certificate:
    """Grafting and the random scorer, on every MLP and attention organism."""
    return certify([graft("mlp"), graft("attn"), random_scorer()], one_layer(), models(), **QUICK)


def test_grafting_finds_every_planted_layer(controls):
    for name, kind in (("graft mlp", "mlp"), ("graft attn", "attention")):
        found = controls.finding(name, WEIGHTS, kind)
        assert found.planted == (0, 1, 2)
        assert found.reported == (0.0, 1.0, 2.0)
        assert found.auroc.value == found.hit.value == found.slope.value == 1
        assert found.fact_hit.value > 0.95
        elsewhere = found.profiles[~np.eye(3, dtype=bool)]
        assert (elsewhere == 0).all()  # nothing else differs from the base


def test_a_random_scorer_does_not(controls):
    hits = [controls.finding("random", NOWHERE, kind) for kind in ("mlp", "attention")]
    for found in hits:
        assert not found.auroc.excludes(0.5)
        assert abs(found.fact_hit.value - 1 / 3) < 0.25
        assert found.fact_hit.value < 0.8


def test_readings_are_used_on_the_modules_they_look_at(controls):
    assert {(one.reading.name, one.kind) for one in controls.findings} == {
        ("graft mlp", "mlp"),
        ("graft attn", "attention"),
        ("random", "mlp"),
        ("random", "attention"),
    }


def test_certificate_saves_loads_and_prints(controls, tmp_path):
    controls.save(tmp_path / "certificate.json")
    again = Certificate.load(tmp_path / "certificate.json")
    assert again.to_json() == controls.to_json()
    table = again.table()
    assert table.index("graft mlp") < table.index("random")  # the best first
    assert "best constant" in table
    assert "mlp: 3 organisms" in table
    (tmp_path / "certificate.json").write_text('{"format": "something else"}')
    with pytest.raises(RecordError, match="is no certificate"):
        Certificate.load(tmp_path / "certificate.json")
    with pytest.raises(RecordError, match="cannot be read"):
        Certificate.load(tmp_path / "not there.json")
    with pytest.raises(SettingError, match="graft mlp"):
        controls.finding("graft mlp", LAST, "mlp")


def test_figure_shows_a_panel_for_each_reading(controls):
    pytest.importorskip("matplotlib")
    figure = controls.plot()
    titles = [axes.get_title() for axes in figure.axes if axes.get_visible()]
    assert titles == ["graft mlp\nweights", "graft attn\nweights", "random\nnowhere"]
    panel = figure.axes[0].lines[1]  # the first is the diagonal
    assert list(panel.get_ydata()) == [0.0, 1.0, 2.0]


@pytest.mark.parametrize(
    ("family", "name"), [("gpt2", "mlp-1"), pytest.param("llama", "attention-2", marks=pytest.mark.slow)]
)
def test_every_instrument_of_the_house_scores_planted_organisms(family, name):
    """Finite numbers, of the right shape, and the base unchanged."""
    before, twin = base(family).fingerprint(), copied(base(family))
    (planted,) = (one for one in one_layer(family) if one.name == name)
    some = planted.facts[:4]  # two subjects of each relation: each can be swapped
    with planted.applied(twin) as model:
        for tool in instruments(samples=1, steps=3):
            scores = tool.read(model, base(family), some)
            assert len(scores) == len(tool.readings), tool.name
            for one in scores:
                assert one.shape == (4, 3), tool.name
                assert np.isfinite(one).all(), tool.name
                assert one.any() or not tool.sees(planted.places), tool.name
    assert twin.fingerprint() == base(family).fingerprint() == before


def test_knock_out_and_lens_say_what_their_functions_say():
    model, some = base(), facts()[:2]
    from palimpsest.locate import knockout, logit_lens

    for fact, subject, last in zip(some, *knock_out().read(model, model, some), strict=True):
        found = knockout(model, fact, window=1, sources=("subject_last", "before"), controls=0)
        np.testing.assert_allclose(np.stack([subject, last]), -found.effect)
    for fact, at_subject, at_last in zip(some, *lens().read(model, model, some), strict=True):
        found = logit_lens(model, fact)
        assert found.subject is not None
        for gains, token in ((at_subject, found.subject[1] - 1), (at_last, -1)):
            np.testing.assert_allclose(gains[1:], np.diff(found.log_p[token]), atol=1e-5)


def test_a_trace_reads_its_map_at_both_tokens():
    model, some = base(), facts()[:2]
    from palimpsest.locate import trace

    tool = tracing("mlp", "noise", samples=3, seed=5)
    for i, (at_subject, at_last) in enumerate(zip(*tool.read(model, model, some), strict=True)):
        found = trace(model, some[i], kind="mlp", window=1, samples=3, seed=5, spread_of=some)
        np.testing.assert_allclose(at_subject, found.effect[found.subject[1] - 1], atol=1e-6)
        np.testing.assert_allclose(at_last, found.effect[-1], atol=1e-6)


def test_subjects_are_swapped_in_from_a_pool():
    """One fact has nobody to be swapped with; with a pool it has, and its own subject is never taken."""
    model, (one, *others) = base(), facts()
    alone, pooled = tracing("mlp", "swap", 2), tracing("mlp", "swap", 2, 1, others)
    assert all(np.isnan(scores).all() for scores in alone.read(model, model, [one]))
    assert all(np.isfinite(scores).all() for scores in pooled.read(model, model, [one]))
    assert alone.settings != pooled.settings
    assert tracing("mlp", "swap", 2, 1, others[::-1]).settings["pool"] == pooled.settings["pool"] == 11


def test_the_rise_of_a_state_adds_up_to_its_effect():
    tool = tracing("state", "noise", samples=2)
    assert [reading.name for reading in tool.readings] == [
        *["trace state, noise"] * 2,
        *["trace state, noise, rise"] * 2,
    ]
    at_subject, at_last, rise_at_subject, rise_at_last = tool.read(base(), base(), facts()[:2])
    np.testing.assert_allclose(rise_at_subject.cumsum(axis=1), at_subject)
    np.testing.assert_allclose(rise_at_last.cumsum(axis=1), at_last)


def test_grafting_puts_back_one_module_and_then_the_organism():
    planted, twin = one_layer()[0], copied(base())
    with planted.applied(twin) as model:
        before = model.fingerprint()
        with grafted(model, base(), "mlp", 0) as changed:
            assert changed
            assert model.fingerprint() == base().fingerprint()
        with grafted(model, base(), "mlp", 1) as changed:
            assert not changed
        assert model.fingerprint() == before
        drops = graft_drops(model, base(), planted.facts, "mlp")
        assert (drops[:, 0] > 0.3).all()
        assert not drops[:, 1:].any()


def test_crossed_organism_and_storage_against_entity():
    crossed = organism(base(), {"city": (("mlp", 2),), "language": (("mlp", 0),)}, kind="crossed", name="crossed")
    aliases = [dataclasses.replace(one, kind="alias", name=f"alias-{i}") for i, one in enumerate(one_layer()[:3])]
    found = certify([graft("mlp"), random_scorer()], [*one_layer()[:3], *aliases, crossed], models(), **QUICK)
    by_name = {one.reading.name: one for one in found.crossed}
    assert by_name["graft mlp"].contrast.low > 0
    assert by_name["graft mlp"].layers == (2, 0)
    assert by_name["random"].contrast.width > 0.3  # of numbers from 0 to 1: six subjects say little
    for one in found.entity:  # the aliases are copies of the others, so that nothing can tell them apart
        if one.reading.name == "graft mlp":
            assert one.auroc.value == pytest.approx(0.5)
            assert one.p == 1
    again = Certificate.from_json(found.to_json())
    assert again.to_json() == found.to_json()


def test_interrupted_run_gives_the_same_certificate(tmp_path):
    tools = [graft("mlp"), lens()]
    whole = certify(tools, one_layer()[:3], models(), out=tmp_path / "whole", **QUICK)
    calls = 0

    def dies(model, plain, some):
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        return lens().read(model, plain, some)

    broken = dataclasses.replace(lens(), read=dies)
    with pytest.raises(KeyboardInterrupt):
        certify([graft("mlp"), broken], one_layer()[:3], models(), out=tmp_path / "part", **QUICK)
    assert (tmp_path / "part" / "samples.jsonl").read_bytes().count(b"\n") == 3
    assert not base().applied
    again = certify(tools, one_layer()[:3], models(), out=tmp_path / "part", **QUICK)
    assert again.to_json() == whole.to_json()
    for name in ("samples.jsonl", "results.json"):
        assert (tmp_path / "part" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert certify(tools, one_layer()[:3], models(), **QUICK).to_json() == whole.to_json()


def test_who_is_left_out_and_why():
    good = one_layer()[:3]
    bad = dataclasses.replace(
        good[0], name="bad", acceptance=dataclasses.replace(good[0].acceptance, accepted=False, reasons=("why",))
    )
    null = dataclasses.replace(good[0], name="null", kind="null", places={})
    found = certify(graft("mlp"), [*good, bad, null], models(), **QUICK)
    assert found.left_out == {
        "bad": "it failed its acceptance tests: why",
        "null": "the kind 'null' has no layer to find",
    }
    assert set(found.organisms) == {"mlp-0", "mlp-1", "mlp-2"}
    few = certify(graft("mlp"), good[:1], models(), **QUICK)
    assert not few.findings
    assert "too few" in few.failures["graft mlp @ weights, mlp"]


def test_bases_are_loaded_by_name_where_none_is_given(monkeypatch):
    asked = []

    def load_or_wrap(source, **settings):
        if not isinstance(source, str):
            return pal.load(source, **settings)
        asked.append(source)
        return base()

    module = import_module("palimpsest.world.certificate.certify")  # the package's own attribute is the function
    monkeypatch.setattr(module, "load", load_or_wrap)
    found = certify(graft("mlp"), one_layer()[:3], **QUICK)
    assert asked == [base().name]
    assert found.finding("graft mlp", WEIGHTS, "mlp").hit.value == 1


def test_mistakes_have_a_sentence():
    good = one_layer()[:3]
    with pytest.raises(InputError, match="base .* is not among"):
        certify(graft("mlp"), good, {})
    with pytest.raises(InputError, match="called 'mlp-0'"):
        certify(graft("mlp"), [good[0], good[0]], models())
    with pytest.raises(SettingError, match="one name"):
        certify([graft("mlp"), graft("mlp")], good, models())
    with pytest.raises(InputError, match="can be read"):
        certify(graft("mlp"), [], models())
    with pytest.raises(SettingError, match="facts=0"):
        certify(graft("mlp"), good, models(), facts=0)
    short = Instrument("short", (Reading("short", "mlp", SUBJECT),), lambda model, plain, some: [np.zeros((1, 1))])
    assert "must give 1 arrays" in certify(short, good, models(), **QUICK).failures["short/mlp-0"]


def test_a_wrong_base_is_refused_and_nothing_is_kept_of_it(tmp_path):
    (name,) = models()
    other = copied(models()[name])
    with torch.no_grad():
        for weight in other.net.parameters():
            weight.add_(1e-3)
    with pytest.raises(WeightError):
        certify(graft("mlp"), one_layer()[:3], {name: other}, out=tmp_path, **QUICK)
    assert not (tmp_path / "results.json").exists()


def test_whole_subjects_are_chosen():
    planted = one_layer()[0]
    some = some_facts(planted, 5, seed=0)
    assert len(some) == 4
    assert {fact.subject for fact in some} == {one.subject for one in some}
    assert all(sum(fact.subject == one.subject for fact in some) == 2 for one in some)
    assert some == some_facts(planted, 5, seed=0)
    assert some_facts(planted, 12, seed=0) == planted.facts
    assert len({some_facts(planted, 2, seed=seed)[0].subject for seed in range(10)}) > 1


def test_evidence_round_trip_keeps_what_could_not_be_scored():
    scores = np.array([[0.5, np.nan, np.nan], [1.0, 2.0, 3.0]])
    one = Evidence.of(Reading("x", "mlp", LAST), one_layer()[0], facts()[:2], scores)
    again = Evidence.from_json(one.to_json())
    np.testing.assert_array_equal(again.scores, scores)
    assert again.to_json() == one.to_json()
    assert again.readable().facts == one.facts[1:]
    assert torch.tensor(again.readable().scores).tolist() == [[1.0, 2.0, 3.0]]
