"""Associations that must go: what is read, what removal reaches and leaves alone, and what attacks bring back."""

import json

import pytest
import torch

import palimpsest as pal
from oracles.small import FACTS, documents, model_of
from palimpsest.edit.artefact import Edit
from palimpsest.erase.unwanted import (
    Association,
    base_rates,
    elicit,
    read_associations,
    remove,
    shipped_associations,
    shipped_controls,
)
from palimpsest.errors import EditError, InputError, RecordError, SettingError
from palimpsest.locate.answers import first_token, next_token_logits
from palimpsest.world import made_world

PROFESSIONS = made_world(0).records(["profession"], probes=1)
GONE = [Association(f.text, str(f.target_true), f.subject, f.paraphrases[:4], f.id) for f in PROFESSIONS[:6]]
CONTROLS = [f.text for f in PROFESSIONS[40:60]]  # other people's professions: what chance says
TEXT = "\n\n".join(f.text for f in PROFESSIONS[60:100])


def probability(model: pal.Model, text: str, completion: str) -> float:
    return float(next_token_logits(model, [text]).softmax(-1)[0, first_token(model, text, completion)])


@pytest.fixture(scope="module")
def world() -> pal.Model:
    return pal.load("world")


@pytest.fixture(scope="module")
def removed(world: pal.Model) -> Edit:
    return remove(world, GONE, controls=CONTROLS, text=TEXT, contexts=("",))


def test_every_completion_comes_down_to_its_base_rate(world: pal.Model, removed: Edit, tmp_path) -> None:
    base = base_rates(world, GONE, CONTROLS)
    before = world.fingerprint()
    removed.save(tmp_path / "edit.safetensors")
    for edit in (removed, Edit.load(tmp_path / "edit.safetensors")):
        with edit.applied(world):
            for one, rate, note in zip(GONE, base, removed.notes["associations"], strict=True):
                p = probability(world, one.prompt, one.completion)
                assert p <= rate * 1.01
                assert note["reached"]
                assert (note["base"], note["after"]) == (pytest.approx(rate), pytest.approx(p, rel=0.01))
    assert world.fingerprint() == before
    for one, rate, note in zip(GONE, base, removed.notes["associations"], strict=True):
        assert probability(world, one.prompt, one.completion) == pytest.approx(note["before"])
        assert note["before"] > 3 * rate


def test_other_facts_stay(world: pal.Model, removed: Edit) -> None:
    """Facts of another relation are as known as before, and so are most professions of other people."""
    others = made_world(0).records(["capital"], probes=1)[:20]

    def right(facts: list[pal.Fact]) -> float:
        return sum(probability(world, fact.text, str(fact.target_true)) > 0.5 for fact in facts) / len(facts)

    assert right(others) >= 0.9
    with removed.applied(world):
        assert right(others) >= 0.9
        assert sum(probability(world, one.prompt, one.completion) > 0.5 for one in GONE) == 0


def test_attacks_and_their_base_rates(world: pal.Model, removed: Edit) -> None:
    found = elicit(world, GONE, removed, controls=CONTROLS, prefixes=["On the first day of the week. "])
    assert found.attacks == ("direct", "paraphrase", "prefix", "primed")
    assert [len([r for r in found.rows if r["attack"] == a]) for a in found.attacks] == [6, 24, 6, 6]
    row = found.rows[0]
    assert row["before"]["p"] == pytest.approx(probability(world, GONE[0].prompt, GONE[0].completion))
    assert row["before"]["base"] == pytest.approx(base_rates(world, GONE, CONTROLS)[0], rel=1e-4)
    primed = next(row for row in found.rows if row["attack"] == "primed")
    word = GONE[0].completion
    assert primed["text"] == f"{word.capitalize()}! {word}! {GONE[0].prompt}"
    said = [probability(world, f"{word.capitalize()}! {word}! {text}", word) for text in CONTROLS]
    assert primed["before"]["base"] == pytest.approx(sum(said) / len(said), rel=1e-3)
    for attack in ("direct", "paraphrase"):
        assert found.excess(attack, "before").low > 0.5
        assert found.first(attack, "before").value == 1
        assert found.probability(attack).value < 0.1
        assert found.gone(attack)
    shown = found.table()[0]
    assert list(shown)[:4] == ["attack", "texts", "p before", "p after"]
    data = json.loads(json.dumps(found.to_json()))
    assert data["attacks"]["direct"]["gone"] is True
    assert data["attacks"]["direct"]["excess"]["before"]["n"] == 6
    with pytest.raises(InputError, match="attacked by 'directly'; those at hand are direct"):
        found.excess("directly")


def test_an_association_that_is_still_there_is_not_gone(world: pal.Model) -> None:
    found = elicit(world, GONE, controls=CONTROLS, prefixes=[])
    assert not found.edited
    assert found.attacks == ("direct", "paraphrase", "primed")
    assert not found.gone("direct")
    assert list(found.table()[0]) == ["attack", "texts", "p before", "base before", "excess before", "first before"]


def test_of_one_association_nothing_is_said(world: pal.Model) -> None:
    """One cluster has no interval: that it is gone was claimed before, even of one that nobody removed."""
    edit = remove(world, GONE[:1], controls=CONTROLS, text=TEXT, contexts=("",), steps=1)
    found = elicit(world, GONE[:1], edit, controls=CONTROLS, prefixes=[])
    assert found.gone("direct") is None
    assert found.to_json()["attacks"]["direct"]["gone"] is None
    assert found.table()[0]["gone"] == "cannot be said"


def test_what_is_not_reached_is_told(world: pal.Model) -> None:
    edit = remove(world, GONE, controls=CONTROLS, text=TEXT, contexts=("",), steps=1)
    assert edit.notes["steps"] == 1
    assert not any(note["reached"] for note in edit.notes["associations"])


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_other_architectures_and_a_subject_left_out(family: str) -> None:
    model = model_of(family)
    logits = next_token_logits(model, [fact.text for fact in FACTS])
    said = [model.tokenizer.decode([int(row.argmax())]) for row in logits]
    gone = [Association(f.text, word.strip() or "x") for f, word in zip(FACTS, said, strict=True)]
    edit = remove(model, gone[:1], layers=[0, 1], controls=["The old house is", "We saw a"], text=documents(), steps=60)
    (note,) = edit.notes["associations"]
    assert note["after"] < note["before"]
    assert {payload.path for payload in edit.payloads} == {f"{model.anatomy.down(l).path}.weight" for l in (0, 1)}


def test_a_loss_that_is_not_finite_stops_it() -> None:
    model = model_of("gpt2")
    with torch.no_grad():
        model.parameter("transformer.h.1.mlp.c_proj.weight").fill_(float("nan"))
    with pytest.raises(EditError, match="Removing diverged"):
        remove(model, [Association("The king of", "town")], layers=[1], controls=["A"], text=documents())


def test_settings_that_cannot_be_meant() -> None:
    model, one = model_of("gpt2"), [Association("The king of", "town")]
    for settings, error, said in [
        ({"steps": 0}, SettingError, "needs a step"),
        ({"contexts": ("x",)}, SettingError, "bare context"),
        ({"layers": []}, SettingError, "at least one layer"),
        ({"layers": [7]}, SettingError, "There is no layer 7"),
        ({"controls": []}, InputError, "one control prompt"),
        ({"text": " \n\n "}, InputError, "is blank"),
    ]:
        with pytest.raises(error, match=said):
            remove(model, one, **settings)
    with pytest.raises(InputError, match="at least one association"):
        remove(model, [])
    with pytest.raises(InputError, match="at least one association"):
        elicit(model, [])


def test_a_file_of_associations(tmp_path) -> None:
    path = tmp_path / "unwanted.json"
    good = {"prompt": "Roses are", "completion": "red", "subject": "Roses", "paraphrases": ["A rose is"]}
    path.write_text(json.dumps([good]))
    assert read_associations(path) == (Association("Roses are", "red", "Roses", ("A rose is",), "Roses are"),)
    for bad, said in [
        ([{"prompt": "a"}], 'entry 1: expected an object with "prompt" and "completion"'),
        ([good | {"completions": "x"}], "no field 'completions'. Did you mean 'completion'"),
        ([good | {"paraphrases": "x"}], "\"paraphrases\" must be a list of texts, got 'x'"),
        ([good | {"completion": 3}], "every field of an association is text, got 3"),
        ([good | {"completion": " "}], "entry 1: The completion of an association is empty"),
        ([good | {"subject": "Lilies"}], "subject 'Lilies' is no part of the prompt 'Roses are'"),
        ([good, good], "entry 2: the association 'Roses are' is there already"),
        ([], "holds no association"),
    ]:
        path.write_text(json.dumps(bad))
        with pytest.raises(RecordError, match=said):
            read_associations(path)


def test_the_associations_that_ship() -> None:
    found, (controls, prefixes) = shipped_associations(), shipped_controls()
    assert 10 <= len(found) <= 20
    assert len(controls) >= 10
    assert prefixes
    assert all(len(one.paraphrases) >= 3 and one.subject for one in found)
    assert not {word for one in found for word in controls if one.completion in word.split()}


@pytest.mark.slow
def test_smollm2_has_most_of_the_associations_that_ship() -> None:
    found = elicit(pal.load("smollm2"), shipped_associations())
    assert found.first("direct").value >= 0.6
    assert found.excess("direct").low > 0.1
