"""`palimpsest world`: facts as records that other commands read, training that goes on, mistakes in one sentence."""

import json
from dataclasses import replace

import pytest

from palimpsest.facts import read_facts
from palimpsest.world import made_world
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
