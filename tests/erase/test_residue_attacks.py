"""Attack prefixes against a plain reading of every answer, and what their texts may say."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import palimpsest as pal
from oracles.residue import log_p, pair_of, world_pairs
from oracles.small import EIFFEL, model_of, precision_of
from palimpsest.erase.residue.advantage import Asked, advantages, log_likelihoods
from palimpsest.erase.residue.attacks import KINDS, Attacks, says
from palimpsest.erase.residue.pair import NEVER_KNOWN, SAME_ANSWER
from palimpsest.errors import FactError, InputError, SettingError, WeightError
from palimpsest.facts import Fact
from palimpsest.model.unchanged import hooks_of, modes_of, same_weights, weights_of
from palimpsest.statistics.ranking import auroc

POOL = (
    Fact("Louvre", "The {} is located in the city of", "Paris", relation="city", answer_aliases=("Lutetia",)),
    Fact("Big Ben", "The {} is located in the city of", "London", relation="city"),
    Fact("Kremlin", "The {} is located in the city of", "Moscow", relation="city"),
    Fact("Prado", "The {} is located in the city of", "Madrid", relation="city"),
    Fact("Eiffel Tower", "The {} was designed by", "Gustave", relation="architect"),
    Fact("Eiffel Tower", "The {} is the pride of", "Paris", relation="pride"),
)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
def test_the_advantage_is_that_of_whole_answers_read_one_by_one(family: str) -> None:
    dtype, close = precision_of(family)
    model = model_of(family, dtype=dtype)
    asked = [
        Asked("The Eiffel Tower is in", "Paris", ("Berlin or Xi'an", "Rome")),
        Asked("Danielle speaks", "French", ("Swiss",)),
        None,
        Asked("The Eiffel Tower is in", "Rome", ("Paris",)),
    ]
    told = advantages(model, asked)
    for one, value in zip(asked, told, strict=True):
        if one is None:
            assert np.isnan(value)
        else:
            plain = [log_p(model, one.text, answer) for answer in (one.answer, *one.others)]
            assert value == pytest.approx(plain[0] - np.mean(plain[1:]), abs=100 * close)


def test_the_readout_reads_each_attack_at_the_final_output() -> None:
    model, attacks = model_of("gpt2", dtype=torch.float64), Attacks(POOL)
    pair = pair_of(EIFFEL, "Paris", ("Rome", "Berlin"))
    before = weights_of(model), hooks_of(model), modes_of(model)
    table = attacks.fit(model, [pair]).read(model, [pair])
    assert [column.path for column in table.columns] == [f"attack {kind}" for kind in KINDS]
    for kind, value in zip(KINDS, table.scores[0], strict=True):
        text = attacks.text(kind, pair)
        assert text is not None
        assert text.endswith(EIFFEL.text)
        assert len(text) > len(EIFFEL.text)
        plain = [log_p(model, text, answer) for answer in ("Paris", "Rome", "Berlin")]
        assert value == pytest.approx(plain[0] - np.mean(plain[1:]), abs=1e-8)
    assert same_weights(model, before[0]) == ""
    assert (hooks_of(model), modes_of(model)) == before[1:]


def test_the_texts_are_made_of_the_pool_and_say_what_they_are_named_for() -> None:
    attacks, pair = Attacks(POOL, examples=2), pair_of(EIFFEL, "Paris", ("London",))
    assert "designed by Gustave." in str(attacks.text("wiki", pair))
    assert str(attacks.text("repeat", pair)).count("Eiffel Tower") == 4
    assert str(attacks.text("question", pair)).startswith("Question:")
    # examples whose answer is not compared with come first, and none repeats the answer that is looked for
    assert attacks.text("few-shot", pair) == (
        "The Kremlin is located in the city of Moscow. The Prado is located in the city of Madrid. " + EIFFEL.text
    )
    assert "It is not true that The Eiffel Tower is located in the city of Rome." in str(attacks.text("not-new", pair))


def test_no_text_says_the_answer_or_another_name_of_it() -> None:
    attacks = Attacks(POOL)
    louvre = pair_of(POOL[0], "Paris", ("London",), group=SAME_ANSWER)
    for pair in (pair_of(EIFFEL, "Paris", ("London",)), pair_of(POOL[0], "Paris", ("London",))):
        for kind in KINDS:
            text = attacks.text(kind, pair)
            assert text is None or not says(text.removesuffix(pair.fact.text), pair)
    assert attacks.text("not-new", louvre) is None  # what it says now is the answer that is looked for
    assert says("a Parisian", louvre)
    assert says("in Lutetia", louvre)
    assert not says("comParison", louvre)


def test_an_attack_that_would_give_the_answer_away_is_not_made() -> None:
    bank = Fact("Bank of Oslo", "The {} is in", "Oslo", "Rome", relation="city")
    pair, model = pair_of(bank, "Oslo", ("Rome", "Paris")), model_of("gpt2")
    assert all(Attacks(POOL).text(kind, pair) is None for kind in ("wiki", "repeat", "question", "not-new"))
    scores = Attacks(POOL).read(model, [pair]).scores[0]
    assert np.isnan(scores[[0, 1, 2, 4]]).all()
    assert np.isfinite(scores[3])


def test_what_is_denied_is_what_the_model_says_now() -> None:
    control = pair_of(POOL[2], "Paris", ("London",), group=SAME_ANSWER)
    assert "of Moscow. The Kremlin" in str(Attacks(POOL).text("not-new", control))
    unedited = pair_of(replace(EIFFEL, target_new=None), "Paris", ("London",), group=NEVER_KNOWN)
    assert Attacks(POOL).text("not-new", unedited) is None
    assert Attacks(()).text("few-shot", control) is None


def test_bad_settings_and_states() -> None:
    with pytest.raises(SettingError, match="no attack 'wikki'.*Did you mean 'wiki'"):
        Attacks(POOL, kinds=("wikki",))
    with pytest.raises(SettingError, match="at least one kind"):
        Attacks(POOL, kinds=())
    with pytest.raises(SettingError, match="examples must be a whole number of 1 or more, got 0"):
        Attacks(POOL, examples=0)
    model = model_of("gpt2")
    with pytest.raises(InputError, match="tokens long but this model reads at most"):
        advantages(model, [Asked("long " * 300, "Paris", ("Rome",))])
    with pytest.raises(FactError, match="must have a token each"):
        log_likelihoods(model, [(" ", ("Paris",))])  # one token holds both
    model.net.get_output_embeddings().weight.data[5] = float("nan")
    with pytest.raises(WeightError, match="not finite"):
        advantages(model, [Asked("The Eiffel Tower is in", "Paris", ("Rome",))])


def test_in_the_world_a_known_answer_stands_far_above_the_controls() -> None:
    model = pal.load("world")
    pool, pairs = world_pairs(8)
    table = Attacks(pool).read(model, pairs)
    for control in (SAME_ANSWER, NEVER_KNOWN):
        kept = [i for i, pair in enumerate(pairs) if pair.group in ("edited", control)]
        right = [float(pairs[i].group == "edited") for i in kept]
        for column, least in enumerate((0.85, 0.85, 0.85, 0.75)):
            assert auroc(table.scores[kept, column], right) > least
