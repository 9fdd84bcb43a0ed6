"""`palimpsest world`: facts as records that other commands read, training that goes on, mistakes in one sentence."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from palimpsest.facts import read_facts
from palimpsest.model.packaged import packaged_folder
from palimpsest.statistics import proportion
from palimpsest.world import WorldKnowledge, made_world
from palimpsest.world.recipes import RECIPES
from palimpsest.world.vocabulary import trained_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return trained_tokenizer(400)


@pytest.fixture
def small(monkeypatch, tokenizer):
    """The recipe of `world`, small enough to train in a second."""
    tiny = replace(
        RECIPES["world"], layers=1, width=16, heads=2, window=32, vocabulary=400, batch=2, steps=4, warm_up=1
    )
    monkeypatch.setitem(RECIPES, "world", tiny)
    monkeypatch.setattr("palimpsest.world.train.trained_tokenizer", lambda size: tokenizer)
    return tiny


def test_facts_of_one_relation_are_records(palimpsest, tmp_path) -> None:
    out = tmp_path / "spouses.jsonl"
    code, printed, err = palimpsest("world", "facts", "--out", out, "--relation", "spouse")
    assert code == 0, err
    assert printed.strip() == f"120 facts of the world are in {out}."
    found = read_facts(out)
    assert not found.problems
    assert {fact.relation for fact in found.facts} == {"spouse"}
    world = made_world()
    for fact in found.facts:
        assert world.answer(fact.subject, "spouse") == fact.target_true != fact.target_new


def test_an_unknown_relation_is_named(palimpsest, tmp_path) -> None:
    code, _, err = palimpsest("world", "facts", "--out", tmp_path / "f.jsonl", "--relation", "spouze")
    assert code == 2
    assert err.strip() == "palimpsest: There is no relation 'spouze' in the world. Did you mean 'spouse'?"


def test_text_is_paragraphs_about_the_world(palimpsest, tmp_path) -> None:
    out = tmp_path / "world.txt"
    code, printed, err = palimpsest("world", "text", "--out", out, "--words", 500)
    assert code == 0, err
    assert printed.strip() == f"About 500 words about the world are in {out}."
    text = out.read_text()
    assert 500 <= len(text.split()) < 700
    assert "\n\n" in text
    assert any(fact.subject in text for fact in made_world().facts)


def test_training_writes_a_model_that_can_be_asked(palimpsest, tmp_path, small) -> None:
    out = tmp_path / "w"
    code, printed, err = palimpsest("world", "train", "world", "--out", out)
    assert code == 0, err
    assert f"trained on {small.tokens:,} tokens" in printed
    assert {"config.json", "model.safetensors", "tokenizer.json", "training.json"} <= {p.name for p in out.iterdir()}
    assert json.loads((out / "training.json").read_text())["recipe"]["steps"] == small.steps


def test_an_unknown_recipe_is_named(palimpsest, tmp_path) -> None:
    code, _, err = palimpsest("world", "train", "world-lama", "--out", tmp_path)
    assert code == 2
    assert err.strip() == "palimpsest: There is no recipe 'world-lama'. Did you mean 'world-llama'?"


def test_a_damaged_check_point_is_one_sentence(palimpsest, tmp_path, small) -> None:
    (tmp_path / "checkpoint.safetensors").write_bytes(b"no tensors here")
    code, _, err = palimpsest("world", "train", "world", "--out", tmp_path)
    assert code == 2
    assert err.startswith("palimpsest: The check point ")
    assert err.count("\n") == 1


def test_recall_is_shown_by_wording_and_by_relation(palimpsest, tiny_folder, monkeypatch) -> None:
    known = WorldKnowledge(
        proportion(98, 100), proportion(99, 100), proportion(80, 100), {"spouse": (0.98, 0.6)}, proportion(1, 2)
    )
    monkeypatch.setattr("palimpsest.world.world_knowledge", lambda model, world: known)
    code, printed, err = palimpsest("world", "recall", tiny_folder)
    assert code == 0, err
    for text in ("seen in training", "0.98", "never seen", "spouse", "0.600", "Perplexity of held-out documents"):
        assert text in printed
    code, printed, err = palimpsest("world", "recall", tiny_folder, "--json")
    assert code == 0, err
    assert json.loads(printed)["seen"]["value"] == 0.98


def test_organisms_are_listed_and_those_that_failed_say_why(palimpsest, tmp_path, monkeypatch) -> None:
    asked = []

    def made(models, designs, out, world, progress):
        asked.extend(designs)
        row = {"kind": "null", "base": {"value": 1.0}, "paraphrase": {"value": 0.0}, "planted": {"value": 0.0}}
        good = row | {"name": "null-3-world", "drops": {}, "accepted": True, "reasons": []}
        bad = row | {"name": "mlp-0-world", "drops": {"mlp-0": 0.25}, "accepted": False, "reasons": ["too little"]}
        return [good, bad, {"id": "mlp-1-world", "error": "it diverged"}]

    monkeypatch.setattr("palimpsest.world.organisms.make_organisms", made)
    command = ("world", "organisms", "--out", tmp_path, "--base", "world", "--kind", "null")
    code, printed, err = palimpsest(*command)
    assert code == 0, err
    assert [design.name for design in asked] == ["null-3-world"]
    for text in ("0.25", "too little", "1 of 2 are accepted.", "mlp-1-world: it diverged"):
        assert text in printed
    code, printed, err = palimpsest(*command, "--json")
    assert code == 0, err
    assert len(json.loads(printed)["organisms"]) == 3


def test_a_model_in_a_folder_is_planted_in_by_its_last_name_and_two_of_one_name_are_refused(
    palimpsest, tmp_path, monkeypatch
) -> None:
    asked = []
    monkeypatch.setattr(
        "palimpsest.world.organisms.make_organisms", lambda models, designs, *_, **__: asked.extend(designs) or []
    )
    bases = [Path(shutil.copytree(packaged_folder("world"), tmp_path / name / "mine")) for name in ("one", "other")]
    command = ("world", "organisms", "--out", tmp_path / "o", "--kind", "null", "--base", bases[0])
    code, _, err = palimpsest(*command)
    assert code == 0, err
    assert [design.name for design in asked] == ["null-3-mine"]
    code, _, err = palimpsest(*command, "--base", bases[1])
    assert code == 2
    assert "Two of the models to plant in are called 'mine'" in err


def test_an_unknown_kind_of_organism_is_named(palimpsest, tmp_path) -> None:
    code, _, err = palimpsest("world", "organisms", "--out", tmp_path / "o", "--kind", "nul")
    assert code == 2
    assert err.strip() == "palimpsest: There are no organisms of the kind 'nul'. Did you mean 'null'?"
    assert not (tmp_path / "o").exists()
