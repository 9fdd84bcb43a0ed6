"""Kept answers: what was said comes back exactly, damage is asked again, and another model has a file of its own."""

from pathlib import Path

import pytest
import torch

import palimpsest as pal
from oracles.small import FACTS, documents, model_of, with_probes
from palimpsest.errors import InputError, OutputError
from palimpsest.evaluate import answer, answering
from palimpsest.evaluate.answer_cache import AnswerCache
from palimpsest.evaluate.asks import Ask, Likelihood, NextToken, Passage, Written

ASKS: tuple[Ask, ...] = (
    Likelihood(FACTS[0].text, "Rome"),
    Likelihood(FACTS[1].text, "Berlin or Xi'an"),
    Written(FACTS[0].text, 4),
    Written(FACTS[0].text, 4, top_k=3, seed=1),
    Passage("Zürich is near the sea."),
)


def test_what_was_answered_comes_back_and_is_not_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("gpt2")
    first = answer(model, ASKS, cache=AnswerCache(tmp_path, model))
    cache = AnswerCache(tmp_path, model)
    assert len(cache) == len(ASKS)
    monkeypatch.setattr(answering, "_encoded", lambda *args: pytest.fail("asked again"))
    again = answer(model, ASKS, cache=cache)
    for ask in ASKS:
        assert again[ask] == first[ask]


def test_next_token_distributions_are_not_kept(tmp_path: Path) -> None:
    model = model_of("gpt2")
    cache = AnswerCache(tmp_path, model)
    answer(model, [NextToken("Rome is")], cache=cache)
    assert len(cache) == len(AnswerCache(tmp_path, model)) == 0


def test_a_damaged_line_is_asked_again_and_the_others_stand(tmp_path: Path) -> None:
    model = model_of("gpt2")
    cache = AnswerCache(tmp_path, model)
    first = answer(model, ASKS, cache=cache)
    lines = cache.path.read_bytes().splitlines(keepends=True)
    for damage in (
        lines[0][:30],
        b"[1, 2]\n",
        b'{"kind": "Likelihood"}\n',
        b"\xff\xfe\n",
        b'{"kind": "Other", "ask": {}}\n',
    ):
        cache.path.write_bytes(b"".join(lines[1:]) + damage)
        reread = AnswerCache(tmp_path, model)
        assert len(reread) == len(ASKS) - 1
        found = answer(model, ASKS, cache=reread)
        assert found[ASKS[0]].nll == pytest.approx(first[ASKS[0]].nll, abs=1e-5)  # type: ignore[union-attr]
        assert len(AnswerCache(tmp_path, model)) == len(ASKS)


def test_models_and_tokenizers_have_files_of_their_own(tmp_path: Path) -> None:
    model = model_of("gpt2")
    path = AnswerCache(tmp_path, model).path
    with torch.no_grad():
        model.net.get_output_embeddings().weight[0, 0] += 1
    assert AnswerCache(tmp_path, model).path != path
    assert AnswerCache(tmp_path, model_of("gpt2")).path == path
    model = model_of("gpt2")
    model.tokenizer.add_tokens(["Eiffel"])
    assert AnswerCache(tmp_path, model).path != path


def test_an_edited_model_has_no_cache(tmp_path: Path) -> None:
    model = model_of("llama")
    edit = pal.edit(model, FACTS[0], "rome", layers=1, text=documents(), contexts=((5, 1),), steps=2)
    with edit.applied(model), pytest.raises(InputError, match="unedited"):
        AnswerCache(tmp_path, model)


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError):
        AnswerCache(tmp_path / "file", model_of("gpt2"))


def test_runs_share_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("gpt2")
    facts = [with_probes(fact, ["So"], [("The river is in", "Paris")]) for fact in FACTS]
    first = pal.evaluate(model, facts, cache=tmp_path)
    monkeypatch.setattr(answering, "_encoded", lambda *args: pytest.fail("asked again"))
    assert pal.evaluate(model, facts, cache=tmp_path).records == first.records
