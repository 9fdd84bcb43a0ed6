"""Training of the world's models: the same on every run, resumable, never from a damaged or foreign check point."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from palimpsest.errors import ModelError, SettingError
from palimpsest.model import load
from palimpsest.world import Corpus, Recipe, made_world, recalls, train_model
from palimpsest.world.recipes import RECIPES
from palimpsest.world.train import CHECKPOINT, next_token_loss, rate, windows
from palimpsest.world.vocabulary import trained_tokenizer

TINY = Recipe("tiny", layers=2, width=16, heads=2, window=32, vocabulary=400, batch=4, steps=6, warm_up=2)


@pytest.fixture(scope="module")
def tokenizer():
    return trained_tokenizer(400)


@pytest.fixture(autouse=True)
def one_tokenizer(monkeypatch, tokenizer):
    """Training a vocabulary takes seconds; each test uses the same one."""
    monkeypatch.setattr("palimpsest.world.train.trained_tokenizer", lambda size: tokenizer)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_a_training_that_was_stopped_ends_with_the_same_weights(tmp_path: Path, architecture: str) -> None:
    recipe = replace(TINY, architecture=architecture)
    whole = weights(train_model(recipe, tmp_path / "whole"))
    train_model(recipe, tmp_path / "parts", every=2, until=4)
    assert (tmp_path / "parts" / CHECKPOINT).is_file()
    assert not (tmp_path / "parts" / "model.safetensors").exists()
    parts = weights(train_model(recipe, tmp_path / "parts", every=2))
    assert whole.keys() == parts.keys()
    for name in whole:
        torch.testing.assert_close(parts[name], whole[name], rtol=0, atol=1e-3)
    assert not (tmp_path / "parts" / CHECKPOINT).exists()


def test_a_training_killed_between_check_points_goes_on_from_the_last_one(tmp_path: Path) -> None:
    whole, again = (weights(train_model(TINY, tmp_path / name)) for name in ("whole", "again"))
    seen: list[int] = []

    def killed(done: int, total: int, label: str) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_model(TINY, tmp_path / "killed", every=2, progress=killed)
    train_model(TINY, tmp_path / "killed", every=2, progress=lambda done, total, label: seen.append(done))
    assert seen == [4, 5, 6]
    parts = weights(tmp_path / "killed")
    for name in whole:
        assert torch.equal(again[name], whole[name])
        torch.testing.assert_close(parts[name], whole[name], rtol=0, atol=1e-3)


def test_training_lowers_the_loss_and_the_result_loads(tmp_path: Path, tokenizer) -> None:
    recipe = replace(TINY, steps=30, learning_rate=1e-2)
    model = load(train_model(recipe, tmp_path))
    net = recipe.network(int(tokenizer.eos_token_id))
    ids = windows(Corpus(made_world(), seed=99), tokenizer, recipe, 0)
    with torch.no_grad():
        before, after = (float(next_token_loss(n(input_ids=ids).logits, ids)) for n in (net, model.net))
    assert after < before - 0.5
    assert model.net.dtype == torch.float32


def test_the_loss_is_that_of_each_next_token() -> None:
    logits, ids = torch.randn(2, 5, 7), torch.randint(0, 7, (2, 5))
    expected = -torch.stack([logits[b, t].log_softmax(-1)[ids[b, t + 1]] for b in range(2) for t in range(4)]).mean()
    torch.testing.assert_close(next_token_loss(logits, ids), expected)


def test_a_damaged_check_point_and_one_of_another_recipe_are_refused(tmp_path: Path) -> None:
    train_model(TINY, tmp_path, until=2)
    with pytest.raises(ModelError, match="another recipe or another world; delete it"):
        train_model(replace(TINY, seed=1), tmp_path)
    place = tmp_path / CHECKPOINT
    whole = place.read_bytes()
    place.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ModelError, match="its contents are not those that were written"):
        train_model(TINY, tmp_path)
    place.write_bytes(whole[:-100])
    with pytest.raises(ModelError, match="is damaged .*; delete it to train from the beginning"):
        train_model(TINY, tmp_path)


def test_a_finished_training_is_left_as_it_is_and_another_is_refused(tmp_path: Path) -> None:
    train_model(TINY, tmp_path)
    seen: list[int] = []
    train_model(TINY, tmp_path, progress=lambda done, total, label: seen.append(done))
    assert not seen
    with pytest.raises(ModelError, match="a model of another training already; choose another --out"):
        train_model(replace(TINY, seed=1), tmp_path)


def test_no_two_steps_read_one_document_and_each_window_begins_with_a_document(tokenizer) -> None:
    corpus = Corpus(made_world())
    first, second = (windows(corpus, tokenizer, TINY, step) for step in (0, 1))
    assert first.shape == (TINY.batch, TINY.window)
    openings = {tokenizer.decode(row[:8]) for row in first} & {tokenizer.decode(row[:8]) for row in second}
    assert len(openings) < TINY.batch  # by chance some sentences begin alike
    assert tokenizer.decode(first[0]).startswith(corpus.document(0)[:20])
    assert (
        int(tokenizer.eos_token_id) in first[0].tolist() or len(tokenizer(corpus.document(0)).input_ids) >= TINY.window
    )


def test_the_rate_warms_up_and_falls_to_a_twentieth() -> None:
    recipe = replace(TINY, steps=100, warm_up=10, learning_rate=1.0)
    rates = [rate(recipe, step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1.0)
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] == pytest.approx(0.05, abs=0.001)


def test_a_corpus_is_the_same_each_time_and_another_with_another_seed() -> None:
    world = made_world()
    one, same, other = Corpus(world), Corpus(made_world()), Corpus(world, seed=1)
    assert [one.document(i) for i in range(40)] == [same.document(i) for i in range(40)]
    assert [one.document(i) for i in range(40)] != [other.document(i) for i in range(40)]


def test_no_document_holds_an_unseen_wording() -> None:
    corpus = Corpus(made_world())
    text = "\n".join(corpus.document(i) for i in range(600))
    for fact in corpus.facts:
        for wording in corpus.relations[fact.relation].unseen:
            assert wording.text.replace("{}", fact.subject) not in text


def test_with_one_wording_each_fact_is_always_told_alike() -> None:
    corpus = Corpus(made_world(), one_wording=True)
    told: dict[tuple[str, str], set[str]] = {}
    names = {*corpus.world.aliases, *(fact.subject for fact in corpus.facts)}
    for i in range(300):
        for sentence in corpus.document(i).split(". "):
            for name in names:
                if name in sentence:
                    for relation in corpus.relations.values():
                        for wording in relation.seen:
                            if sentence.startswith(wording.text.replace("{}", name)):
                                told.setdefault((corpus.world.aliases.get(name, name), relation.name), set()).add(
                                    wording.text
                                )
    assert len(told) > 80
    assert all(len(texts) == 1 for texts in told.values())


def test_recall_is_what_greedy_generation_writes(tmp_path: Path) -> None:
    model = load(train_model(replace(TINY, steps=60, learning_rate=1e-2, window=48), tmp_path))
    prompts = ["Late in the summer", "Every morning the", "The birthplace of", "I think that", "They say"]
    answers = []
    for prompt in prompts[:4]:
        ids = model.tokenizer(prompt, return_tensors="pt").input_ids
        out = model.net.generate(ids, max_new_tokens=4, do_sample=False, pad_token_id=0)
        answers.append(model.tokenizer.decode(out[0, ids.shape[1] :]))
    asked = [answer.removeprefix(" ") for answer in answers]
    together = recalls(model, prompts, [*asked, "zzz"], stop="")
    alone = [recalls(model, [prompt], [answer], stop="")[0] for prompt, answer in zip(prompts, asked, strict=False)]
    assert together == [*(answer.startswith(" ") for answer in answers), False]
    assert alone == together[:4]


def test_an_unknown_architecture_is_named() -> None:
    with pytest.raises(SettingError, match="no architecture 'lama'. Did you mean 'llama'"):
        replace(TINY, architecture="lama").network(0)
    assert all(name == recipe.name for name, recipe in RECIPES.items())
