"""The engine against one prompt at a time, and unmoved by order, company, batch size and padding."""

from math import log

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import palimpsest as pal
from families import byte_tokenizer
from oracles.small import FACTS, documents, model_of, precision_of, smollm2
from palimpsest.errors import FactError, InputError
from palimpsest.evaluate import answer, writing
from palimpsest.evaluate.asks import Ask, Likelihood, NextToken, Passage, Written
from palimpsest.evaluate.suite import Answers
from palimpsest.model import Model
from palimpsest.model.partial import Prefix

TEXTS = (*(fact.text for fact in FACTS), "Paris", "The capital of France is", "Zürich is near ", documents(1)[:80])
ANSWERS = ("Paris", "Rome", "Berlin or Xi'an", "P", "東京")
ASKS: tuple[Ask, ...] = (
    *(Likelihood(text, answer_) for text in TEXTS for answer_ in ANSWERS),
    *(NextToken(text) for text in TEXTS),
    *(Passage(text) for text in TEXTS),
    *(Written(text, tokens) for text in TEXTS for tokens in (1, 6)),
    *(Written(text, 5, top_k=4, seed=seed) for text in TEXTS[:3] for seed in (0, 1)),
)


def log_p(model: Model, ids: tuple[int, ...]) -> torch.Tensor:
    """Log-probabilities after every token, from plain transformers with nothing around it."""
    with torch.no_grad():
        logits = model.net(torch.tensor([ids])).logits[0]
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)


def alone(model: Model, ask: Ask) -> object:
    """The answer to one ask, written down as one first would."""
    if isinstance(ask, Likelihood):
        ids, begin = model.encode_answer(ask.text, ask.answer)
        rows, wanted = log_p(model, ids)[begin - 1 : -1], torch.tensor(ids[begin:])
        told = rows.gather(1, wanted[:, None])[:, 0]
        return (
            -float(told.double().mean()),
            tuple((rows.argmax(-1) == wanted).tolist()),
            tuple(rows.argmax(-1).tolist()),
        )
    ids = model.encode(ask.text).ids
    if isinstance(ask, NextToken):
        return log_p(model, ids)[-1].float()
    if isinstance(ask, Passage):
        told = log_p(model, ids)[:-1].gather(1, torch.tensor(ids[1:])[:, None])
        return -float(told.double().sum()), len(ids) - 1
    assert not ask.top_k
    new: list[int] = []
    while len(new) < ask.tokens:
        token = int(log_p(model, (*ids, *new))[-1].argmax())
        if token == model.tokenizer.eos_token_id:
            break
        new.append(token)
    return model.tokenizer.decode(new, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def check(model: Model, found: Answers, ask: Ask, closely: float) -> None:
    """The engine's answer is the one asked for alone."""
    expected = alone(model, ask)
    told = found[ask]
    if isinstance(ask, Likelihood):
        assert told.nll == pytest.approx(expected[0], abs=closely)  # type: ignore[index, union-attr]
        assert (told.right, told.best) == expected[1:]  # type: ignore[index, union-attr]
    elif isinstance(ask, NextToken):
        torch.testing.assert_close(told.log_p, expected, atol=max(closely, 1e-5), rtol=0)  # type: ignore[union-attr]
    elif isinstance(ask, Passage):
        assert (told.nll, told.tokens) == pytest.approx(expected, abs=closely * 100)  # type: ignore[union-attr]
    else:
        assert told == expected
        assert not str(told).startswith(ask.text)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox_parallel", "opt", "gemma2"])
def test_answers_are_those_of_one_prompt_at_a_time(family: str) -> None:
    dtype, closely = precision_of(family)
    model = model_of(family, dtype=dtype, tokenizer=byte_tokenizer(bos=family == "llama"))
    asks = [ask for ask in ASKS if not (isinstance(ask, Written) and ask.top_k)]
    found = answer(model, asks)
    for ask in asks:
        check(model, found, ask, closely)


def same(one: object, other: object) -> None:
    """Two answers to one ask agree to 1e-4 nats, and in every yes or no."""
    if hasattr(one, "log_p"):
        torch.testing.assert_close(one.log_p, other.log_p, atol=1e-4, rtol=0)  # type: ignore[attr-defined]
    elif hasattr(one, "right"):
        assert (one.right, one.best) == (other.right, other.best)  # type: ignore[attr-defined]
        assert one.nll == pytest.approx(other.nll, abs=1e-4)  # type: ignore[attr-defined]
    elif hasattr(one, "tokens"):
        assert (one.nll / one.tokens) == pytest.approx(other.nll / other.tokens, abs=1e-4)  # type: ignore[attr-defined]
    else:
        assert one == other


MODELS = {family: model_of(family) for family in ("gpt2", "llama")}
WHOLE = {family: answer(model, ASKS) for family, model in MODELS.items()}


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(sorted(MODELS)), st.permutations(ASKS), st.integers(1, len(ASKS)), st.sampled_from([1, 60, 4000])
)
def test_order_company_and_batch_size_change_nothing(family: str, asks: list[Ask], count: int, tokens: int) -> None:
    found = answer(MODELS[family], asks[:count], tokens=tokens)
    for ask in asks[:count]:
        same(found[ask], WHOLE[family][ask])


def test_the_tokenizers_padding_side_changes_nothing() -> None:
    model = model_of("llama")
    for side in ("left", "right"):
        model.tokenizer.padding_side = side
        found = answer(model, ASKS[:30])
        for ask in ASKS[:30]:
            same(found[ask], WHOLE["llama"][ask])


def test_a_prompt_runs_once_however_many_ask_about_it(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("gpt2")
    rows: list[int] = []
    real = model.net.forward

    def counting(*args: object, **kwargs: object) -> object:
        if kwargs.get("past_key_values") is None:
            rows.append(len(kwargs["input_ids"]))  # type: ignore[arg-type]
        return real(*args, **kwargs)

    monkeypatch.setattr(model.net, "forward", counting)
    text = FACTS[0].text
    answer(model, [Likelihood(text, one) for one in ANSWERS] + [NextToken(text), Likelihood(text, "Rome")])
    assert rows == [1]


def test_a_greedy_text_is_what_transformers_generates() -> None:
    model = model_of("llama")
    for ask in (Written(text, 12) for text in TEXTS[:4]):
        ids = torch.tensor([model.encode(ask.text).ids])
        with torch.no_grad():
            whole = model.net.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False, pad_token_id=0
            )
        expected = model.tokenizer.decode(
            whole[0, ids.shape[1] :], skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        assert answer(model, [ask]).written(ask) == expected


def test_the_end_of_text_ends_a_text_and_is_not_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("gpt2")
    free = [answer(model, [Written(TEXTS[0], n)]).written(Written(TEXTS[0], n)) for n in range(1, 8)]
    ids = model.encode(TEXTS[0]).ids
    third = [int(log_p(model, ids)[-1].argmax())]
    while len(third) < 7:
        third.append(int(log_p(model, (*ids, *third))[-1].argmax()))
    end = next(i for i in range(1, 7) if third[i] not in third[:i])
    monkeypatch.setattr(writing, "_ends", lambda model: {third[end]})
    assert answer(model, [Written(TEXTS[0], 7)]).written(Written(TEXTS[0], 7)) == free[end - 1]


def test_draws_come_from_the_likeliest_in_proportion() -> None:
    model = model_of("gpt2")
    text = FACTS[1].text
    p = log_p(model, model.encode(text).ids)[-1].exp()
    top = p.topk(2)
    share = float(top.values[0] / top.values.sum())
    seen = answer(model, [Written(text, 1, top_k=2, seed=seed) for seed in range(400)])
    first = model.tokenizer.decode([int(top.indices[0])])
    drawn = [seen.written(Written(text, 1, top_k=2, seed=seed)) for seed in range(400)]
    assert set(drawn) <= {first, model.tokenizer.decode([int(top.indices[1])])}
    assert sum(one == first for one in drawn) / 400 == pytest.approx(share, abs=0.1)


def test_what_cannot_be_asked_harms_nothing_else() -> None:
    model = model_of("gpt2")
    long = Likelihood("word " * 400, "Rome")
    broken = Likelihood("\ud800 is", "Rome")
    good = ASKS[0]
    found = answer(model, [long, good, broken, Written("x " * 400)])
    check(model, found, good, 1e-5)
    with pytest.raises(InputError, match="tokens long but this model reads at most 256"):
        found[long]
    with pytest.raises(InputError, match="cannot read"):
        found[broken]
    with pytest.raises(InputError, match="tokens long"):
        found[Written("x " * 400)]
    with pytest.raises(InputError, match="was not asked"):
        found[ASKS[1]]


def test_a_text_that_fills_the_context_gets_what_room_is_left() -> None:
    model = model_of("gpt2")
    text = "a" * 254
    while len(model.encode(text).ids) > 253:
        text = text[:-1]
    left = 256 - len(model.encode(text).ids)
    found = answer(model, [Written(text, 24), Written("Rome", 24)])
    assert found.written(Written(text, 24)) == alone(model, Written(text, left))
    assert found.written(Written("Rome", 24)) == alone(model, Written("Rome", 24))


def test_an_answer_without_a_token_is_refused() -> None:
    model = model_of("gpt2")
    ask = Likelihood("Rome", "Paris")
    original = model.encode_answer
    object.__setattr__(
        model, "encode_answer", lambda text, answer: (model.encode(text).ids, len(model.encode(text).ids))
    )
    try:
        with pytest.raises(FactError, match="no token"):
            answer(model, [ask])[ask]
    finally:
        object.__setattr__(model, "encode_answer", original)


def test_long_passages_are_read_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    from palimpsest.evaluate import passages

    model = model_of("llama")
    asks = [Passage(documents(3)[:n]) for n in (30, 200, 350)]
    whole = answer(model, asks)
    monkeypatch.setattr(passages, "PIECE", 7)
    pieces = answer(model, asks)
    for ask in asks:
        same(pieces[ask], whole[ask])
        check(model, pieces, ask, 1e-4)


def test_half_precision_is_read_in_float32() -> None:
    model = model_of("llama", dtype=torch.bfloat16)
    found = answer(model, ASKS[:40])
    for ask in ASKS[:10]:
        assert isinstance(ask, Likelihood)
        assert found.nll(ask.text, ask.answer) == pytest.approx(alone(model, ask)[0], rel=0.02, abs=0.05)  # type: ignore[index]
    assert all(found[ask].log_p.dtype == torch.float32 for ask in ASKS[:40] if isinstance(ask, NextToken))  # type: ignore[union-attr]


def test_edits_that_are_applied_are_seen() -> None:
    model = model_of("llama")
    text = documents()
    edit = pal.edit(model, FACTS[0], "rome", layers=1, text=text, contexts=((5, 1),), steps=4)
    ask = Likelihood(FACTS[0].text, str(FACTS[0].target_new))
    before = answer(model, [ask])
    with edit.applied(model):
        after = answer(model, [ask])
        check(model, after, ask, 1e-5)
    assert after.nll(ask.text, ask.answer) < before.nll(ask.text, ask.answer)


def test_nothing_asked() -> None:
    with pytest.raises(InputError):
        answer(model_of("gpt2"), [])[ASKS[0]]


def test_a_uniform_model_by_hand() -> None:
    model = model_of("gpt2")
    with torch.no_grad():
        model.net.get_output_embeddings().weight.zero_()
    size = model.net.config.vocab_size
    found = answer(model, ASKS)
    for ask in ASKS:
        if isinstance(ask, Likelihood):
            assert found.nll(ask.text, ask.answer) == pytest.approx(log(size))
        if isinstance(ask, Passage):
            told = found.passage(ask.text)
            assert told.nll == pytest.approx(log(size) * told.tokens)


@pytest.mark.slow
def test_smollm2_as_one_prompt_at_a_time() -> None:
    model = smollm2()
    asks = [ask for ask in ASKS if not (isinstance(ask, Written) and ask.top_k)]
    found = answer(model, asks)
    for ask in asks:
        check(model, found, ask, 1e-4)


def test_prefixes_are_left_as_they_are() -> None:
    """`run_on` gives the logits of a whole run and leaves the prefix it goes on from unchanged."""
    from palimpsest.model import pad

    model = model_of("llama")
    ids = model.encode(TEXTS[0]).ids
    at = torch.tensor([[len(ids) - 1]])
    whole = model.last_logits(pad([ids]))
    logits, prefix = model.run_on(pad([ids[:3]]), torch.tensor([[2]]))
    for _ in range(2):
        again, _longer = model.run_on(pad([ids]), at, prefix)
        torch.testing.assert_close(again[:, 0], whole, atol=1e-5, rtol=0)
    assert isinstance(prefix, Prefix)
    torch.testing.assert_close(logits[0, 0], log_p_logits(model, ids[:3]), atol=1e-5, rtol=0)


def log_p_logits(model: Model, ids: tuple[int, ...]) -> torch.Tensor:
    """Plain logits after the last token."""
    with torch.no_grad():
        logits: torch.Tensor = model.net(torch.tensor([ids])).logits[0, -1]
    return logits
