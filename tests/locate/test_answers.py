"""Likelihoods of answers: the same one by one, in any order and in any batch."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from families import SAMPLE, byte_tokenizer
from oracles.small import model_of, precision_of, smollm2
from oracles.textbook_scores import nll
from palimpsest.locate import answers
from palimpsest.locate.answers import answer_nll, by_length, first_token, next_token_logits

PAIRS = (
    ("The Eiffel Tower is located in the city of", "Paris"),
    ("Japan", "Tokyo or Kyoto, who knows"),
    ("The capital of Germany is", "Berlin"),
    ("The mother tongue of Danielle Darrieux, who was born in Bordeaux in the year 1917, is", "French"),
    ("Zürich is in", "Switzerland"),
    ("Who wrote The Little Prince?", "Antoine de Saint-Exupéry"),
)
MODEL = model_of("llama", dtype=torch.float64, tokenizer=byte_tokenizer(bos=True))
ONE_BY_ONE = [nll(MODEL.net, MODEL.tokenizer, *pair) for pair in PAIRS]


@pytest.mark.parametrize("family", [*SAMPLE, "gpt_neox_parallel"])
def test_nll_is_the_one_of_a_forward_pass_each(family: str) -> None:
    dtype, tolerance = precision_of(family)
    model = model_of(family, dtype=dtype)
    expected = [nll(model.net, model.tokenizer, *pair) for pair in PAIRS]
    assert answer_nll(model, PAIRS) == pytest.approx(expected, abs=tolerance)


@given(st.lists(st.integers(1, 40), max_size=60), st.integers(40, 400), st.none() | st.integers(0, 50))
def test_batches_hold_every_row_once_within_their_bounds(lengths: list[int], tokens: int, padding: int | None) -> None:
    batches = list(by_length(lengths, tokens, padding))
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        cells = len(batch) * max(lengths[i] for i in batch)
        assert cells <= tokens
        assert padding is None or cells - sum(lengths[i] for i in batch) <= padding
    for one, next_one in zip(batches, batches[1:], strict=False):  # no batch is cut for nothing
        longer = [lengths[i] for i in (*one, next_one[0])]
        cells = len(longer) * max(longer)
        assert cells > tokens or (padding is not None and cells - sum(longer) > padding)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(range(len(PAIRS))), max_size=9), st.integers(1, 400))
def test_order_company_and_batch_size_change_nothing(chosen: list[int], tokens: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(answers, "BATCH_TOKENS", tokens)
        found = answer_nll(MODEL, [PAIRS[i] for i in chosen])
    assert found == pytest.approx([ONE_BY_ONE[i] for i in chosen], abs=1e-10)


def test_float32_agrees_to_1e_5_in_any_order() -> None:
    model = model_of("gpt2")
    expected = [nll(model.net, model.tokenizer, *pair) for pair in PAIRS]
    assert answer_nll(model, PAIRS[::-1])[::-1] == pytest.approx(expected, abs=1e-4)


def test_half_precision_is_scored_in_float32() -> None:
    model = model_of("llama", dtype=torch.bfloat16)
    ids = torch.tensor([model.tokenizer("Japan").input_ids])
    assert next_token_logits(model, ["Japan"]).dtype == torch.float32
    expected = model.net(input_ids=ids).logits[0, -1].float()
    torch.testing.assert_close(next_token_logits(model, ["Japan"])[0], expected)


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_padding_side_changes_nothing(side: str) -> None:
    model = model_of("llama", dtype=torch.float64, tokenizer=byte_tokenizer(bos=True, padding_side=side))
    assert answer_nll(model, PAIRS) == pytest.approx(ONE_BY_ONE, abs=1e-10)


def test_dropout_is_off_and_the_mode_is_kept() -> None:
    model = model_of("gpt2")
    expected = answer_nll(model, PAIRS)
    model.net.train()
    assert answer_nll(model, PAIRS) == expected
    assert torch.equal(next_token_logits(model, ["Japan"]), next_token_logits(model, ["Japan"]))
    assert model.net.training


def test_next_token_logits_are_those_after_each_text() -> None:
    texts = [text for text, _ in PAIRS]
    found = next_token_logits(MODEL, texts)
    for text, logits in zip(texts, found, strict=True):
        ids = torch.tensor([MODEL.tokenizer(text).input_ids])
        torch.testing.assert_close(logits, MODEL.net(input_ids=ids).logits[0, -1], rtol=0, atol=1e-10)


def test_the_first_token_of_an_answer_carries_its_blank() -> None:
    assert MODEL.tokenizer.decode([first_token(MODEL, "The capital of France is", "Paris")]).startswith(" ")
    assert first_token(MODEL, "The capital of France is ", "Paris") == first_token(
        MODEL, "The capital of France is", "Paris"
    )


def test_nothing_asked_is_nothing_answered() -> None:
    assert answer_nll(MODEL, []) == []


def test_smollm2_answers_as_in_one_pass() -> None:
    model = smollm2()
    pairs = [PAIRS[0], (PAIRS[0][0], "New York City")]
    expected = [nll(model.net, model.tokenizer, *pair) for pair in pairs]
    assert answer_nll(model, pairs) == pytest.approx(expected, abs=1e-4)
    assert expected[0] < 0.5
