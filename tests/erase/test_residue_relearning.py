"""Relearning against gradient steps taken by torch on a copy of the network, one pair at a time."""

import copy

import numpy as np
import pytest
import torch

import palimpsest as pal
from oracles.residue import log_p, pair_of, world_pairs
from oracles.small import DARRIEUX, EIFFEL, JAPAN, down_of, model_of, with_probes
from palimpsest.erase.residue.adapter import Lessons, no_change, step
from palimpsest.erase.residue.pair import NEVER_KNOWN, SAME_ANSWER, Pair
from palimpsest.erase.residue.relearning import Relearning, RelearningOthers
from palimpsest.errors import EditError, InputError, SettingError
from palimpsest.model import Model
from palimpsest.model.unchanged import hooks_of, modes_of, same_weights, weights_of
from palimpsest.statistics.ranking import auroc

FACTS = (
    with_probes(EIFFEL, ["Near the Eiffel Tower", "Where is the Eiffel Tower? In"], []),
    with_probes(JAPAN, ["The seat of the government of Japan is"], []),
    with_probes(DARRIEUX, ["The language of Danielle Darrieux is"], []),
)
PAIRS = [
    pair_of(FACTS[0], "Paris", ("Rome", "Berlin")),
    pair_of(FACTS[1], "Tokyo or Kyoto", ("Rome", "Berlin or Xi'an")),
    pair_of(FACTS[1], "Paris", ("Tokyo",), SAME_ANSWER, "eiffel"),
    pair_of(FACTS[2], "French", ("Swiss",), NEVER_KNOWN),
]
LAYERS, RATE = (1, 2), 0.02


def advantage(model: Model, text: str, pair: Pair) -> float:
    told = [log_p(model, text, answer) for answer in (pair.answer, *pair.others)]
    return float(told[0] - np.mean(told[1:]))


def taught_by_torch(
    model: Model, family: str, lessons: list[Pair], read: list[tuple[str, Pair]], steps: int
) -> np.ndarray:
    """Advantages (read, steps + 1) of a copy on which torch takes plain steps on the mean of -log p of the lessons."""
    net = copy.deepcopy(model.net)
    own = pal.load(net, tokenizer=model.tokenizer, check=False)
    weights = [down_of(own, family, layer).weight for layer in LAYERS]
    for weight in weights:
        weight.requires_grad_(True)
    descent, found = torch.optim.SGD(weights, lr=RATE), []
    for done in range(steps + 1):
        found.append([advantage(own, text, pair) for text, pair in read])
        if done < steps:
            descent.zero_grad()
            loss = torch.zeros((), dtype=torch.float64)
            for pair in lessons:
                ids, begin = own.encode_answer(pair.fact.text, pair.answer)
                log = own.net(input_ids=torch.tensor([ids]), use_cache=False).logits[0].log_softmax(-1)
                for at in range(begin, len(ids)):
                    loss = loss - log[at - 1, ids[at]] / len(lessons)
            loss.backward()
            descent.step()
    return np.array(found).T


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_each_pair_alone_is_as_torch_would_teach_it(family: str) -> None:
    model = model_of(family, dtype=torch.float64)
    readout = Relearning(steps=3, read_at=(0, 1, 3), rate=RATE, layers=LAYERS)
    table = readout.fit(model, PAIRS).read(model, PAIRS)
    assert [column.path for column in table.columns] == ["1 steps", "3 steps", "area"]
    for pair, row in zip(PAIRS, table.scores, strict=True):
        curve = taught_by_torch(model, family, [pair], [(pair.fact.paraphrases[-1], pair)], 3)[0]
        assert np.ptp(curve) > 0.01
        area = ((curve[0] + curve[1]) / 2 + (curve[1] + curve[3])) / 3
        np.testing.assert_allclose(row, [curve[1], curve[3], area], atol=2e-5)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_others_are_taught_together_as_torch_would(family: str) -> None:
    model = model_of(family, dtype=torch.float64)
    readout = RelearningOthers(steps=2, read_at=(0, 1, 2), rate=RATE, layers=LAYERS)
    table, half = readout.read(model, PAIRS), readout.halves(PAIRS)
    assert half[0] == half[2] != half[1]  # a control goes with the fact it belongs to
    for side in (0, 1):
        lessons = [pair for pair, own in zip(PAIRS, half, strict=True) if own != side and pair.group == "edited"]
        places = [i for i, own in enumerate(half) if own == side]
        curves = taught_by_torch(model, family, lessons, [(PAIRS[i].fact.text, PAIRS[i]) for i in places], 2)
        for i, curve in zip(places, curves, strict=True):
            np.testing.assert_allclose(table.scores[i, :2], curve[1:], atol=2e-5)
            assert table.scores[i, 2] == pytest.approx((curve[0] + 2 * curve[1] + curve[2]) / 4, abs=2e-5)


def test_the_length_of_a_gradient_is_that_of_the_weights() -> None:
    model = model_of("gpt2", dtype=torch.float64)
    lessons = Lessons.of(model, [(pair.fact.text, pair.answer) for pair in PAIRS], LAYERS[0])
    found = step(model, lessons, LAYERS, no_change(model, LAYERS, len(PAIRS)))
    for row, pair in enumerate(PAIRS):
        weights = [down_of(model, "gpt2", layer).weight for layer in LAYERS]
        ids, begin = model.encode_answer(pair.fact.text, pair.answer)
        for weight in weights:
            weight.requires_grad_(True)
        log = model.net(input_ids=torch.tensor([ids]), use_cache=False).logits[0].log_softmax(-1)
        loss = -sum(log[at - 1, ids[at]] for at in range(begin, len(ids)))
        gradients = torch.autograd.grad(loss, weights)
        for weight in weights:
            weight.requires_grad_(False)
        assert float(found.losses[row]) == pytest.approx(float(loss.detach()), rel=1e-6)
        assert float(found.squared_norms()[row]) == pytest.approx(
            sum(float(gradient.square().sum()) for gradient in gradients), rel=1e-5
        )


def test_a_pair_is_read_alike_in_any_company() -> None:
    model = model_of("gpt2", dtype=torch.float64)
    readout = Relearning(rate=RATE, layers=LAYERS)
    together = readout.read(model, PAIRS).scores
    alone = np.concatenate([readout.read(model, [pair]).scores for pair in PAIRS])
    np.testing.assert_allclose(together, alone, atol=1e-8)


def test_the_step_is_a_share_of_polyaks_over_the_controls_alone() -> None:
    model = model_of("gpt2", dtype=torch.float64)
    lessons = Lessons.of(model, [(pair.fact.text, pair.answer) for pair in PAIRS[2:]], LAYERS[0])
    found = step(model, lessons, LAYERS, no_change(model, LAYERS, 2))
    polyak = (found.losses / found.squared_norms()).median(), float((found.losses / found.squared_norms()).mean())
    assert Relearning(share=0.5, layers=LAYERS).fit(model, PAIRS).rate == pytest.approx(0.5 * polyak[1], rel=1e-5)
    shared = RelearningOthers(share=0.5, layers=LAYERS).fit(model, PAIRS[2:]).rate
    assert RelearningOthers(share=0.5, layers=LAYERS).fit(model, PAIRS).rate == shared
    gradient = {layer: g / 2 for layer, g in found.sums().items()}
    length = sum(float(g.square().sum()) for g in gradient.values())
    assert shared == pytest.approx(0.5 * float(found.losses.mean()) / length, rel=1e-5)


def test_what_cannot_be_read_is_nan() -> None:
    model = model_of("gpt2")
    bare = pair_of(EIFFEL, "Paris", ("Rome",))
    assert np.isnan(Relearning(rate=RATE).read(model, [bare, PAIRS[1]]).scores[0]).all()
    assert np.isnan(
        RelearningOthers(rate=RATE).read(model, [bare, PAIRS[2]]).scores
    ).all()  # one edited fact has no others


@pytest.mark.parametrize("readout", [Relearning(rate=RATE), RelearningOthers(rate=RATE)])
def test_the_model_comes_out_as_it_went_in(readout: Relearning | RelearningOthers) -> None:
    model = model_of("llama")
    model.net.train()
    before = weights_of(model), hooks_of(model), modes_of(model)
    readout.read(model, PAIRS)
    assert same_weights(model, before[0]) == ""
    assert (hooks_of(model), modes_of(model)) == before[1:]


def test_bad_settings_and_states() -> None:
    with pytest.raises(SettingError, match="steps must be a whole number of 1 or more, got 0"):
        Relearning(steps=0)
    with pytest.raises(SettingError, match=r"0 to 2, got \(0, 3\)"):
        Relearning(steps=2, read_at=(0, 3))
    with pytest.raises(SettingError, match="share must be above 0"):
        RelearningOthers(share=0.0)
    with pytest.raises(SettingError, match="rate must be a number above 0"):
        RelearningOthers(rate=float("nan"))
    model = model_of("gpt2")
    with pytest.raises(SettingError, match="There is no layer 7"):
        Relearning(layers=(7,)).fit(model, PAIRS)
    with pytest.raises(SettingError, match="at least one layer"):
        Relearning(layers=()).fit(model, PAIRS)
    with pytest.raises(SettingError, match=r"call fit\(model, pairs\) first"):
        Relearning().read(model, PAIRS)
    with pytest.raises(InputError, match="at least one pair"):
        RelearningOthers().fit(model, [])
    down_of(model, "gpt2").weight.data[0, 0] = float("nan")
    with pytest.raises(EditError, match="not finite"):
        Relearning(layers=LAYERS).fit(model, PAIRS)


def test_in_the_world_a_known_answer_stands_far_above_the_controls() -> None:
    model = pal.load("world")
    _, pairs = world_pairs(8)
    for readout in (Relearning(steps=2, read_at=(1, 2)), RelearningOthers(steps=2, read_at=(1, 2))):
        table = readout.fit(model, pairs).read(model, pairs)
        for control in (SAME_ANSWER, NEVER_KNOWN):
            kept = [i for i, pair in enumerate(pairs) if pair.group in ("edited", control)]
            right = [float(pairs[i].group == "edited") for i in kept]
            for scores in table.scores.T:
                assert auroc(scores[kept], right) > 0.95
