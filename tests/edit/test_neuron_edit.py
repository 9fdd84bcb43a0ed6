"""The neuron edit against the published loop, column by column, and what `fixed` changes in it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import palimpsest as pal
from families import byte_tokenizer
from oracles.small import EIFFEL, FACTS, JAPAN, LAYER, down_of, model_of
from oracles.textbook_neuron_edit import textbook_erase, textbook_neuron_edit
from palimpsest.edit import Edit, LowRank, check_editor
from palimpsest.edit.methods.neurons import PRESETS, NeuronEdit
from palimpsest.errors import EditError, FactError, SettingError
from palimpsest.locate import KnowledgeNeurons, knowledge_neurons
from palimpsest.model import Model
from palimpsest.model.anatomy import matrix_of

FEW = {"attribution_steps": 4}


def found_at(
    fact: pal.Fact, places: Sequence[tuple[int, int]], keys: Sequence[float] | None = None
) -> KnowledgeNeurons:
    """Neurons set by hand, the first the strongest."""
    n = len(places)
    strength = tuple(1.0 - 0.1 * i for i in range(n))
    return KnowledgeNeurons(
        fact,
        tuple(places),
        strength,
        tuple(keys or [1.0] * n),
        (1,) * n,
        0.7,
        (n,),
        1.0,
        1.0,
        0.0,
        True,
        (48,) * 3,
        (),
        {},
    )


def first_row(model: Model, fact: pal.Fact, answer: str | None, weight: torch.Tensor) -> torch.Tensor:
    ids, begin = model.encode_answer(fact.text, str(answer))
    return weight[ids[begin]].detach()


@pytest.mark.parametrize("preset", ["dai-2022", "eleuther"])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_published_presets_are_the_published_loop(family: str, preset: str) -> None:
    model = model_of(family)
    editor = NeuronEdit(model, preset=preset, most=100)
    edit = editor.edit([EIFFEL])
    found = knowledge_neurons(model, EIFFEL, preset=preset)
    assert found.neurons
    embedding = model.net.get_input_embeddings().weight
    old, new = (first_row(model, EIFFEL, answer, embedding) for answer in ("Paris", "Rome"))
    lambdas = {"dai-2022": (1.0, 8.0), "eleuther": (2.0, 2.0)}[preset]
    layers = {layer for layer, _ in found.neurons}
    assert [payload.path for payload in edit.payloads] == [
        f"{model.anatomy.down(layer).path}.weight" for layer in sorted(layers)
    ]
    with edit.applied(model):
        applied = {layer: down_of(model, family, layer).weight.detach().clone() for layer in layers}
    for layer in layers:
        own = [n for l, n in found.neurons if l == layer]
        book = textbook_neuron_edit(down_of(model, family, layer), own, old, new, *lambdas)
        torch.testing.assert_close(applied[layer], book)
    assert sum(payload.rank for payload in edit.payloads) == len(found.neurons)
    assert edit.notes["facts"][0]["norm"] == pytest.approx(edit.norm, rel=1e-5)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_erased_columns_are_exactly_zero_and_no_other_moves(family: str) -> None:
    model = model_of(family)
    edit = NeuronEdit(model, mode="erase").write([found_at(EIFFEL, [(1, 3), (1, 40)]), found_at(JAPAN, [(1, 3)])])
    book = textbook_erase(down_of(model, family, 1), [3, 40])
    with edit.applied(model):
        assert torch.equal(down_of(model, family, 1).weight, book)
    (payload,) = edit.payloads
    assert payload.rank == 2  # the neuron that both facts share is erased once


def test_erased_to_the_unknown_token() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.unk_token = "</s>"
    model = model_of("llama", tokenizer=tokenizer)
    edit = NeuronEdit(model, mode="erase", erase_to="unknown", embedding="input").write([found_at(EIFFEL, [(0, 7)])])
    unknown = model.net.get_input_embeddings().weight[tokenizer.unk_token_id]
    with edit.applied(model):
        torch.testing.assert_close(matrix_of(model.anatomy.down(0).module)[:, 7], unknown)
    with pytest.raises(SettingError, match="has no unknown token; use erase_to='zero'"):
        NeuronEdit(model_of("llama"), mode="erase", erase_to="unknown")


def test_erasing_asks_for_no_new_answer(tmp_path: Path) -> None:
    model = model_of("gpt2")
    bare = [replace(EIFFEL, target_new=None), replace(EIFFEL, target_new="Oslo", id="other")]
    edit = NeuronEdit(model, mode="erase", **FEW).edit(bare)
    alone = NeuronEdit(model, mode="erase", **FEW).edit([EIFFEL])
    assert edit.norm == pytest.approx(alone.norm)  # the same neurons, erased once
    assert edit.norm > 0
    edit.save(tmp_path / "edit.safetensors")
    assert Edit.load(tmp_path / "edit.safetensors").facts == edit.facts
    with pytest.raises(FactError, match="no target_new"):
        NeuronEdit(model, **FEW).edit(bare[:1])
    with pytest.raises(FactError, match="target_true"):
        NeuronEdit(model, mode="erase", **FEW).edit([replace(EIFFEL, target_true=None)])
    with pytest.raises(EditError, match="no fact to erase"):
        NeuronEdit(model, mode="erase").edit([])
    with pytest.raises(EditError, match="Two facts have the id"):
        NeuronEdit(model, mode="erase").edit([bare[0], replace(JAPAN, id=EIFFEL.id)])


def test_the_card_says_which_layers_and_a_seed_changes_nothing() -> None:
    model = model_of("gpt2")
    card = NeuronEdit(model, seed=3).card
    assert (card["seed"], card["layers_from"]) == (3, "not chosen: the layers of the neurons found")
    assert NeuronEdit(model, layers=(1,)).card["layers_from"] == "given"
    one, other = (NeuronEdit(model, seed=seed, **FEW).edit([EIFFEL]) for seed in (0, 1))
    for payload, again in zip(one.payloads, other.payloads, strict=True):
        assert all(torch.equal(tensor, again.tensors()[name]) for name, tensor in payload.tensors().items())


def test_the_fixed_change_is_counted_in_columns_and_has_the_sign_of_the_key() -> None:
    model = model_of("gpt2")
    editor = NeuronEdit(model, lambda_old=0.0, lambda_new=2.0)
    (payload,) = editor.write([found_at(EIFFEL, [(1, 5), (1, 9)], [0.5, -0.25])]).payloads
    assert isinstance(payload, LowRank)
    columns = matrix_of(model.anatomy.down(1).module)[:, [5, 9]]
    new = first_row(model, EIFFEL, "Rome", model.net.get_output_embeddings().weight)
    torch.testing.assert_close(payload.u.norm(dim=0), 2 * columns.norm(dim=0))
    cosine = torch.nn.functional.cosine_similarity(payload.u, new[:, None], dim=0)
    torch.testing.assert_close(cosine, torch.tensor([1.0, -1.0]))
    assert torch.equal(payload.v.argmax(dim=1), torch.tensor([5, 9]))
    assert torch.equal(payload.v.sum(dim=1), torch.ones(2))


def test_it_makes_the_new_answer_likelier_through_the_neurons_it_changes() -> None:
    """In the last layer a change of a column, times a positive key, goes straight to the head."""
    model = model_of("gpt2")
    found = knowledge_neurons(model, EIFFEL)
    assert any(layer == 2 for layer, _ in found.neurons)
    edit = NeuronEdit(model, layers=(2,), lambda_new=3.0).write([found])
    ids, begin = model.encode_answer(EIFFEL.text, "Rome")
    batch = pal.model.pad([ids[:begin]])
    before = model.last_logits(batch).log_softmax(-1)[0, ids[begin]]
    with edit.applied(model):
        after = model.last_logits(batch).log_softmax(-1)[0, ids[begin]]
    assert after > before + 1


def test_facts_add_up_where_they_share_a_neuron() -> None:
    model = model_of("llama")
    editor = NeuronEdit(model)
    one, other = found_at(EIFFEL, [(1, 3), (2, 4)]), found_at(JAPAN, [(1, 3), (1, 8)])
    both = editor.write([one, other])
    single = [editor.write([found]) for found in (one, other)]
    down = down_of(model, "llama", 1)
    changes = [
        sum((p.u @ p.v for p in edit.payloads if p.path == f"{model.anatomy.down(1).path}.weight"), 0 * down.weight)
        for edit in (both, *single)
    ]
    torch.testing.assert_close(changes[0], changes[1] + changes[2])
    assert [payload.rank for payload in both.payloads] == [2, 1]
    assert [note["neurons"] for note in both.notes["facts"]] == [[[1, 3], [2, 4]], [[1, 3], [1, 8]]]


def test_the_strongest_neurons_of_the_layers_asked_for_are_taken() -> None:
    model = model_of("gpt2")
    found = found_at(EIFFEL, [(0, 1), (1, 2), (2, 3), (1, 4)])
    notes = NeuronEdit(model, layers=(1, 2), most=2).write([found]).notes["facts"]
    assert notes[0]["neurons"] == [[1, 2], [2, 3]]


def test_more_neurons_than_the_smaller_side_do_not_make_a_larger_file() -> None:
    model = model_of("llama")
    (payload,) = NeuronEdit(model, most=48).write([found_at(EIFFEL, [(1, n) for n in range(40)])]).payloads
    assert sum(tensor.numel() for tensor in payload.tensors().values()) <= 32 * 48
    (few,) = NeuronEdit(model, most=4).write([found_at(EIFFEL, [(1, n) for n in range(40)])]).payloads
    assert isinstance(few, LowRank)
    assert few.rank == 4


def test_the_mean_over_the_tokens_of_an_answer() -> None:
    model = model_of("gpt2")
    ids, begin = model.encode_answer(JAPAN.text, str(JAPAN.target_new))
    rows = model.net.get_output_embeddings().weight[list(ids[begin:])]
    mean = NeuronEdit(model, answer="mean").embedding_of(JAPAN, JAPAN.target_new)
    torch.testing.assert_close(mean, rows.mean(0))
    assert len(ids) - begin > 3
    assert torch.equal(NeuronEdit(model).embedding_of(JAPAN, JAPAN.target_new), rows[0])


@pytest.mark.parametrize("preset", list(PRESETS))
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_it_keeps_the_contract(family: str, preset: str) -> None:
    def make(model: pal.Model, facts: Sequence[pal.Fact]) -> Edit:
        return pal.edit(model, facts, method="neurons", preset=preset, **FEW)

    edit = check_editor(make, model_of(family), FACTS[:2], rank_per_fact=10)
    assert edit.settings["preset"] == preset
    assert edit.settings["lambda_new"] == PRESETS[preset].lambda_new


def test_progress_is_told() -> None:
    seen: list[tuple[int, int, str]] = []
    NeuronEdit(model_of("gpt2"), progress=lambda *one: seen.append(one), **FEW).edit(FACTS[:2])
    assert seen == [(1, 2, "eiffel"), (2, 2, "japan")]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mode": "add"}, r"mode is one of edit and erase, got 'add'"),
        ({"scale": "key"}, r"scale is one of column and embedding"),
        ({"most": 0}, r"most must be 1 or more"),
        ({"lambda_new": -1.0}, r"lambda_new must be 0 or more"),
        ({"preset": "dai-2021"}, r"no preset 'dai-2021'. Did you mean 'dai-2022'"),
        ({"layers": (5,)}, r"no layer 5"),
        ({"text": ""}, r"no setting 'text'"),
    ],
)
def test_mistakes_in_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        NeuronEdit(model_of("gpt2"), **settings)


def test_a_fact_without_an_old_answer_or_without_neurons_is_refused() -> None:
    model = model_of("gpt2")
    with pytest.raises(FactError, match="no target_true"):
        NeuronEdit(model).edit([replace(EIFFEL, target_true=None)])
    with pytest.raises(EditError, match=r"No knowledge neuron was found for 'The Eiffel Tower"):
        NeuronEdit(model).write([found_at(EIFFEL, [])])
    with pytest.raises(EditError, match="No knowledge neuron"):
        NeuronEdit(model, layers=(0,)).write([found_at(EIFFEL, [(1, 2)])])


def test_an_embedding_narrower_than_the_stream_is_refused() -> None:
    model = model_of("opt_post_norm")
    assert isinstance(model.net.get_input_embeddings(), nn.Embedding)
    with pytest.raises(EditError, match="24 wide and its stream 32"):
        NeuronEdit(model, embedding="input").write([found_at(EIFFEL, [(1, 2)])])


def test_the_layer_of_these_tests_has_neurons() -> None:
    assert any(layer == LAYER for layer, _ in knowledge_neurons(model_of("gpt2"), EIFFEL).neurons)
