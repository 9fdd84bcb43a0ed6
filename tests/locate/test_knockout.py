"""Attention knock-out against the textbook version, and what must hold of any knock-out."""

import importlib
import inspect
import json
from typing import Any

import numpy as np
import pytest
import torch

from families import NAMES, byte_tokenizer
from oracles.small import EIFFEL, FACTS, JAPAN, model_of, precision_of, smollm2
from oracles.textbook_reading import knocked_out
from palimpsest.errors import AnatomyError, InputError, SettingError
from palimpsest.facts import Fact
from palimpsest.locate.reading.attention_edges import attention_blocked, check_attention_obeys
from palimpsest.locate.reading.knockout import (
    SOURCES,
    knockout,
    knockout_profile,
    sources_of,
    window_of,
)
from palimpsest.model import Model, align

PLACES = {
    "first": Fact("Eiffel Tower", "{} is located in the city of", "Paris"),
    "middle": Fact("Eiffel Tower", "The {} is located in the city of", "Paris"),
    "last": Fact("Zürich", "The largest city of Switzerland is {}", "Paris"),
}


@pytest.fixture(scope="module")
def gpt2() -> Model:
    return model_of("gpt2")


@pytest.mark.parametrize("window", [1, 2, 9])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox_parallel"])
def test_a_knockout_is_the_textbook_knockout(family: str, place: str, window: int) -> None:
    model = model_of(family, dtype=torch.float64, tokenizer=byte_tokenizer(bos=family == "llama"))
    found = knockout(model, PLACES[place], window=window, controls=2)
    ids = model.tokenizer(PLACES[place].text).input_ids
    paris = model.tokenizer(" Paris", add_special_tokens=False).input_ids[0]
    assert found.clean == pytest.approx(np.exp(knocked_out(model.net, ids, (), (), paris)), abs=1e-12)
    assert np.nanmax(np.abs(found.log_change)) > 0.01
    rows = [
        *zip(found.positions, found.log_p, strict=True),
        *zip(found.control_positions, found.control_log_p, strict=True),
    ]
    for positions, log_p in rows:
        for l in range(3):
            expected = knocked_out(model.net, ids, positions, window_of(l, window, 3), paris) if positions else np.nan
            assert log_p[l] == pytest.approx(expected, abs=1e-10, nan_ok=True)


def test_smollm2_is_knocked_out_as_in_the_textbook_at_some_cells() -> None:
    model = smollm2()
    fact = Fact("France", "The capital of {} is", "Paris")
    found = knockout(model, fact, sources=("subject", "before"), controls=0)
    ids, paris = model.tokenizer(fact.text).input_ids, model.tokenizer(" Paris").input_ids[0]
    for l in (0, 13, 21, 29):
        for positions, log_p in zip(found.positions, found.log_p, strict=True):
            expected = knocked_out(model.net, ids, positions, window_of(l, 9, 30), paris)
            assert log_p[l] == pytest.approx(expected, abs=1e-4)
    assert found.effect[0, 21] < -0.5  # the subject reaches the last token about here
    assert abs(found.effect[0, 0]) < 0.2


@pytest.mark.parametrize("family", NAMES)
def test_a_last_token_that_sees_only_itself_is_that_token_alone(family: str) -> None:
    """An oracle for every family: with all other edges cut everywhere, the prompt before the last token is not there."""
    dtype, tolerance = precision_of(family)
    if family in ("deepseek_v3", "mixtral", "qwen3_moe"):  # their experts do not run in float64 either
        dtype, tolerance = torch.float32, 2e-5
    model = model_of(family, dtype=dtype)
    found = knockout(model, EIFFEL, window=9, sources=("before", "subject"), controls=0)
    ids, paris = model.tokenizer(EIFFEL.text).input_ids, model.tokenizer(" Paris").input_ids[0]
    alone = {"input_ids": torch.tensor([ids[-1:]]), "attention_mask": torch.ones(1, 1, dtype=torch.long)}
    if "position_ids" in inspect.signature(model.net.forward).parameters:
        alone["position_ids"] = torch.tensor([[len(ids) - 1]])
    log_p = model.net(**alone, use_cache=False).logits[0, -1].log_softmax(-1)
    np.testing.assert_allclose(found.log_p[0], float(log_p[paris]), rtol=0, atol=20 * tolerance)
    assert np.abs(found.log_change[0]).max() > 1e-3


def test_blocking_nothing_changes_nothing(gpt2: Model) -> None:
    ids = gpt2.encode(EIFFEL.text).ids
    batch, at = align([ids], [0]), torch.tensor([[len(ids) - 1]])
    (prefix,) = gpt2.run_prefixes(batch, [len(ids) - 1])
    plain = gpt2.run(batch, prefix=prefix, at=at)
    nothing = torch.zeros(3, 1, len(ids), dtype=torch.bool)
    with attention_blocked(gpt2, nothing):
        assert torch.equal(gpt2.run(batch, prefix=prefix, at=at), plain)
    nothing[1, 0, 0] = True
    with attention_blocked(gpt2, nothing):
        assert not torch.allclose(gpt2.run(batch, prefix=prefix, at=at), plain)
    assert torch.equal(gpt2.run(batch, prefix=prefix, at=at), plain)


def test_the_size_of_a_batch_changes_nothing(gpt2: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = knockout(gpt2, EIFFEL, window=2)
    monkeypatch.setattr(importlib.import_module("palimpsest.locate.reading.knockout"), "ROWS", 2)
    parts = knockout(gpt2, EIFFEL, window=2)
    np.testing.assert_allclose(parts.log_p, whole.log_p, rtol=0, atol=1e-5)
    np.testing.assert_allclose(parts.control_log_p, whole.control_log_p, rtol=0, atol=1e-5)


def test_windows_are_clipped_and_as_wide_as_asked() -> None:
    assert list(window_of(10, 9, 30)) == list(range(6, 15))
    assert list(window_of(10, 10, 30)) == list(range(5, 15))
    assert list(window_of(0, 9, 30)) == [0, 1, 2, 3, 4]
    assert list(window_of(29, 9, 30)) == [25, 26, 27, 28, 29]
    assert list(window_of(7, 1, 30)) == [7]


def test_roles_are_disjoint_where_they_should_be() -> None:
    middle = sources_of(range(2, 4), 7)
    assert middle["subject"] == (2, 3)
    assert middle["subject_last"] == (3,)
    assert middle["other"] == (1, 4, 5)
    assert middle["before"] == (0, 1, 2, 3, 4, 5)
    end = sources_of(range(3, 5), 5)  # the last token of the subject is the one that looks
    assert end["subject"] == (3,)
    assert end["subject_last"] == ()
    assert end["last"] == (4,)
    whole = sources_of(range(0, 2), 2)
    assert whole["subject"] == whole["first"] == (0,)
    assert whole["other"] == ()


def test_random_sets_are_as_large_as_the_subject_and_apart_from_it(gpt2: Model) -> None:
    fact = Fact("Paris", "The mother tongue of the capital of {} is", "French")
    found = knockout(gpt2, fact, controls=4)
    first, end = found.subject
    assert len(set(found.control_positions)) == 4
    for positions in found.control_positions:
        assert len(positions) == end - first
        assert not set(positions) & {0, len(found.tokens) - 1, *range(first, end)}
    assert knockout(gpt2, fact, controls=4).control_positions == found.control_positions
    assert knockout(gpt2, fact, controls=4, seed=1).control_positions != found.control_positions
    low, high = found.control_range
    assert (low <= found.control_effect.mean(axis=0)).all()
    assert (found.control_effect.mean(axis=0) <= high).all()


def test_attention_that_ignores_its_mask_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("gpt2")
    attention = model.net.transformer.h[1].attn  # type: ignore[union-attr, index]
    theirs = attention.forward
    signature = inspect.signature(theirs)

    def deaf(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        bound.arguments["attention_mask"] = None
        return theirs(*bound.args, **bound.kwargs)

    deaf.__signature__ = signature  # type: ignore[attr-defined]
    check_attention_obeys(model, model.encode(EIFFEL.text).ids)
    monkeypatch.setattr(attention, "forward", deaf)
    with pytest.raises(AnatomyError, match="does not obey"):
        knockout(model, EIFFEL)
    monkeypatch.setattr(attention, "forward", lambda hidden_states, **kwargs: theirs(hidden_states, **kwargs))
    with pytest.raises(AnatomyError, match="no attention module that takes an attention_mask"):
        knockout(model, EIFFEL)


def test_a_profile_holds_what_single_knockouts_hold(gpt2: Model) -> None:
    bad = Fact("Japan", "The capital of {} is", id="no answer")
    short = Fact("I", "{}", "Tokyo", id="short")
    found = knockout_profile(gpt2, [bad, EIFFEL, short, JAPAN], window=2)
    assert [fact.id for fact in found.facts] == ["eiffel", "japan"]
    assert [fact for fact, _ in found.failures] == ["no answer", "short"]
    single = knockout(gpt2, JAPAN, window=2)
    for name, effect in zip(SOURCES, single.effect, strict=True):
        np.testing.assert_allclose(found.values[f"relative/{name}"][1], effect, atol=1e-6)
    np.testing.assert_allclose(found.values["relative/control"][1], single.control_effect.mean(axis=0), atol=1e-6)
    assert found.contrast("relative/subject", "relative/control", group="all")[0].n == 2
    json.dumps(found.to_json(), allow_nan=False)
    with pytest.raises(InputError, match="None of the 1 facts"):
        knockout_profile(gpt2, [short])


def test_the_answer_can_be_chosen_and_is_the_first_choice_without_one(gpt2: Model) -> None:
    unknown = Fact(EIFFEL.subject, EIFFEL.prompt)
    logits = gpt2.net(input_ids=torch.tensor([gpt2.tokenizer(EIFFEL.text).input_ids])).logits[0, -1]
    assert knockout(gpt2, unknown).clean == pytest.approx(float(logits.softmax(-1).max()), rel=1e-4)
    rome = gpt2.tokenizer(" Rome").input_ids[0]
    assert knockout(gpt2, EIFFEL, answer="Rome").clean == pytest.approx(float(logits.softmax(-1)[rome]), rel=1e-4)


def test_the_model_is_left_as_it_was_and_dropout_is_off_meanwhile() -> None:
    model = model_of("gpt2")
    quiet = knockout(model, EIFFEL)
    model.net.train()
    before = model.fingerprint()
    np.testing.assert_array_equal(knockout(model, EIFFEL).log_p, quiet.log_p)
    assert model.net.training
    assert model.fingerprint() == before
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.net.modules())


def test_a_knockout_is_written_whole_and_plots(gpt2: Model, tmp_path: Any) -> None:
    found = knockout(gpt2, PLACES["last"])  # has an empty source
    found.save(str(tmp_path / "knockout.json"))
    stored = json.loads((tmp_path / "knockout.json").read_text("utf-8"))
    assert stored["effect"][SOURCES.index("subject_last")] == [None] * 3
    pytest.importorskip("matplotlib")
    found.plot()
    knockout_profile(gpt2, FACTS).plot()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"window": 0}, "at least one layer, got 0"),
        ({"controls": -1}, "0 or more control sets, got -1"),
        ({"sources": ()}, "at least one source"),
        ({"sources": ("subjet",)}, "no source 'subjet'. Did you mean 'subject'"),
    ],
)
def test_a_mistake_is_answered_with_one_sentence(gpt2: Model, settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SettingError, match=sentence):
        knockout(gpt2, EIFFEL, **settings)


def test_a_prompt_of_one_token_is_refused(gpt2: Model) -> None:
    with pytest.raises(InputError, match="one token long"):
        knockout(gpt2, Fact("I", "{}", "Tokyo"))
