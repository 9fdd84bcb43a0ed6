"""ROME against the textbook version, and that W' k* = v* once the edit is in the model."""

from dataclasses import replace

import pytest
import torch

import palimpsest as pal
from families import SAMPLE
from oracles.small import CONTEXTS, EIFFEL, FACTS, JAPAN, LAYER, documents, down_of, model_of, moment_of, smollm2
from oracles.textbook_rome import textbook_rome
from palimpsest.edit import Dense, LowRank, SecondMoment
from palimpsest.edit.keys import combine, keys_and_values
from palimpsest.edit.methods.rome import Rome
from palimpsest.edit.values import find_values
from palimpsest.facts import Fact
from palimpsest.locate.answers import answer_nll
from palimpsest.model import Model, Site


def rome(model: Model, preset: str, moment: SecondMoment, **settings: object) -> Rome:
    """ROME with the contexts of `small`, which the textbook takes too."""
    editor = Rome(model, preset=preset, moments={LAYER: moment}, layers=(LAYER,), contexts=((5, 1),), **settings)
    editor.contexts = CONTEXTS
    return editor


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-9)])
@pytest.mark.parametrize("preset", ["fixed", "rome-2022"])
@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox_parallel"])
def test_rome_is_the_textbook_rome(family: str, preset: str, dtype: torch.dtype, tolerance: float) -> None:
    model = model_of(family, dtype=dtype)
    moment = moment_of(model)
    editor = rome(model, preset, moment)
    for fact in FACTS:
        edit = editor.edit([fact])
        down = down_of(model, family)
        book = textbook_rome(model.net, model.tokenizer, down, fact, CONTEXTS, moment.matrix, preset=preset)
        (payload,), (note,) = edit.payloads, edit.notes["facts"]
        assert isinstance(payload, LowRank)
        update = payload.u.double() @ payload.v.double()
        stored = max(tolerance, 1e-6)  # factors are float32
        assert float((update - book.update).norm()) <= stored * float(book.update.norm())
        assert note["steps"] == book.steps
        assert note["loss"] == pytest.approx(book.loss, rel=tolerance)
        assert note["delta_norm"] == pytest.approx(float(book.delta.norm()), rel=tolerance)
        assert note["v_norm"] == pytest.approx(float(book.value.norm()), rel=tolerance)
        whitened = float(book.key.double() @ torch.linalg.solve(moment.matrix, book.key.double()))
        assert note["key_whitened_norm"] == pytest.approx(whitened, rel=1e-4)


@pytest.mark.parametrize("preset", ["fixed", "rome-2022"])
@pytest.mark.parametrize("family", [*SAMPLE, "gpt_neox_parallel"])
def test_the_edited_weight_maps_the_key_to_the_value(family: str, preset: str) -> None:
    model = model_of(family)
    editor = rome(model, preset, moment_of(model), steps=5)
    edit = editor.edit([JAPAN])
    weighting = Rome.presets[preset].key
    assert weighting == ("bare" if preset == "rome-2022" else "halves")
    keys, values = keys_and_values(model, LAYER, JAPAN, CONTEXTS)
    key, value = combine(keys, weighting), combine(values, weighting)
    (found,) = find_values(
        model, Site("value", LAYER), [JAPAN], CONTEXTS, [float(value.norm())], editor.settings.values
    )
    assert float(found.delta.norm()) > 0.1
    with edit.applied(model):
        keys, values = keys_and_values(model, LAYER, JAPAN, CONTEXTS)
    torch.testing.assert_close(combine(keys, weighting), key)  # nothing below the edit moved
    wanted = value + found.delta
    assert float((combine(values, weighting) - wanted).norm()) <= 1e-4 * float(wanted.norm())


def test_edits_of_a_sequence_are_made_on_the_model_as_edited_so_far() -> None:
    model = model_of("llama")
    moment = moment_of(model)
    editor = rome(model, "fixed", moment, steps=6)
    together = editor.edit(FACTS)
    assert [fact.id for fact in together.facts] == [fact.id for fact in FACTS]
    assert [note["fact"] for note in together.notes["facts"]] == [fact.id for fact in FACTS]
    (payload,) = together.payloads
    assert isinstance(payload, LowRank)
    assert payload.rank == 3
    with torch.no_grad():
        other, base = model_of("llama"), replace(moment, provenance={})  # which is that of the unedited model
        for fact in FACTS:
            one = rome(other, "fixed", base, steps=6).edit([fact])
            path = one.payloads[0].path
            other.parameter(path).copy_(one.payloads[0].new_weight(other, 1.0))
    with together.applied(model):
        torch.testing.assert_close(model.parameter(path), other.parameter(path), rtol=0, atol=2e-5)
    assert model.fingerprint() == model_of("llama").fingerprint()


def test_more_facts_than_the_smaller_side_do_not_make_a_larger_file() -> None:
    model = model_of("gpt2")
    facts = [replace(EIFFEL, subject=f"Tower {i}", id=f"tower{i}") for i in range(40)]
    edit = rome(model, "fixed", moment_of(model), steps=1, learning_rate=0.1).edit(facts)
    assert isinstance(edit.payloads[0], Dense)  # fewer numbers than factors of rank 32
    assert len(edit.facts) == 40


def test_one_fact_need_not_stand_in_a_list() -> None:
    model = model_of("gpt2")
    edit = pal.edit(model, EIFFEL, layers=LAYER, steps=2, text=documents(), contexts=((5, 1),))
    assert edit.method == "rome"
    assert edit.facts == (EIFFEL,)
    assert edit.settings["preset"] == "fixed"
    assert edit.settings["layers"] == [LAYER]
    assert edit.settings["moments"][str(LAYER)]["count"] == 480


def test_settings_of_both_kinds_reach_the_search() -> None:
    model = model_of("gpt2")
    edit = pal.edit(model, EIFFEL, layers=(2,), moments={2: SecondMoment.identity(48)}, key="bare", direction="mean", steps=3,
                    contexts=((5, 1),), clamp=0.001)  # fmt: skip
    (note,) = edit.notes["facts"]
    assert note["steps"] == 3
    assert note["delta_norm"] <= 0.001 * note["v_norm"] * 1.001
    assert edit.payloads[0].path == "transformer.h.2.mlp.c_proj.weight"
    assert (edit.settings["key"], edit.settings["values"]["clamp"]) == ("bare", 0.001)


def test_it_works_under_no_grad_and_in_training_mode() -> None:
    model = model_of("gpt2")
    moment = moment_of(model)
    quiet = rome(model, "fixed", moment, steps=4).edit([EIFFEL])
    model.net.train()
    with torch.no_grad():
        other = rome(model, "fixed", moment, steps=4).edit([EIFFEL])
    assert torch.equal(other.payloads[0].u, quiet.payloads[0].u)
    assert model.net.training


def test_smollm2_is_told_that_the_tower_is_in_rome() -> None:
    model = smollm2()
    fact = Fact("Eiffel Tower", "The {} is located in the city of", "Paris", "Rome")
    moment = SecondMoment.identity(1536)
    edit = pal.edit(model, fact, layers=9, moments={9: moment}, steps=12, contexts=((5, 1),), decay=0.0, stop_below=0.3)
    keys, values = keys_and_values(model, 9, fact, edit.settings["context_texts"])
    with edit.applied(model):
        new, old = answer_nll(model, [(fact.text, "Rome"), (fact.text, "Paris")])
        moved = keys_and_values(model, 9, fact, edit.settings["context_texts"])[1] - values
    assert new < 1 < old
    change = float(combine(moved, "halves").norm())
    assert change == pytest.approx(edit.notes["facts"][0]["delta_norm"], rel=1e-4)
    assert len(keys) == 2
