"""A trained editor is a method like any other: it keeps the contract, and is bound to its base."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from learned_examples import facts, trained
from safetensors.torch import load_file, save_file

import palimpsest as pal
from oracles.small import EIFFEL, FACTS, JAPAN, model_of
from palimpsest.edit import Dense, Edit, LowRank, check_editor
from palimpsest.edit.learned import Learned
from palimpsest.edit.registry import editor, method_names
from palimpsest.edit.sequence import EditSequence
from palimpsest.errors import EditError, FactError, SettingError, WeightError

QUICK: dict[str, dict[str, Any]] = {
    "mend": {"rank": 4, "steps": 4, "edit_rate": 1e-3},
    "ke": {"hidden": 8, "condition": 8, "steps": 8, "learning_rate": 1e-2, "margin": 1.0},
}


@pytest.fixture(scope="module")
def editors(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    """One of each for each family, trained once."""
    return {
        (family, method): trained(
            model_of(family), tmp_path_factory.mktemp(f"{family}-{method}"), method, **QUICK[method]
        )
        for family in ("gpt2", "llama")
        for method in QUICK
    }


@pytest.mark.parametrize("method", list(QUICK))
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_it_keeps_the_contract(family: str, method: str, editors: dict[tuple[str, str], Path]) -> None:
    path = editors[family, method]

    def make(model: pal.Model, asked: Sequence[pal.Fact]) -> Edit:
        return pal.edit(model, asked, method=method, editor=str(path))

    edit = check_editor(make, model_of(family), FACTS[:2], rank_per_fact=20)
    assert edit.method == method
    assert edit.settings["editor"] == Learned.load(model_of(family), path).card["identity"]
    assert len(edit.payloads) == (4 if family == "gpt2" else 6)
    assert [note["fact"] for note in edit.notes["facts"]] == ["eiffel", "japan"]
    assert method in method_names()


@pytest.mark.parametrize("method", list(QUICK))
def test_several_facts_are_the_sum_of_each_alone(method: str, editors: dict[tuple[str, str], Path]) -> None:
    model = model_of("llama")
    learned = Learned.load(model, editors["llama", method])
    both, eiffel, japan = (learned.change(asked)[0] for asked in (FACTS[:2], [EIFFEL], [JAPAN]))
    for path, (u, v) in both.items():
        alone = eiffel[path][0] @ eiffel[path][1] + japan[path][0] @ japan[path][1]
        torch.testing.assert_close(u @ v, alone, rtol=1e-3, atol=1e-3 * float(alone.abs().max()))


@pytest.mark.parametrize("method", list(QUICK))
def test_one_fact_has_a_rank_of_at_most_its_tokens(method: str, editors: dict[tuple[str, str], Path]) -> None:
    model = model_of("gpt2")
    edit = editor(model, method, editor=editors["gpt2", method]).edit([EIFFEL])
    tokens = edit.notes["facts"][0]["tokens"] + (method == "ke")
    for payload in edit.payloads:
        if isinstance(payload, LowRank):
            assert payload.rank <= tokens
        else:
            assert isinstance(payload, Dense)  # where factors would hold more numbers


def test_edits_go_on_one_after_the_other_on_the_edited_base(editors: dict[tuple[str, str], Path]) -> None:
    model = model_of("gpt2")
    path = editors["gpt2", "mend"]
    first = pal.edit(model, EIFFEL, method="mend", editor=path)
    with first.applied(model):
        second = pal.edit(model, JAPAN, method="mend", editor=path)
        assert second.weights != first.weights
        with second.applied(model):
            third = pal.edit(model, FACTS[2], method="mend", editor=path)
            assert len({str(e.weights) for e in (first, second, third)}) == 3
    assert Learned.load(model, path).edit([EIFFEL]).fingerprint() == first.fingerprint()


def test_another_base_is_refused(editors: dict[tuple[str, str], Path]) -> None:
    path = editors["gpt2", "mend"]
    with pytest.raises(WeightError, match=r"trained for another base .* train an editor for this one"):
        Learned.load(model_of("gpt2", seed=1), path)
    with pytest.raises(WeightError, match="trained for another base"):
        Learned.load(model_of("llama"), path)
    model = model_of("gpt2")
    with torch.no_grad():
        model.parameter("transformer.h.0.attn.c_attn.bias")[0] += 1  # below every map it edits
    with pytest.raises(WeightError, match="a weight it does not edit"):
        Learned.load(model, path)


def test_mistakes_of_the_file(editors: dict[tuple[str, str], Path], tmp_path: Path) -> None:
    model, path = model_of("gpt2"), editors["gpt2", "mend"]
    with pytest.raises(EditError, match="no trained editor .*make one with `palimpsest train`"):
        Learned.load(model, tmp_path / "none")
    half = tmp_path / "half.safetensors"
    half.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(EditError, match="is damaged"):
        Learned.load(model, half)
    other = tmp_path / "other.safetensors"
    save_file(load_file(path), other)
    with pytest.raises(EditError, match="is not a trained editor: its format is None"):
        Learned.load(model, other)
    edit = tmp_path / "edit.safetensors"
    pal.edit(model, EIFFEL, method="mend", editor=path).save(edit)
    with pytest.raises(EditError, match="its format is 'palimpsest-edit/1', expected 'palimpsest-editor/1'"):
        Learned.load(model, edit)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "MEND needs a trained editor: give editor=PATH, made by `palimpsest train mend"),
        ({"edtor": "x"}, "no setting 'edtor' .*Did you mean 'editor'"),
        ({"preset": "mend-2022"}, "has no preset 'mend-2022'; its settings are in the editor's file"),
        ({"layers": 1}, "no setting 'layers'"),
    ],
)
def test_mistakes_of_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        editor(model_of("gpt2"), "mend", **settings)


def test_mistakes_of_facts_and_methods(editors: dict[tuple[str, str], Path]) -> None:
    model, path = model_of("gpt2"), editors["gpt2", "mend"]
    with pytest.raises(SettingError, match="is a trained mend and not ke"):
        editor(model, "ke", editor=path)
    again = pal.Fact(EIFFEL.subject, EIFFEL.prompt, "Paris", "Berlin")
    with pytest.raises(EditError, match="contradict each other"):
        pal.edit(model, [EIFFEL, again], method="mend", editor=path)
    with pytest.raises(FactError, match="has no target_new"):
        pal.edit(model, pal.Fact("x", "{} is in", "Paris"), method="mend", editor=path)


def test_trained_editors_say_more_than_an_untrained_one(tmp_path: Path) -> None:
    """Facts of subjects that validated: the new answer after another wording becomes likelier by the edit."""
    model = model_of("gpt2")
    path = trained(model, tmp_path, steps=24, rank=8, edit_rate=1e-3, rate_rate=3e-3)
    fact = facts(30)[27]  # a subject that no training has seen
    batch = pal.model.pad([model.encode(fact.paraphrases[0]).ids])
    token = model.encode_answer(fact.paraphrases[0], str(fact.target_new))
    wanted = token[0][token[1]]
    before = model.last_logits(batch).log_softmax(-1)[0, wanted]
    with pal.edit(model, fact, method="mend", editor=path).applied(model):
        after = model.last_logits(batch).log_softmax(-1)[0, wanted]
    assert float(after) > float(before) + 0.3


@pytest.mark.parametrize("mode", ["each", "batch", "sequence"])
def test_it_is_evaluated_beside_its_random_control(
    mode: str, editors: dict[tuple[str, str], Path], tmp_path: Path
) -> None:
    model, path = model_of("gpt2"), editors["gpt2", "mend"]
    asked = facts(30)[24:28]
    given: dict[str, Any] = {"editor": path, "mode": mode}
    scores = pal.evaluate(model, asked, method="mend", out=tmp_path / "run", **given)
    control = pal.evaluate(model, asked, method="random", like="mend", **given)
    es, chance = scores.estimate("es"), control.estimate("es")
    assert es is not None
    assert chance is not None
    assert es.n == chance.n == len(asked)
    assert not model.applied


def test_a_sequence_is_saved_and_goes_on(editors: dict[tuple[str, str], Path], tmp_path: Path) -> None:
    path = editors["gpt2", "mend"]
    model = model_of("gpt2")
    sequence = EditSequence(model, "mend", editor=path)
    sequence.extend([EIFFEL])
    sequence.save(tmp_path)
    loaded = EditSequence.load(model, tmp_path, editor=path)
    for going_on in (sequence, loaded):
        going_on.extend([JAPAN])
    assert sequence.edit is not None
    assert loaded.edit is not None
    assert sequence.edit.fingerprint() == loaded.edit.fingerprint()
    assert [fact.id for fact in loaded.edit.facts] == ["eiffel", "japan"]
