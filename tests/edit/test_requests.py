"""What an editor is asked: contradictions, shared keys, answers the model gives already, long answers."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from oracles.small import CONTEXTS, EIFFEL, FACTS, JAPAN, documents, model_of, smollm2
from palimpsest.edit import LowRank, editor, values
from palimpsest.edit.requests import checked, same_keys
from palimpsest.edit.search import ValueSettings
from palimpsest.edit.values import Kept, find_values
from palimpsest.errors import EditError, FactError
from palimpsest.facts import Fact
from palimpsest.locate.answers import answer_nll
from palimpsest.model import Site

SETTINGS: dict[str, Any] = {
    "layers": (0, 1), "contexts": ((5, 1),), "steps": 4, "text": documents(), "moment_weight": 5.0
}  # fmt: skip
SPEAKS = Fact("Danielle Darrieux", "{} speaks", "French", "Swiss", id="speaks")
BORN = Fact("Danielle Darrieux", "{} was born in", "Bordeaux", "Rome", id="born")


def test_contradictions_are_named_before_anything_is_computed() -> None:
    clash = replace(EIFFEL, target_new="Berlin", id="other")
    with pytest.raises(EditError, match="eiffel asks for 'Rome' and other for 'Berlin'"):
        checked([EIFFEL, JAPAN, clash])
    with pytest.raises(EditError, match="two facts have the id|Two facts have the id"):
        checked([EIFFEL, replace(JAPAN, id="eiffel")])
    with pytest.raises(EditError, match="no fact"):
        checked([])
    with pytest.raises(FactError, match="no target_new"):
        checked([replace(EIFFEL, target_new=None)])
    assert checked([EIFFEL, EIFFEL]) == (EIFFEL, EIFFEL)


def test_facts_with_one_key_are_found() -> None:
    model = model_of("llama")
    assert same_keys(model, [SPEAKS, EIFFEL, BORN]) == [[0, 2], [1]]
    assert same_keys(model, [SPEAKS, BORN], "last") == [[0], [1]]


def test_one_key_is_given_one_value_together_or_refused_by_name() -> None:
    model = model_of("llama", dtype=torch.float64)
    merged = editor(model, "memit", **SETTINGS).edit([SPEAKS, EIFFEL, BORN])
    assert merged.notes["shared_keys"] == [["speaks", "born"]]
    notes = {note["fact"]: note for note in merged.notes["facts"]}
    assert [note["fact"] for note in merged.notes["facts"]] == ["speaks", "eiffel", "born"]
    assert notes["speaks"]["delta_norm"] == notes["born"]["delta_norm"]
    assert all(isinstance(p, LowRank) and p.rank <= 2 for p in merged.payloads)
    kept = editor(model, "memit", **SETTINGS, same_key="keep").edit([SPEAKS, EIFFEL, BORN])
    assert kept.notes["shared_keys"] == []
    with pytest.raises(EditError, match="speaks .* and born .* one and the same key"):
        editor(model, "memit", **SETTINGS, same_key="refuse").edit([SPEAKS, EIFFEL, BORN])
    with pytest.raises(EditError, match="depend on each other"):
        editor(model, "emmet", **{**SETTINGS, "layers": (1,)}, same_key="keep").edit([SPEAKS, BORN])


def test_an_answer_the_model_gives_already_is_a_no_op_and_kept() -> None:
    model = smollm2()
    fact = Fact("Eiffel Tower", "The {} is located in the city of", "Paris", "Paris", id="same")
    settings: dict[str, Any] = {"layers": (9,), "contexts": ((5, 1),), "steps": 3, "covariance": "identity"}
    edit = editor(model, "memit", **settings).edit([fact])
    (note,) = edit.notes["facts"]
    assert note["no_op"]
    assert note["delta_norm"] == 0
    assert edit.facts == (fact,)
    assert edit.norm == 0
    with edit.applied(model):
        pass
    other = editor(model, "memit", **settings, skip_known=False).edit([fact])
    assert not other.notes["facts"][0]["no_op"]
    assert other.norm > 0


def test_an_answer_of_thirty_tokens() -> None:
    model = model_of("llama")
    long = replace(
        EIFFEL, target_new="the far side of the old town of Rome near the river Tiber and not in France at all"
    )
    whole, begin = model.encode_answer(long.text, str(long.target_new))
    assert len(whole) - begin >= 30
    edit = editor(model, "memit", **SETTINGS).edit([long, JAPAN])
    before = answer_nll(model, [(long.text, str(long.target_new))])
    with edit.applied(model):
        assert answer_nll(model, [(long.text, str(long.target_new))]) < before


def test_an_answer_that_begins_like_the_old_one() -> None:
    model = model_of("llama")
    fact = replace(EIFFEL, target_true="Rome and Paris", target_new="Rome and Tokyo")
    new, begin = model.encode_answer(fact.text, "Rome and Tokyo")
    old, _ = model.encode_answer(fact.text, "Rome and Paris")
    assert new[begin] == old[begin]
    edit = editor(model, "memit", **SETTINGS).edit([fact])
    pairs = [(fact.text, "Rome and Tokyo"), (fact.text, "Rome and Paris")]
    before = answer_nll(model, pairs)
    with edit.applied(model):
        after = answer_nll(model, pairs)
    assert after[0] < before[0]


def test_values_that_were_found_are_not_searched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("llama", dtype=torch.float64)
    given = (model, Site("resid_out", 1), FACTS, CONTEXTS, [4.0, 3.0, 1.5], ValueSettings(steps=3))
    kept = Kept(tmp_path, "weights")
    first = find_values(*given, kept=kept)
    monkeypatch.setattr(values, "search", lambda *args: pytest.fail("searched again"))
    again = find_values(*given, kept=Kept(tmp_path, "weights"))
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one.delta, other.delta)
        assert (one.steps, one.loss, one.nll, one.known) == (other.steps, other.loss, other.nll, other.known)
    with pytest.raises(pytest.fail.Exception):
        find_values(*given, kept=Kept(tmp_path, "other weights"))
    with pytest.raises(pytest.fail.Exception):
        find_values(*given[:-1], ValueSettings(steps=4), kept=kept)


def test_a_batch_of_many_is_cut_into_bounded_pieces() -> None:
    model = model_of("llama")
    facts = [replace(EIFFEL, subject=f"Tower {i}", id=str(i)) for i in range(70)]
    pieces = list(values._batches(model, [(fact,) for fact in facts], 3, "subject_last"))
    assert sorted(i for piece in pieces for i in piece) == list(range(70))
    assert max(map(len, pieces)) <= values.TOGETHER
    long = [replace(fact, target_new="word " * 40) for fact in facts[:6]]
    pieces = list(values._batches(model, [(fact,) for fact in long], 3, "subject_last"))
    for piece in pieces:
        answers = max(values._size(model, long[i], "subject_last")[2] for i in piece)
        assert len(piece) == 1 or len(piece) * 4 * answers <= values.BATCH_ANSWERS
