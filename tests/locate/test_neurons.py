"""Attributions against the textbook version, and what must hold of any attribution."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import palimpsest as pal
from families import EDITABLE, byte_tokenizer
from oracles.small import EIFFEL, down_of, model_of, precision_of, smollm2
from oracles.textbook_neurons import attribute_layer, key_at_last_token, probability
from palimpsest.errors import AnatomyError, FactError, SettingError
from palimpsest.facts import Fact
from palimpsest.locate.neuron.attribution import Attribution, neurons
from palimpsest.locate.neuron.baselines import mean_keys
from palimpsest.locate.neuron.integration import RULES, Path
from palimpsest.model import Model

# no answer, so that the first choice is scored: what these random models say of Paris is too little to be wrong about
TOWER = Fact("Eiffel Tower", "The {} is located in the city of", target_new="Rome")
JAPAN = Fact("Japan", "The capital of {} is")
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}


def token_of(model: Model, answer: str) -> int:
    return model.tokenizer(f" {answer}", add_special_tokens=False).input_ids[0]


def first_choice(model: Model, text: str) -> int:
    ids = torch.tensor([model.tokenizer(text).input_ids])
    return int(model.net(input_ids=ids, use_cache=False).logits[0, -1].argmax())


def compare(model: Model, family: str, found: Attribution, tolerance: float, **given_: Any) -> None:
    ids = model.tokenizer(found.text).input_ids
    score = given_.pop("score", None) or probability(first_choice(model, found.text))
    for l in range(model.n_layers):
        attr, clean, baseline = attribute_layer(model.net, down_of(model, family, l), ids, score, **given_)
        np.testing.assert_allclose(found.attr[l, : len(attr)], attr, rtol=0, atol=tolerance)
        assert found.clean == pytest.approx(clean, abs=tolerance)
        assert found.baseline[l] == pytest.approx(baseline, abs=tolerance)
        key = key_at_last_token(model.net, down_of(model, family, l), ids).double().numpy()
        np.testing.assert_allclose(found.keys[l, : len(key)], key, rtol=0, atol=10 * tolerance)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox_parallel"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_neurons_are_the_textbook_neurons(family: str, dtype: torch.dtype) -> None:
    model = model_of(family, dtype=dtype, tokenizer=byte_tokenizer(bos=family == "llama"))
    found = neurons(model, TOWER, steps=7, refine=False)
    assert np.abs(found.attr).max() > 1e-3
    compare(model, family, found, TOLERANCE[dtype], steps=7)


@pytest.mark.parametrize("family", EDITABLE)
def test_neurons_are_the_textbook_neurons_in_every_family(family: str) -> None:
    # the experts of DeepSeek do not run in float64
    dtype, tolerance = (torch.float32, 2e-5) if family == "deepseek_v3" else precision_of(family)
    model = model_of(family, dtype=dtype)
    found = neurons(model, JAPAN, steps=2, refine=False)
    compare(model, family, found, tolerance, steps=2)


def test_smollm2_is_attributed_as_in_the_textbook_at_some_layers() -> None:
    model = smollm2()
    fact = Fact("France", "The capital of {} is", "Paris")
    found = neurons(model, fact, steps=4, refine=False)
    assert found.clean > 0.3
    ids = model.tokenizer(fact.text).input_ids
    for l in (0, 13, 29):
        down = model.net.get_submodule(f"model.layers.{l}.mlp.down_proj")
        attr, _, baseline = attribute_layer(model.net, down, ids, probability(token_of(model, "Paris")), steps=4)
        np.testing.assert_allclose(found.attr[l], attr, rtol=0, atol=1e-5)
        assert found.baseline[l] == pytest.approx(baseline, abs=1e-5)


def test_smollm2_is_complete_at_the_default_and_its_published_sum_is_not() -> None:
    model = smollm2()
    fact = Fact("France", "The capital of {} is", "Paris")
    found = neurons(model, fact)
    error = np.abs(found.completeness)
    assert (error <= np.maximum(0.02 * np.abs(found.clean - found.baseline), 0.002)).all()
    assert found.complete
    assert min(found.points) == 20
    assert sum(found.points) < 40 * model.n_layers
    published = neurons(model, fact, preset="dai-2022")
    assert not published.complete
    assert set(published.points) == {20}


@pytest.fixture(scope="module")
def gpt2() -> Model:
    return model_of("gpt2", dtype=torch.float64)


@pytest.mark.parametrize("rule", ["left", "inclusive", "midpoint"])
def test_each_rule_is_the_textbook_rule(gpt2: Model, rule: str) -> None:
    found = neurons(gpt2, TOWER, rule=rule, steps=5, refine=False)
    compare(gpt2, "gpt2", found, 1e-10, rule=rule, steps=5)


@pytest.mark.parametrize(("preset", "rule"), [("dai-2022", "left"), ("eleuther", "inclusive")])
def test_presets_are_the_published_sums(gpt2: Model, preset: str, rule: str) -> None:
    found = neurons(gpt2, TOWER, preset=preset)
    compare(gpt2, "gpt2", found, 1e-10, rule=rule, steps=20)
    assert found.settings["preset"] == preset
    assert neurons(gpt2, TOWER, preset=preset, steps=3).points == (3, 3, 3)


@pytest.mark.parametrize(
    "score", ["probability", "log-probability", "logit", "probability-difference", "logit-difference"]
)
def test_each_score_is_attributed(gpt2: Model, score: str) -> None:
    a, f = first_choice(gpt2, TOWER.text), token_of(gpt2, "Rome")
    assert a != f
    scores = {
        "probability": lambda x: x.softmax(-1)[a],
        "log-probability": lambda x: x.log_softmax(-1)[a],
        "logit": lambda x: x[a],
        "probability-difference": lambda x: x.softmax(-1)[a] - x.softmax(-1)[f],
        "logit-difference": lambda x: x[a] - x[f],
    }
    found = neurons(gpt2, TOWER, score=score, steps=3, refine=False)
    compare(gpt2, "gpt2", found, 1e-10, score=scores[score], steps=3)


def test_the_baseline_can_be_given_and_the_mean_is_a_mean(gpt2: Model) -> None:
    generator = torch.Generator().manual_seed(0)
    base = [torch.randn(48, generator=generator, dtype=torch.float64) for _ in range(3)]
    found = neurons(gpt2, TOWER, baseline=base, steps=3, refine=False)
    ids = gpt2.tokenizer(TOWER.text).input_ids
    for l in range(3):
        attr, *_ = attribute_layer(
            gpt2.net,
            down_of(gpt2, "gpt2", l),
            ids,
            probability(first_choice(gpt2, TOWER.text)),
            steps=3,
            baseline=base[l],
        )
        np.testing.assert_allclose(found.attr[l], attr, atol=1e-10)
    text = "one two three four"
    ids = gpt2.tokenizer(text).input_ids
    each = [key_at_last_token(gpt2.net, down_of(gpt2, "gpt2", 1), ids[: n + 1]) for n in range(1, len(ids))]
    torch.testing.assert_close(mean_keys(gpt2, text)[1], torch.stack(each).mean(0))
    assert neurons(gpt2, TOWER, baseline="mean", steps=2).settings["baseline"] == "mean"


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_error_vanishes_as_steps_grow(family: str) -> None:
    model = model_of(family, dtype=torch.float64)
    errors = [np.abs(neurons(model, TOWER, steps=steps, refine=False).completeness).max() for steps in (1, 4, 16, 64)]
    assert errors[0] > 100 * errors[-1]
    assert errors[-1] < 1e-4
    exact = neurons(model, TOWER, steps=24, rule="gauss-legendre")
    assert np.abs(exact.completeness).max() < 1e-6
    fine = neurons(model, TOWER, steps=64, refine=False)
    np.testing.assert_allclose(fine.attr, exact.attr, atol=1e-4)


def test_refining_meets_the_bar_from_any_number_of_steps(gpt2: Model) -> None:
    for steps in (1, 2, 3):
        coarse = neurons(gpt2, TOWER, steps=steps, refine=False, score="logit")
        fine = neurons(gpt2, TOWER, steps=steps, score="logit")
        assert fine.complete
        assert coarse.complete or sum(fine.points) > sum(coarse.points)
    assert not neurons(gpt2, TOWER, steps=1, refine=False, score="logit").complete
    exact = neurons(gpt2, TOWER, steps=24, rule="gauss-legendre", score="logit")
    np.testing.assert_allclose(neurons(gpt2, TOWER, steps=1, score="logit").attr, exact.attr, atol=0.02)


def test_rows_at_once_change_nothing(gpt2: Model) -> None:
    whole = neurons(gpt2, TOWER, steps=6)
    for rows in (1, 5, 8):
        np.testing.assert_allclose(neurons(gpt2, TOWER, steps=6, rows=rows).attr, whole.attr, atol=1e-12)


def test_the_same_call_gives_the_same_bits(gpt2: Model) -> None:
    one = neurons(gpt2, TOWER)
    torch.manual_seed(3)
    np.testing.assert_array_equal(neurons(gpt2, TOWER).attr, one.attr)


def test_a_prompt_of_one_token_is_attributed(gpt2: Model) -> None:
    fact = Fact("a", "{}")
    assert len(gpt2.encode(fact.text)) == 1
    compare(gpt2, "gpt2", neurons(gpt2, fact, steps=3, refine=False), 1e-10, steps=3)


def test_without_an_answer_the_first_choice_is_attributed(gpt2: Model) -> None:
    ids = torch.tensor([gpt2.tokenizer(EIFFEL.text).input_ids])
    p = gpt2.net(input_ids=ids).logits[0, -1].softmax(-1)
    found = neurons(gpt2, TOWER, steps=2)
    assert found.clean == pytest.approx(float(p.max()), abs=1e-10)
    assert found.answer == gpt2.tokenizer.decode([int(p.argmax())])


def test_half_precision_is_attributed_in_float32() -> None:
    half = neurons(model_of("llama", dtype=torch.bfloat16), EIFFEL, score="logit", refine=False)
    full = neurons(model_of("llama"), EIFFEL, score="logit", refine=False)
    assert half.attr.dtype == np.float64
    assert np.corrcoef(half.attr.ravel(), full.attr.ravel())[0, 1] > 0.98


def test_the_model_is_left_as_it_was() -> None:
    model = model_of("llama")
    quiet = neurons(model, TOWER, steps=3)
    model.net.train()
    model.net.requires_grad_(True)
    before = model.fingerprint()
    with torch.no_grad():
        found = neurons(model, TOWER, steps=3)
    np.testing.assert_array_equal(found.attr, quiet.attr)
    assert model.net.training
    assert model.fingerprint() == before
    assert all(weight.requires_grad and weight.grad is None for weight in model.net.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.net.modules())


def test_an_attribution_orders_and_thresholds_its_neurons() -> None:
    attr = np.array([[0.5, -2.0, 1.0], [0.2, 1.0, 0.0]])
    found = Attribution(
        EIFFEL, EIFFEL.text, " P", attr, attr, 0.9, np.array([1.4, 0.7]), (20, 20), (3, 3), {"score": "logit"}
    )
    assert found.over(1.0) == {(0, 2), (1, 1)}
    assert found.over(0.5) == {(0, 2), (1, 1), (0, 0)}
    assert found.over(0.2) == {(0, 2), (1, 1), (0, 0), (1, 0)}
    assert found.strongest(3) == [(0, 2, 1.0), (1, 1, 1.0), (0, 0, 0.5)]
    np.testing.assert_allclose(found.completeness, [-0.5 + 0.5, 1.2 - 0.2], atol=1e-12)
    assert not found.complete
    none = Attribution(EIFFEL, EIFFEL.text, " P", -np.abs(attr), attr, 0.9, np.zeros(2), (20, 20), (3, 3), {})
    assert none.over(0.2) == frozenset()


def test_an_attribution_is_written_and_plotted(gpt2: Model, tmp_path: Any) -> None:
    found = neurons(gpt2, TOWER, steps=2)
    found.save(str(tmp_path / "n.json"))
    stored = json.loads((tmp_path / "n.json").read_text("utf-8"))
    assert stored["complete"] == found.complete
    l, i, a = found.strongest(1)[0]
    assert stored["strongest"][0] == {"layer": l, "neuron": i, "attribution": a}
    pytest.importorskip("matplotlib")
    assert len(found.plot().axes[0].patches) == 3


def test_progress_ends_at_its_total(gpt2: Model) -> None:
    seen: list[tuple[int, int, str]] = []
    neurons(gpt2, TOWER, steps=4, rows=5, refine=False, progress=lambda *step: seen.append(step))
    assert seen[-1][0] == seen[-1][1] == 3 * 5


@pytest.mark.parametrize(
    ("given_", "sentence"),
    [
        ({"steps": 0}, "at least one step, got 0"),
        ({"rows": 0}, "At least one row"),
        ({"rule": "midpiont"}, "Did you mean 'midpoint'"),
        ({"score": "prob"}, "no score 'prob'"),
        ({"baseline": "one"}, "no baseline 'one'"),
        ({"baseline": [torch.zeros(3)]}, "one key a layer, of 48"),
        ({"preset": "dai"}, "dai-2022"),
        ({"rule": "left", "refine": True}, "Only the rule 'midpoint'"),
    ],
)
def test_a_mistake_is_answered_with_one_sentence(gpt2: Model, given_: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SettingError, match=sentence):
        neurons(gpt2, TOWER, **given_)


def test_answers_and_foils_that_cannot_be_scored_are_refused(gpt2: Model) -> None:
    with pytest.raises(FactError, match="needs a foil"):
        neurons(gpt2, Fact("Japan", "The capital of {} is", "Tokyo"), score="logit-difference")
    with pytest.raises(FactError, match="begins with the token of the answer"):
        neurons(gpt2, EIFFEL, foil="Paris again", score="logit-difference")
    with pytest.raises(FactError, match="has no token"):
        neurons(_deaf(gpt2), EIFFEL)


def _deaf(model: Model) -> Model:
    """A model whose tokenizer drops everything after the prompt."""

    class Deaf:
        is_fast = True

        def __call__(self, text: str, **settings: Any) -> Any:
            return model.tokenizer(text.removesuffix(" Paris"), **settings)

        def __getattr__(self, name: str) -> Any:
            return getattr(model.tokenizer, name)

    return Model(model.net, Deaf(), model.anatomy, "deaf")


def test_a_model_without_keys_says_so() -> None:
    with pytest.raises(AnatomyError, match="no single down-projection"):
        neurons(model_of("mixtral"), TOWER)


@given(st.integers(1, 30), st.sampled_from(sorted(RULES)))
def test_the_weights_of_every_rule_add_up_to_one(steps: int, rule: str) -> None:
    at, weight = RULES[rule](steps)
    assert len(at) == len(weight) == steps
    assert weight.sum() == pytest.approx(1)
    assert ((at >= 0) & (at <= 1)).all()
    if rule in ("midpoint", "gauss-legendre"):
        assert (weight * at).sum() == pytest.approx(0.5)


@settings(deadline=None)
@given(st.integers(1, 12), st.floats(0.02, 0.98), st.floats(30, 400))
def test_refining_finds_a_step_anywhere_on_the_path(steps: int, where: float, steep: float) -> None:
    def score(a: Any) -> Any:
        return 1 / (1 + np.exp(-steep * (np.asarray(a) - where)))

    def slope(a: Any) -> Any:
        return steep * score(a) * (1 - score(a))

    at, weight = RULES["midpoint"](steps)
    path = Path(at, weight, score(at), slope(at), float(score(0)), float(score(1)))
    for _ in range(12):
        assert path.gaps.sum() == pytest.approx(path.error, abs=1e-9)
        assert path.weight.sum() == pytest.approx(1)
        assert (np.diff(path.at) > 0).all()
        if abs(path.error) < 0.002:
            break
        cut = path.to_split(0.001)
        third = path.weight[cut] / 3
        new = np.stack([path.at[cut] - third, path.at[cut] + third], axis=1)
        path = path.split(cut, score(new), slope(new))
    assert abs(path.error) < 0.002
    assert len(path.at) < steps + 150


def test_another_network_has_other_attributions(gpt2: Model) -> None:
    other = pal.load(model_of("gpt2", seed=5, dtype=torch.float64).net, tokenizer=gpt2.tokenizer, check=False)
    assert not np.allclose(neurons(other, EIFFEL, steps=2).attr, neurons(gpt2, TOWER, steps=2).attr)


@pytest.mark.parametrize("score", ["probability", "logit"])
def test_refining_a_half_precision_path_ends_where_it_no_longer_helps(score: str) -> None:
    model = model_of("llama", dtype=torch.bfloat16)
    found = neurons(model, EIFFEL, score=score)
    assert np.isfinite(found.attr).all()
    assert max(found.points) < 3**4 * 20


def test_a_prompt_that_ends_in_a_blank_is_scored_where_the_answer_begins() -> None:
    model = model_of("gpt2", dtype=torch.float64)
    plain = Fact("Japan", "The capital of {} is", "Tokyo", "Berlin")
    blank = Fact("Japan", "The capital of {} is ", "Tokyo", "Berlin")
    token = model.tokenizer("The capital of Japan is Tokyo").input_ids[len(model.tokenizer(plain.text).input_ids)]
    p = torch.softmax(model.net(input_ids=torch.tensor([model.tokenizer(plain.text).input_ids])).logits[0, -1], -1)
    for found in (
        pal.trace(model, blank, samples=1, noise_level=1.0).clean,
        float(np.exp(pal.logit_lens(model, blank).log_p[-1, -1])),
        pal.neurons(model, blank, steps=2, refine=False).clean,
        pal.knockout(model, blank).clean,
    ):
        assert found == pytest.approx(float(p[token]), rel=1e-9)
