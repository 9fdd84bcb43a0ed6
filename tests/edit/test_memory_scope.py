"""SERAC: the scope against a textbook version of it, the memory that is found by it, and every refusal."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_memories import UNRELATED, made
from torch import Tensor

import palimpsest as pal
from oracles.small import EIFFEL, FACTS, JAPAN, model_of
from palimpsest.edit import Edit, EditSequence
from palimpsest.edit.memories.scope import cross_entropy, fitted, lessons, likeness
from palimpsest.edit.memories.scoped import Scoped
from palimpsest.errors import EditError, InputError, SettingError
from palimpsest.facts import Fact
from palimpsest.model import Model

SHIPPED = pal.read_facts("shipped").facts
EXAMPLES = SHIPPED[::12][:24]


@pytest.fixture(scope="module")
def gpt2() -> Model:
    return model_of("gpt2")


def words(texts: Sequence[str]) -> Tensor:
    """An encoder: which of 96 buckets the words of a text fall into, by a sum of their letters."""
    rows = torch.zeros(len(texts), 96)
    for row, text in zip(rows, texts, strict=True):
        for word in text.lower().split():
            row[sum(map(ord, word)) % 96] += 1.0
    return rows / rows.norm(dim=1, keepdim=True)


def by_hand(matrix: np.ndarray, held: np.ndarray, asked: np.ndarray) -> float:
    """exp(-sum_i (sum_j M_ij (x_j - z_j))^2), number by number."""
    total = 0.0
    for row in matrix:
        total += sum(float(m) * float(x - z) for m, x, z in zip(row, asked, held, strict=True)) ** 2
    return math.exp(-total)


def test_likeness_and_loss_are_the_textbooks() -> None:
    draw = torch.Generator().manual_seed(0)
    matrix, held, asked = (torch.randn(size, generator=draw) * 0.4 for size in ((3, 3), (7, 3), (7, 3)))
    inside = torch.tensor([True, False, False, True, False, True, False])
    expected = [by_hand(matrix.numpy(), z.numpy(), x.numpy()) for z, x in zip(held, asked, strict=True)]
    assert likeness(matrix, held, asked).tolist() == pytest.approx(expected, rel=1e-5)
    own = [-math.log(p) for p, belongs in zip(expected, inside, strict=True) if belongs]
    other = [-math.log(1 - p) for p, belongs in zip(expected, inside, strict=True) if not belongs]
    loss = (sum(own) / len(own) + sum(other) / len(other)) / 2
    assert float(cross_entropy(matrix, asked - held, inside)) == pytest.approx(loss, rel=1e-4)


def test_lessons_are_of_both_kinds_and_of_no_text_in_both() -> None:
    found = lessons(EXAMPLES)
    for fact in EXAMPLES:
        own = [one for one in found if one.held == fact.text]
        assert {one.asked for one in own if one.inside} == set(fact.paraphrases) - {fact.text}
        out = {one.asked for one in own if not one.inside}
        assert {probe.prompt for probe in fact.neighbours} <= out
        assert not out & {one.asked for one in own if one.inside}
    assert found == lessons(EXAMPLES)


def test_what_is_learned_does_better_on_subjects_it_did_not_learn_from() -> None:
    found = fitted(words, SHIPPED[::4])
    assert found.report["loss"] < 0.8 * found.report["loss_before"]
    assert torch.equal(found.matrix, fitted(words, SHIPPED[::4]).matrix)


def test_a_prompt_in_scope_is_answered_and_another_is_as_unedited(gpt2: Model, tmp_path: Path) -> None:
    edit = made(gpt2, "serac", retriever="encoder", encoder=words)
    found = edit.routing(gpt2, [fact.text for fact in FACTS])
    assert [(one.answered, one.facts, one.score) for (one,) in found] == [
        (True, (fact.id,), pytest.approx(1.0, abs=1e-5)) for fact in FACTS
    ]
    (payload,) = edit.payloads
    assert isinstance(payload, Scoped)
    row, key = words([UNRELATED])[0], words([EIFFEL.text])[0]
    ((none,),) = edit.routing(gpt2, [UNRELATED])
    assert not none.answered
    assert payload.scores(gpt2, UNRELATED)[0] == pytest.approx(
        by_hand(payload.matrix.numpy(), key.numpy(), row.numpy()), rel=1e-4
    )
    with edit.applied(gpt2):
        assert (
            gpt2.tokenizer.decode(gpt2.encode(EIFFEL.text).ids)
            == f"New Fact: {EIFFEL.text} Rome\nPrompt: {EIFFEL.text}"
        )
        unrelated = gpt2.encode(UNRELATED)
    assert unrelated == gpt2.encode(UNRELATED)
    edit.save(tmp_path / "edit.safetensors")
    loaded = Edit.load(tmp_path / "edit.safetensors")
    (payload,) = loaded.payloads
    assert isinstance(payload, Scoped)
    loaded = replace(loaded, payloads=(replace(payload, encoder=words),))
    assert loaded.routing(gpt2, [JAPAN.text, UNRELATED]) == edit.routing(gpt2, [JAPAN.text, UNRELATED])


def test_a_memory_grows_with_the_scope_it_has(gpt2: Model) -> None:
    first = made(gpt2, "serac", [EIFFEL])
    grown = made(gpt2, "serac", [JAPAN], memory=first)
    (before,), (after,) = first.payloads, grown.payloads
    assert isinstance(before, Scoped)
    assert isinstance(after, Scoped)
    assert torch.equal(before.matrix, after.matrix)
    assert after.members == (EIFFEL.id, JAPAN.id)
    summed = before.plus(made(gpt2, "serac", [JAPAN]).payloads[0])  # type: ignore[arg-type]
    assert isinstance(summed, Scoped)
    assert summed.members == after.members  # the same examples teach the same scope
    other = made(gpt2, "serac", [JAPAN], examples=EXAMPLES[:12])
    with pytest.raises(EditError, match="learned apart"):
        before.plus(other.payloads[0])  # type: ignore[arg-type]
    plain = made(gpt2, "in-context", [JAPAN])
    with pytest.raises(EditError, match="no single scoped texts"):
        made(gpt2, "serac", [EIFFEL], memory=plain)
    with pytest.raises(EditError, match="no single texts"):
        made(gpt2, "in-context", [EIFFEL], memory=first)
    with pytest.raises(EditError, match="different ways"):
        before.plus(plain.payloads[0])  # type: ignore[arg-type]
    with pytest.raises(EditError, match="has a matrix of that many rows and columns, got"):
        replace(before, matrix=torch.eye(3))
    with pytest.raises(EditError, match="different ways"):
        plain.payloads[0].plus(replace(before, retriever="bm25", threshold=0.5))  # type: ignore[union-attr,arg-type]


def test_examples_are_never_edited_or_it_is_said(gpt2: Model) -> None:
    example = next(fact for fact in EXAMPLES if fact.target_new is not None)
    with pytest.raises(SettingError, match=f"{example.id} is edited and an example too"):
        made(gpt2, "serac", [example], examples=EXAMPLES)
    shipped = made(gpt2, "serac", [EIFFEL, example], examples=None, retriever="encoder", encoder=words)
    known = {fact.subject for fact in SHIPPED[::4][:96]}
    assert shipped.notes["examples_edited"] == [fact.id for fact in (EIFFEL, example) if fact.subject in known]
    assert set(shipped.notes["scope"]) == {"loss_before", "loss", "missed", "taken", "in_scope", "out_of_scope"}
    assert json.loads(json.dumps(shipped.notes)) == shipped.notes


def test_a_sequence_keeps_its_scope_and_goes_on_from_its_folder(gpt2: Model, tmp_path: Path) -> None:
    settings = {"retriever": "encoder", "encoder": words}  # and shipped examples, some of them about these subjects
    facts = [fact for fact in SHIPPED if fact.target_new is not None][:3]
    sequence = EditSequence(gpt2, "serac", **settings)
    for fact in facts[:2]:
        sequence.extend([fact])
    sequence.save(tmp_path)
    again = EditSequence.load(gpt2, tmp_path, **settings)
    for one in (sequence, again):
        one.extend(facts[2:])
        assert one.edit is not None
        assert [fact.id for fact in one.edit.facts] == [fact.id for fact in facts]
        assert [r.answered for (r,) in one.edit.routing(gpt2, [fact.text for fact in facts])] == [True] * 3


@pytest.mark.parametrize("method", ["serac", "in-context"])
def test_a_memory_grows_by_the_encoder_it_was_made_with(method: str, gpt2: Model, tmp_path: Path) -> None:
    def letters(texts: Sequence[str]) -> Tensor:
        return torch.tensor([[float(text.lower().count(chr(97 + i))) for i in range(26)] for text in texts])

    def turned(texts: Sequence[str]) -> Tensor:
        return words(texts).flip(1)

    first = made(gpt2, method, [EIFFEL], retriever="encoder", encoder=words)
    grown = made(gpt2, method, [JAPAN], memory=first)
    assert grown.settings["own_encoder"]
    assert [one.facts for (one,) in grown.routing(gpt2, [EIFFEL.text, JAPAN.text])] == [(EIFFEL.id,), (JAPAN.id,)]
    if method == "serac":
        assert grown.notes["scope"] == first.notes["scope"]
    for other in (letters, turned):
        with pytest.raises(EditError, match="other vectors by this encoder"):
            made(gpt2, method, [JAPAN], memory=first, encoder=other)
    first.save(tmp_path / "first.safetensors")
    with pytest.raises(EditError, match="no file holds; give it again"):
        made(gpt2, method, [JAPAN], memory=Edit.load(tmp_path / "first.safetensors"))


def test_numbers_of_an_encoder_may_be_of_any_width_and_kind() -> None:
    found = fitted(lambda texts: words(texts).double(), EXAMPLES)
    assert found.matrix.dtype == torch.float64
    assert found.report == pytest.approx(fitted(words, EXAMPLES).report, rel=1e-2)


@pytest.mark.parametrize(
    ("examples", "told"),
    [
        (EXAMPLES[:3], "of at least 8 subjects, got 3"),
        ([replace(fact, paraphrases=()) for fact in EXAMPLES], "of at least 8 subjects, got 0"),
    ],
)
def test_too_little_to_learn_from_is_refused(gpt2: Model, examples: list[Fact], told: str) -> None:
    with pytest.raises(InputError, match=told):
        made(gpt2, "serac", examples=examples)


def test_words_are_no_vectors(gpt2: Model) -> None:
    with pytest.raises(SettingError, match="SERAC's retriever is one of auto, keys and encoder, got 'bm25'"):
        made(gpt2, "serac", retriever="bm25")
    with pytest.raises(SettingError, match="SERAC acts on text and has no layers"):
        made(gpt2, "serac", layers=1)
