"""Suppressing and amplifying against brute force, and the controls beside them."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from oracles.small import DARRIEUX, EIFFEL, JAPAN, down_of, model_of, precision_of, with_probes
from oracles.textbook_neurons import scaled_logits as textbook
from palimpsest.errors import SettingError
from palimpsest.facts import Fact
from palimpsest.locate.neuron.baselines import key_widths
from palimpsest.locate.neuron.effects import Effect, NeuronEffects, neuron_effects, random_like, summarise
from palimpsest.model import Model

OWN = ((0, 3), (0, 7), (2, 40))
OTHER = ((1, 5),)
WORDED = with_probes(EIFFEL, ["Where is the Eiffel Tower? In"], [])


def brute(model: Model, family: str, prompts: list[Any], neurons: Any, factor: float) -> tuple[float, float, bool]:
    """(drift, share of flips, first flips) by full forwards."""
    downs = [down_of(model, family, l) for l in range(3)]
    clean, changed, flips = 0.0, 0.0, []
    for text, answer in prompts:
        ids = model.tokenizer(text).input_ids
        token = model.tokenizer(f" {answer}", add_special_tokens=False).input_ids[0]
        before, after = textbook(model.net, downs, ids, [], 1.0), textbook(model.net, downs, ids, neurons, factor)
        clean += float(before.softmax(-1)[token])
        changed += float(after.softmax(-1)[token])
        flips.append(bool(before.argmax() != after.argmax()))
    return changed / clean - 1, float(np.mean(flips)), flips[0]


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox_parallel", "opt", "bloom"])
def test_effects_are_those_of_full_forwards(family: str) -> None:
    dtype, tolerance = precision_of(family)
    model = model_of(family, dtype=dtype)
    found = neuron_effects(model, WORDED, OWN, other=OTHER, elsewhere=[JAPAN, DARRIEUX], random_sets=3, seed=1)
    here = [(text, "Paris") for text in WORDED.wordings]
    away = [(JAPAN.text, "Tokyo"), (DARRIEUX.text, "French")]
    random = random_like(OWN, key_widths(model), 3, f"1 {WORDED.id}")
    for factor, by in (("suppress", 0.0), ("amplify", 2.0)):
        for place, prompts in (("here", here), ("elsewhere", away)):
            for kind, sets in (("own", [OWN]), ("random", random), ("other", [OTHER])):
                effect = found.of(factor, kind, place)
                assert effect is not None
                wanted = [brute(model, family, prompts, neurons, by) for neurons in sets]
                np.testing.assert_allclose(effect.drift, [w[0] for w in wanted], rtol=1e-3, atol=1e3 * tolerance)
                np.testing.assert_allclose(effect.flip, [w[1] for w in wanted])
                assert effect.flipped == tuple(w[2] for w in wanted)
    own = found.of("suppress")
    assert own is not None
    assert abs(own.drift[0]) > 1e-3


def test_the_order_of_answer_and_foil_is_that_of_full_forwards() -> None:
    model = model_of("gpt2", dtype=torch.float64)
    everything = [(l, i) for l in range(3) for i in range(48)]
    found = neuron_effects(model, WORDED, everything, random_sets=1)
    downs = [down_of(model, "gpt2", l) for l in range(3)]
    answer, foil = (model.tokenizer(f" {word}").input_ids[0] for word in ("Paris", "Rome"))
    changed = []
    for text in WORDED.wordings:
        ids = model.tokenizer(text).input_ids
        before, after = (textbook(model.net, downs, ids, everything, by) for by in (1.0, 0.0))
        changed.append(bool((before[answer] > before[foil]) != (after[answer] > after[foil])))
    effect = found.of("suppress")
    assert effect is not None
    assert effect.order == (np.mean(changed),)
    without = neuron_effects(model, Fact("Japan", "The capital of {} is", "Tokyo"), OWN, random_sets=1).of("suppress")
    assert without is not None
    assert without.order == ()


def test_wordings_can_be_held_out() -> None:
    model = model_of("gpt2", dtype=torch.float64)
    held = neuron_effects(model, WORDED, OWN, texts=WORDED.wordings[1:], random_sets=1).of("amplify")
    assert held is not None
    wanted = brute(model, "gpt2", [(WORDED.wordings[1], "Paris")], OWN, 2.0)
    assert (held.drift[0], held.flipped[0]) == (pytest.approx(wanted[0]), wanted[2])


def test_many_neurons_flip_the_answer() -> None:
    model = model_of("gpt2", dtype=torch.float64)
    everything = [(l, i) for l in range(3) for i in range(48)]
    found = neuron_effects(model, WORDED, everything, random_sets=1)
    effect = found.of("suppress")
    assert effect is not None
    assert effect.flip[0] == brute(model, "gpt2", [(t, "Paris") for t in WORDED.wordings], everything, 0.0)[1]
    assert found.of("suppress", "other") is None
    assert found.of("suppress", "own", "elsewhere") is None


def test_rows_at_once_change_nothing_and_seeds_change_the_random_sets_only() -> None:
    model = model_of("llama", dtype=torch.float64)
    whole = neuron_effects(model, WORDED, OWN, random_sets=5)
    rowed = neuron_effects(model, WORDED, OWN, random_sets=5, rows=2)
    other = neuron_effects(model, WORDED, OWN, random_sets=5, seed=9)
    for one, two, three in zip(whole.effects, rowed.effects, other.effects, strict=True):
        np.testing.assert_allclose(one.drift, two.drift, atol=1e-9)
        assert (one.drift == three.drift) == (one.neurons == "own")


def test_a_fact_without_neurons_has_no_effects() -> None:
    found = neuron_effects(model_of("gpt2"), EIFFEL, [])
    assert found.effects == ()
    assert found.count == 0


@given(st.sets(st.tuples(st.integers(0, 2), st.integers(0, 9)), min_size=1), st.integers(1, 4))
def test_random_sets_have_as_many_in_each_layer_and_none_of_the_own_where_there_are_others(
    own: set[tuple[int, int]], count: int
) -> None:
    sets = random_like(sorted(own), (10, 10, 10), count, "seed")
    assert len(sets) == count
    for drawn in sets:
        assert len(set(drawn)) == len(drawn) == len(own)
        for l in range(3):
            mine = {i for layer, i in own if layer == l}
            theirs = {i for layer, i in drawn if layer == l}
            assert len(theirs) == len(mine)
            assert not (mine & theirs) or len(mine) > 5
    assert sets == random_like(sorted(own), (10, 10, 10), count, "seed")


def test_p_counts_the_own_set_among_the_random_ones() -> None:
    def effect(kind: str, *drift: float) -> Effect:
        return Effect("suppress", kind, "here", drift, (0.0,) * len(drift), (False,) * len(drift))

    found = NeuronEffects("a", ("r", "s"), 2, (effect("own", -0.5), effect("random", -0.1, 0.6, -0.5)), {})
    assert found.p_random("suppress") == pytest.approx(3 / 4)
    assert np.isnan(found.p_random("amplify"))
    assert NeuronEffects.from_json(json.loads(json.dumps(found.to_json()))).effects == found.effects


def test_the_summary_averages_facts_and_sets_them_against_their_random_sets() -> None:
    def of(name: str, own: float, random: tuple[float, ...], flips: bool) -> NeuronEffects:
        effects = (
            Effect("suppress", "own", "here", (own,), (0.5,), (flips,)),
            Effect("suppress", "random", "here", random, (0.0,) * len(random), (False,) * len(random)),
        )
        return NeuronEffects(name, ("r", name), 1, effects, {})

    rows = summarise([of("a", -0.4, (0.0, -0.2), True), of("b", -0.6, (0.1, 0.1), False)])
    own, random = rows
    assert (own["neurons"], random["neurons"]) == ("own", "random")
    assert own["drift"].value == pytest.approx(-0.5)
    assert random["drift"].value == pytest.approx(0.0)
    assert own["drift_less_random"].value == pytest.approx(-0.5)
    assert own["flip"].value == 0.5
    assert (own["flipped"].value, own["flipped"].n) == (0.5, 2)
    assert random["flipped"].value == 0
    assert summarise([]) == []


def test_mistakes_are_answered_with_one_sentence(tmp_path: Any) -> None:
    model = model_of("gpt2")
    with pytest.raises(SettingError, match="at least one random set, got 0"):
        neuron_effects(model, EIFFEL, OWN, random_sets=0)
    with pytest.raises(SettingError, match="no neuron 48 in layer 0"):
        neuron_effects(model, EIFFEL, [(0, 48)])
    before = model.fingerprint()
    neuron_effects(model, EIFFEL, OWN, random_sets=1).save(str(tmp_path / "e.json"))
    assert json.loads((tmp_path / "e.json").read_text())["count"] == 3
    assert model.fingerprint() == before
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.net.modules())
