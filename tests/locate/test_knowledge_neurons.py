"""Which neurons the wordings share: by hand, by invariants, on tiny models; and surveys of many facts."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from oracles.small import DARRIEUX, EIFFEL, FACTS, model_of, with_probes
from palimpsest.errors import SettingError
from palimpsest.facts import Fact
from palimpsest.locate.neuron.attribution import neurons
from palimpsest.locate.neuron.shared import knowledge_neurons, neuron_survey, shared_by
from palimpsest.model import Model

A, B, C = (0, 1), (0, 2), (3, 0)
WORDED = with_probes(
    Fact("Eiffel Tower", "The {} is located in the city of", "Paris", id="tower"),
    ["Where is the Eiffel Tower? In", "The city of the Eiffel Tower is"],
    [],
)


@pytest.fixture(scope="module")
def llama() -> Model:
    return model_of("llama", dtype=torch.float64)


def test_a_share_is_of_all_sets_and_met_exactly() -> None:
    sets = [frozenset({A, B}), frozenset({A}), frozenset({C, A}), frozenset({B})]
    assert shared_by(sets, 0.75) == (0.75, (A,))
    assert shared_by(sets, 0.5) == (0.5, (A, B))
    assert shared_by(sets, 0.25) == (0.25, (A, B, C))
    assert shared_by(sets, 0.76) == (0.76, ())
    assert shared_by([frozenset({A})] * 10, 0.7)[1] == (A,)


def test_the_share_moves_until_so_many_are_kept() -> None:
    sets = [frozenset({A, B}), frozenset({A}), frozenset({C, A}), frozenset({B})]
    used, kept = shared_by(sets, 0.7, (2, 5))
    assert (used, kept) == (0.5, (A, B))
    many = [frozenset((0, i) for i in range(10 - n)) for n in range(10)]  # (0, i) is in 10 - i sets
    used, kept = shared_by(many, 0.3, (2, 5))
    assert (used, len(kept)) == (0.55, 5)
    assert shared_by(sets, 0.7, (1, 1)) == (0.7, (A,))
    assert shared_by([frozenset()] * 3, 0.7, (2, 5)) == (0.7, ())
    jump = [frozenset({A, B, C}), frozenset({A, B, C, (5, 5)})]  # three in both, four in one: never exactly one
    assert shared_by(jump, 0.7, (1, 2))[1] == (A, B, C)


@given(st.lists(st.frozensets(st.tuples(st.integers(0, 2), st.integers(0, 3))), min_size=1, max_size=8), st.data())
def test_a_higher_share_keeps_a_subset(sets: list[frozenset[tuple[int, int]]], data: st.DataObject) -> None:
    low, high = sorted([data.draw(st.floats(0.01, 1)), data.draw(st.floats(0.01, 1))])
    assert set(shared_by(sets, high)[1]) <= set(shared_by(sets, low)[1])
    assert set(shared_by(sets, 1.0)[1]) == frozenset.intersection(*sets)
    assert set(shared_by(sets, 1e-6)[1]) == frozenset.union(*sets)
    used, kept = shared_by(sets, 0.7, (2, 5))
    assert kept == shared_by(sets, used)[1]
    before = len(shared_by(sets, 0.7)[1])
    assert (used < 0.7) <= (before < 2)
    assert (used > 0.7) <= (before > 5)


def test_knowledge_neurons_are_those_over_the_threshold_in_enough_wordings(llama: Model) -> None:
    found = knowledge_neurons(llama, WORDED, threshold=0.1, share=0.6)
    each = [neurons(llama, WORDED, text=text).attr for text in WORDED.wordings]
    over = np.array([attr >= 0.1 * attr.max() for attr in each])
    assert set(found.neurons) == {(l, i) for l, i in np.argwhere(over.sum(0) >= 2)}
    assert found.over == tuple(over.sum((1, 2)))
    assert found.neurons == tuple(sorted(found.neurons))
    for place, strength, times in zip(found.neurons, found.strength, found.in_wordings, strict=True):
        assert strength == pytest.approx(np.mean([attr[place] for attr in each]))
        keys = [one.keys[place] for one in found.attributions]
        assert found.keys[found.neurons.index(place)] == pytest.approx(np.mean(keys))
        assert times == over[(slice(None), *place)].sum()
    assert found.total == pytest.approx(np.mean([attr.clip(min=0).sum() for attr in each]))
    assert found.largest == pytest.approx(np.mean([attr.max() for attr in each]))
    assert found.complete
    assert sum(found.per_layer.values()) == len(found.neurons) > 0


def test_wordings_can_be_held_out(llama: Model) -> None:
    found = knowledge_neurons(llama, WORDED, texts=WORDED.wordings[1:], steps=3)
    assert [one.text for one in found.attributions] == list(WORDED.wordings[1:])
    with pytest.raises(SettingError, match="at least one wording"):
        knowledge_neurons(llama, WORDED, texts=[])


def test_presets_settle_threshold_share_and_rule_and_what_is_given_wins(llama: Model) -> None:
    dai = knowledge_neurons(llama, WORDED, preset="dai-2022")
    assert {name: dai.settings[name] for name in ("threshold", "wanted", "rule", "steps", "refine")} == {
        "threshold": 0.2,
        "wanted": (2, 5),
        "rule": "left",
        "steps": 20,
        "refine": False,
    }
    sets = [neurons(llama, WORDED, text=text, preset="dai-2022").over(0.2) for text in WORDED.wordings]
    assert (dai.share, dai.neurons) == shared_by(sets, 0.7, (2, 5))
    eleuther = knowledge_neurons(llama, WORDED, preset="eleuther")
    assert (eleuther.settings["threshold"], eleuther.share, eleuther.settings["rule"]) == (0.3, 0.5, "inclusive")
    assert knowledge_neurons(llama, WORDED, preset="eleuther", threshold=0.9).settings["threshold"] == 0.9


def test_a_survey_drops_no_fact_and_stops_at_none(llama: Model) -> None:
    first = neurons(llama, Fact(EIFFEL.subject, EIFFEL.prompt), steps=1).answer.strip()
    known = Fact(EIFFEL.subject, EIFFEL.prompt, first, id="known")
    bad = Fact("x " * 300, "{} is", "Paris", id="long")
    asked = [known, bad, *FACTS]
    survey = neuron_survey(llama, asked, steps=2)
    assert [one.fact.id for one in survey.found] == [known.id, *(fact.id for fact in FACTS)]
    assert set(survey.failures) == {"long"}
    assert "at most" in survey.failures["long"]
    assert len(survey.of_known) + len(survey.of_unknown) == 4
    assert {one.fact.id for one in survey.of_unknown} >= {DARRIEUX.id}
    assert "no target_true" in neuron_survey(llama, [Fact("Mars", "{} is", id="mars")], steps=2).failures["mars"]
    assert not any(one.attributions for one in survey.found)
    stored = survey.to_json()
    assert len(stored["known"]) + len(stored["unknown"]) == 4  # type: ignore[arg-type]


def test_results_are_written_and_plotted(llama: Model, tmp_path: Any) -> None:
    found = knowledge_neurons(llama, EIFFEL, steps=2)
    found.save(str(tmp_path / "k.json"))
    stored = json.loads((tmp_path / "k.json").read_text("utf-8"))
    assert [(place["layer"], place["neuron"]) for place in stored["neurons"]] == list(found.neurons)
    pytest.importorskip("matplotlib")
    assert sum(bar.get_height() for bar in found.plot().axes[0].patches) == len(found.neurons)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"threshold": 0.0}, "threshold of knowledge neurons lies above 0"),
        ({"share": 1.5}, "at most 1, got 1.5"),
        ({"wanted": (3, 2)}, "fewest <= most"),
        ({"preset": "dai"}, "dai-2022"),
        ({"steps": 0}, "at least one step"),
    ],
)
def test_a_mistake_is_answered_with_one_sentence(llama: Model, settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SettingError, match=sentence):
        knowledge_neurons(llama, EIFFEL, **settings)
    with pytest.raises(SettingError, match=sentence):
        neuron_survey(llama, [EIFFEL], **settings)
