"""What neurons write against the formula written out, counts by hand, and regressions with a known answer."""

import dataclasses

import numpy as np
import pytest
import torch

from oracles.small import EIFFEL, FACTS, down_of, model_of, smollm2
from palimpsest.errors import InputError, SettingError
from palimpsest.facts import Fact
from palimpsest.locate.neuron.meaning import (
    ordinary_least_squares,
    regress_on_text,
    regress_values,
    text_counts,
    what_neurons_write,
    written_logits,
)
from palimpsest.locate.neuron.shared import knowledge_neurons

TEXT = "Paris is in France. Paris!\n\nThe Eiffel Tower is in Paris.\n\nParisians like Tokyo.\n\nTokyo, Japan."


def test_an_rms_norm_model_writes_its_column_through_gain_and_unembedding() -> None:
    model = model_of("llama", dtype=torch.float64)
    w = down_of(model, "llama", 1).weight[:, 7]
    w = w / w.square().mean().sqrt()
    direct = model.net.lm_head.weight @ (model.net.model.norm.weight * w)
    torch.testing.assert_close(written_logits(model, [(1, 7)])[0], direct, rtol=1e-4, atol=1e-5)


def test_a_layer_norm_model_writes_its_column_without_the_mean() -> None:
    model = model_of("gpt2", dtype=torch.float64)
    w = down_of(model, "gpt2", 2).weight[5]  # stored as (in, out)
    w = (w - w.mean()) / w.std(correction=0)
    direct = model.net.lm_head.weight @ (model.net.transformer.ln_f.weight * w)
    torch.testing.assert_close(written_logits(model, [(2, 5)])[0], direct, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["opt_post_norm", "gemma2", "bloom", "cohere"])
def test_other_families_can_be_read(family: str) -> None:
    logits = written_logits(model_of(family), [(0, 0), (2, 3)])
    assert logits.shape == (2, 420)
    assert torch.isfinite(logits).all()
    assert not torch.allclose(logits[0], logits[1])


def test_the_tokens_are_the_largest_and_the_least_logits() -> None:
    model = model_of("llama")
    logits = written_logits(model, [(0, 1)])[0]
    best = int(logits.argmax())
    (found,) = what_neurons_write(model, [(0, 1)], count=3, answer=best)
    assert (found.layer, found.neuron, found.rank) == (0, 1, 0)
    assert found.promoted[0] == (model.tokenizer.decode([best]), pytest.approx(float(logits.max())))
    assert found.suppressed[0][1] == pytest.approx(float(logits.min()))
    assert [value for _, value in found.promoted] == sorted((v for _, v in found.promoted), reverse=True)
    assert what_neurons_write(model, [(0, 1)], answer=int(logits.argmin()))[0].rank == 419
    (turned,) = what_neurons_write(model, [(0, 1)], keys=[-0.2], count=3, answer=best)
    assert turned.rank == 419
    assert turned.promoted == tuple((token, -value) for token, value in found.suppressed)
    with pytest.raises(SettingError, match="one key a neuron"):
        what_neurons_write(model, [(0, 1)], keys=[])


def test_smollm2_writes_words() -> None:
    model = smollm2()
    w = model.net.model.layers[29].mlp.down_proj.weight[:, 778]
    direct = model.net.lm_head.weight @ (model.net.model.norm.weight * w / w.square().mean().sqrt())
    torch.testing.assert_close(written_logits(model, [(29, 778)])[0], direct, rtol=1e-3, atol=1e-3)


def test_counts_are_of_whole_words_and_of_paragraphs() -> None:
    facts = [EIFFEL, Fact("Japan", "The capital of {} is", "Tokyo"), Fact("Mars", "{} is", "red (very)")]
    assert text_counts(facts, TEXT) == [(3, 1), (2, 1), (0, 0)]
    assert text_counts(facts)[0][0] > 0  # the shipped text
    with pytest.raises(InputError, match="no target_true"):
        text_counts([Fact("Mars", "{} is")], TEXT)


def test_least_squares_is_numpys_and_knows_its_r_squared() -> None:
    rng = np.random.default_rng(0)
    design = np.column_stack([np.ones(50), rng.normal(size=(50, 2))])
    y = design @ [1.0, 2.0, -3.0] + 0.1 * rng.normal(size=50)
    *fit, r = ordinary_least_squares(design, y)
    np.testing.assert_allclose(fit, np.linalg.solve(design.T @ design, design.T @ y))
    assert r == pytest.approx(np.corrcoef(design @ np.array(fit), y)[0, 1] ** 2)
    assert np.isnan(ordinary_least_squares(design[:, [0, 1, 1]], y)).all()


def test_a_regression_finds_what_was_planted() -> None:
    rng = np.random.default_rng(1)
    words = [f"word{i}" for i in range(60)]
    often, together = rng.integers(0, 30, 60), rng.integers(0, 4, 60)
    paragraphs = [word for word, n in zip(words, often, strict=True) for _ in range(n)]
    paragraphs += [f"{w} of Sub{i}" for i, w in enumerate(words) for _ in range(together[i])]
    facts = [Fact(f"Sub{i}", "{} has", w, relation=f"r{i % 20}") for i, w in enumerate(words)]
    y = np.exp(1 + 0.5 * np.log1p(often + together) - 0.8 * np.log1p(together) + 0.05 * rng.normal(size=60))
    y[3] = -1.0
    found = regress_values(facts, y.tolist(), text="\n\n".join(paragraphs))
    assert found.coefficients["log frequency"].value == pytest.approx(0.5, abs=0.05)
    assert found.coefficients["log co-occurrence"].value == pytest.approx(-0.8, abs=0.1)
    assert found.coefficients["log co-occurrence"].high < 0
    assert found.r_squared.value > 0.9
    assert found.left_out == (facts[3].id,)
    assert found.n == 59
    assert found.never_together == sum(together == 0) - (together[3] == 0)
    also = {"noise": rng.normal(size=60).tolist()}
    assert set(regress_values(facts, y.tolist(), text="\n\n".join(paragraphs), also=also).coefficients) == {
        "intercept",
        "log frequency",
        "log co-occurrence",
        "noise",
    }


def test_a_predictor_that_never_varies_is_named_and_not_fitted() -> None:
    words = [f"word{i}" for i in range(30)]
    facts = [Fact(f"Sub{i}", "{} has", w, relation=f"r{i % 10}") for i, w in enumerate(words)]
    text = "\n\n".join(word for i, word in enumerate(words) for _ in range(i))
    y = np.exp(0.5 * np.log1p(np.arange(30)))
    found = regress_values(facts, y.tolist(), text=text)  # no subject stands in the text
    assert found.constant == ("log co-occurrence",)
    assert set(found.coefficients) == {"intercept", "log frequency"}
    assert found.coefficients["log frequency"].value == pytest.approx(0.5)
    assert found.never_together == 30


def test_attributions_of_facts_are_regressed() -> None:
    model = model_of("gpt2")
    facts = [
        dataclasses.replace(fact, id=f"{fact.id}{i}", subject=f"{fact.subject} {i}") for fact in FACTS for i in (1, 2)
    ]
    found = [knowledge_neurons(model, fact, steps=1, refine=False, keep=False) for fact in facts]
    result = regress_on_text(found, outcome="largest")
    assert result.n == 6
    assert result.to_json()["n"] == 6


def test_mistakes_are_answered_with_one_sentence() -> None:
    model = model_of("gpt2")
    with pytest.raises(SettingError, match="no neuron 99 in layer 0"):
        written_logits(model, [(0, 99)])
    with pytest.raises(SettingError, match="at least one neuron"):
        written_logits(model, [])
    with pytest.raises(SettingError, match="at least one token, got 0"):
        what_neurons_write(model, [(0, 0)], count=0)
    with pytest.raises(SettingError, match="no outcome 'mean'"):
        regress_on_text([], outcome="mean")
    with pytest.raises(InputError, match="more than 3 facts"):
        regress_values(list(FACTS), [1.0, 1.0, 1.0], text=TEXT)
    with pytest.raises(InputError, match="has 1 numbers for 3 facts"):
        regress_values(list(FACTS), [1.0, 1.0, 1.0], text=TEXT, also={"p": [1.0]})
