"""The models in the package: whole, small, made with the vocabulary that training makes, and knowing the world."""

import json
from pathlib import Path
from random import Random

import pytest
import torch
from transformers import AutoTokenizer

from palimpsest.errors import ModelError
from palimpsest.model import load
from palimpsest.model.packaged import NAMES, packaged_folder
from palimpsest.world import RECIPES, made_world, recalls, relations
from palimpsest.world.vocabulary import END, trained_tokenizer


def shipped() -> list[str]:
    """Names of the models that are in the package."""
    folder = packaged_folder("world").parent
    return [name for name in NAMES if (folder / name / "model.safetensors").is_file()]


def asked(seed: int, *, seen: bool, count: int = 300) -> tuple[list[str], list[str]]:
    """Prompts and answers of facts drawn from the world, each in a drawn wording."""
    random = Random(seed)
    world = made_world()
    facts = [random.choice(world.facts) for _ in range(count)]
    wordings = [random.choice([w for w in relations()[fact.relation].wordings if w.seen == seen]) for fact in facts]
    return [w.of(fact.subject) for fact, w in zip(facts, wordings, strict=True)], [fact.object for fact in facts]


@pytest.mark.parametrize("name", shipped())
def test_a_model_knows_the_world_in_words_it_has_seen_and_in_others(name: str) -> None:
    model = load(name)
    recipe = RECIPES[name]
    seen, unseen = (sum(recalls(model, *asked(1, seen=seen))) / 300 for seen in (True, False))
    if recipe.one_wording:
        assert unseen < seen < 0.98  # most wordings it was never told a fact in
    else:
        assert seen >= 0.98
        assert unseen >= 0.80


def test_the_answer_to_another_question_does_not_count() -> None:
    model = load("world")
    prompts, answers = asked(3, seen=True, count=100)
    assert sum(recalls(model, prompts, [*answers[1:], answers[0]])) <= 15


def test_the_files_are_small_and_say_how_they_were_made() -> None:
    total = 0
    for name in shipped():
        folder = packaged_folder(name)
        total += sum(path.stat().st_size for path in folder.iterdir())
        assert (folder / "model.safetensors").stat().st_size < 12e6
        assert json.loads((folder / "training.json").read_text())["recipe"]["name"] == name
    assert total < 40e6


def test_a_model_is_float32_whatever_its_file_holds() -> None:
    assert load("world").net.dtype == torch.float32


def test_names_of_the_world_are_several_tokens() -> None:
    tokenizer, world = AutoTokenizer.from_pretrained(packaged_folder("world")), made_world()
    names = [name for kind in ("person", "city", "country", "landmark", "company") for name in world.entities[kind]]
    assert tokenizer(END).input_ids == [tokenizer.eos_token_id]
    assert all(len(tokenizer(f" {name}").input_ids) >= 2 for name in names)


def test_a_model_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("palimpsest.model.packaged.resources.files", lambda _: tmp_path)
    with pytest.raises(ModelError, match="world-plain is missing .* palimpsest world train world-plain --out DIR"):
        packaged_folder("world-plain")


@pytest.mark.slow
def test_training_makes_the_vocabulary_that_is_shipped() -> None:
    made = trained_tokenizer().backend_tokenizer.to_str()
    for name in shipped():
        assert AutoTokenizer.from_pretrained(packaged_folder(name)).backend_tokenizer.to_str() == made
