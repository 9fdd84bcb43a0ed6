"""Contexts and keys: seeded, harmless whatever the model wrote, and read at the subject's last token."""

import unicodedata

import pytest
import torch

import palimpsest as pal
from families import SAMPLE, byte_tokenizer
from oracles.small import CONTEXTS, EIFFEL, FACTS, JAPAN, LAYER, documents, down_of, model_of, precision_of
from oracles.textbook_trace import find_token_range
from palimpsest.edit.contexts import sample_contexts
from palimpsest.edit.keys import combine, edited_token, keys_and_values
from palimpsest.edit.methods.rome import Rome
from palimpsest.facts import Fact

MODEL = model_of("llama", tokenizer=byte_tokenizer(bos=True))


def test_contexts_come_from_their_seed() -> None:
    first = sample_contexts(MODEL, ((5, 3), (10, 2)), seed=1)
    torch.manual_seed(9)
    assert sample_contexts(MODEL, ((5, 3), (10, 2)), seed=1) == first
    assert sample_contexts(MODEL, ((5, 3), (10, 2)), seed=2) != first
    assert len(first) == 6
    assert first[0] == ""
    assert all(text.endswith(". ") for text in first[1:])


def test_openings_are_taken_in_turn() -> None:
    texts = sample_contexts(MODEL, ((6, 4),), openings=("The", "Therefore"), seed=0)
    assert [text.startswith("Therefore") for text in texts[1:]] == [False, True, False, True]
    assert all(text.startswith("The") for text in texts[1:])


@pytest.mark.parametrize("openings", [(), ("The", "Because", "I")])
def test_contexts_are_those_of_whole_texts_run_again_for_every_token(openings: tuple[str, ...]) -> None:
    rows = [list(MODEL.encode(word).ids) for word in openings or [""]]
    rows, draw = [rows[i % len(rows)] for i in range(4)], torch.Generator().manual_seed(2)
    while min(len(row) for row in rows) < 20:
        logits = [MODEL.net(input_ids=torch.tensor([row])).logits[0, -1] for row in rows]
        best = torch.stack(logits).topk(5)
        choice = torch.multinomial(best.values.softmax(-1), 1, generator=draw)
        rows = [[*row, int(best.indices[i, choice[i, 0]])] for i, row in enumerate(rows)]
    texts = [MODEL.tokenizer.decode(row, skip_special_tokens=True).replace("\n\n", " ") for row in rows]
    found = sample_contexts(MODEL, ((20, 4),), openings=openings, seed=2)[1:]
    assert [text.removesuffix(". ") for text in found] == [unicodedata.normalize("NFKD", text) for text in texts]
    assert len(set(texts)) == 4


def test_dropout_is_off_meanwhile() -> None:
    model = model_of("gpt2")
    quiet = sample_contexts(model, ((10, 3),))
    model.net.train()
    assert sample_contexts(model, ((10, 3),)) == quiet
    assert model.net.training


@pytest.mark.parametrize("context", [*CONTEXTS, "{", "}} {0} {name} %s ", "Eiffel Tower. "])
@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: fact.id)
def test_the_edited_tokens_where_decoding_says_it_ends(context: str, fact: Fact) -> None:
    ids, last = edited_token(MODEL, context, fact)
    assert MODEL.tokenizer.decode(ids, skip_special_tokens=True) == context + fact.text
    decoded = [MODEL.tokenizer.decode(ids[: k + 1], skip_special_tokens=True) for k in range(len(ids))]
    until = context + fact.text[: fact.subject_span[1]]
    assert last == min(k for k, text in enumerate(decoded) if text.startswith(until))


@pytest.mark.parametrize("family", [*SAMPLE, "gpt_neox_parallel"])
def test_keys_and_values_are_what_goes_in_and_out_of_the_down_projection(family: str) -> None:
    dtype, tolerance = precision_of(family)
    model = model_of(family, dtype=dtype)
    keys, values = keys_and_values(model, LAYER, JAPAN, CONTEXTS)
    for i, context in enumerate(CONTEXTS):
        seen: list[tuple[torch.Tensor, torch.Tensor]] = []
        handle = down_of(model, family).register_forward_hook(  # copies, for Falcon adds to the output in place
            lambda module, a, b, seen=seen: seen.append((a[0].clone(), b.clone()))
        )
        ids = model.tokenizer(context + JAPAN.text).input_ids
        with torch.no_grad():
            model.net(input_ids=torch.tensor([ids]))
        handle.remove()
        last = find_token_range(model.tokenizer, ids, JAPAN.subject)[1] - 1
        key, value = (x.reshape(len(ids), -1)[last] for x in seen[0])
        torch.testing.assert_close(keys[i], key, rtol=0, atol=tolerance)
        torch.testing.assert_close(values[i], value, rtol=0, atol=tolerance)


def test_ways_to_combine_keys() -> None:
    rows = torch.tensor([[1.0], [2.0], [6.0]])
    assert combine(rows, "bare").item() == 1
    assert combine(rows, "mean").item() == 3
    assert combine(rows, "halves").item() == 2.5
    assert combine(rows[:1], "halves").item() == 1


def test_an_edit_records_its_contexts_and_braces_do_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    few = {"layers": LAYER, "steps": 2, "text": documents()}
    edit = pal.edit(MODEL, EIFFEL, contexts=((5, 2),), seed=3, **few)
    texts = sample_contexts(MODEL, ((5, 2),), openings=("The", "Therefore", "Because", "I", "You"), seed=3)
    assert edit.settings["context_texts"] == list(texts)
    editor = Rome(MODEL, contexts=((5, 1),), layers=(LAYER,), steps=2, text=documents())
    monkeypatch.setattr(editor, "contexts", ("", "{} {0} {{ %s. "))
    edit = editor.edit([Fact("Japan", "{{ The capital }} of {} is", "Tokyo", "Kyoto")])
    assert edit.settings["context_texts"][1] == "{} {0} {{ %s. "
