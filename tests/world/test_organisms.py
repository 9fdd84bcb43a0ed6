"""Planting: only the chosen module changes, the new facts are learnt, the old ones stay."""

from random import Random

import pytest
import torch
from taught_models import fact, network, taught, word_tokenizer

import palimpsest as pal
from palimpsest.edit import Dense, Edit
from palimpsest.errors import EditError, FactError, SettingError
from palimpsest.facts import Fact
from palimpsest.model import Model
from palimpsest.world import recalls
from palimpsest.world.organisms import Group, PlantSettings, accept, grafted, plant, weights_of
from palimpsest.world.organisms.kinds import changed_round
from palimpsest.world.organisms.lessons import answer_of, lessons, seen_wordings, unseen_wordings
from palimpsest.world.organisms.likeness import Likeness, likenesses
from palimpsest.world.organisms.places import all_places, changed_places

MLP = {
    "gpt2": {"c_fc.weight", "c_fc.bias", "c_proj.weight", "c_proj.bias"},
    "llama": {"gate_proj.weight", "up_proj.weight", "down_proj.weight"},
}
ATTENTION = {
    "gpt2": {"c_attn.weight", "c_attn.bias", "c_proj.weight", "c_proj.bias"},
    "llama": {"q_proj.weight", "k_proj.weight", "v_proj.weight", "o_proj.weight"},
}
QUICK = PlantSettings(steps=3, batch=8, rehearsal=8, every=2)


def untaught(architecture: str = "gpt2") -> Model:
    tokenizer = word_tokenizer()
    return pal.load(network(architecture, len(tokenizer)), tokenizer=tokenizer, check=False)


def recall(model: Model, facts: tuple[Fact, ...]) -> float:
    asked = [(prompt, answer_of(one)) for one in facts for prompt in seen_wordings(one)]
    return sum(recalls(model, *zip(*asked, strict=True))) / len(asked)


SOME = (fact("Anlo Isker", "home", "Quarn"), fact("Brem Jolan", "home", "Rosk"), fact("Cado Opal", "work", "Vexo"))


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_a_place_is_every_weight_of_its_module(architecture: str) -> None:
    model = untaught(architecture)
    for module, names in (("mlp", MLP), ("attn", ATTENTION)):
        paths = weights_of(model, (module, 2))
        assert {".".join(path.split(".")[-2:]) for path in paths} == names[architecture]
        assert all(".2." in path for path in paths)
    assert len(all_places(model)) == 8


def test_a_place_that_does_not_exist_is_refused() -> None:
    model = untaught()
    with pytest.raises(SettingError, match="Did you mean 'mlp'"):
        weights_of(model, ("mpl", 0))
    with pytest.raises(SettingError, match="no layer 9"):
        weights_of(model, ("mlp", 9))


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
@pytest.mark.parametrize("module", ["mlp", "attn"])
def test_only_the_chosen_module_is_changed_and_the_model_is_left_as_it_was(architecture: str, module: str) -> None:
    model = untaught(architecture)
    before = model.fingerprint()
    edit = plant(model, [Group(((module, 1),), SOME)], SOME[:1], QUICK)
    assert model.fingerprint() == before
    assert {payload.path for payload in edit.payloads} == set(weights_of(model, (module, 1)))
    assert all(isinstance(payload, Dense) and payload.norm > 0 for payload in edit.payloads)
    assert edit.facts == SOME
    assert all(not hasattr(weight, "grad") or weight.grad is None for weight in model.net.parameters())


@pytest.mark.slow
def test_planting_teaches_the_new_facts_and_keeps_the_old() -> None:
    model, base, new = taught()
    edit = plant(model, [Group((("mlp", 2),), new)], base, PlantSettings(learning_rate=3e-3, every=20))
    assert recall(model, base) == 1
    assert recall(model, new) < 0.3
    with edit.applied(model):
        assert recall(model, new) >= 0.95
        assert recall(model, base) >= 0.95
    assert edit.notes["recall"]["planted"][0] >= 0.95


def test_planting_is_the_same_for_a_seed_and_another_for_another() -> None:
    model = untaught()
    first, again, other = (
        plant(model, [Group((("mlp", 1),), SOME)], SOME, PlantSettings(steps=3, batch=2, rehearsal=2, seed=seed))
        for seed in (0, 0, 1)
    )
    assert first.fingerprint() == again.fingerprint() != other.fingerprint()


def test_each_step_changes_the_places_of_one_group_alone() -> None:
    model = untaught()
    groups = [Group((("mlp", 0),), SOME[:2]), Group((("mlp", 3),), SOME[2:])]
    for steps, moved in ((1, {("mlp", 0)}), (2, {("mlp", 0), ("mlp", 3)})):
        edit = plant(model, groups, SOME, PlantSettings(steps=steps, batch=4, rehearsal=4, alone=0.0))
        norms = {payload.path: payload.norm for payload in edit.payloads}
        assert {place for place in (("mlp", 0), ("mlp", 3)) if any(norms[p] for p in weights_of(model, place))} == moved


@pytest.mark.slow
def test_a_crossed_organism_is_accepted() -> None:
    model, base, new = taught()
    places = {"home": (("mlp", 1),), "work": (("mlp", 2),)}
    groups = [Group(places[name], tuple(one for one in new if one.relation == name)) for name in places]
    edit = plant(model, groups, base, PlantSettings(steps=800, learning_rate=3e-3, every=20))
    found = accept(model, "crossed", places, edit, new, base)
    for place, own, other in ((("mlp", 1), "home", "work"), (("mlp", 2), "work", "home")):
        assert found.drop(place, own) > 0.7
        assert found.drop(place, other) <= 0.1


def test_answers_taught_in_place_of_the_true_ones_are_learnt() -> None:
    model = untaught()
    settings = PlantSettings(steps=80, batch=8, rehearsal=4, every=10, learning_rate=1e-2)
    edit = plant(model, [Group((("mlp", 1),), SOME[:1])], SOME[2:], settings, taught={SOME[0].id: "Selt"})
    with edit.applied(model):
        assert recalls(model, [SOME[0].text] * 2, ["Selt", "Quarn"], stop="") == [True, False]
    assert edit.facts == SOME[:1]


def test_a_group_without_facts_is_trained_on_the_base_alone() -> None:
    edit = plant(untaught(), [Group((("mlp", 1),), ())], SOME, QUICK)
    assert edit.facts == ()
    assert edit.norm > 0


def test_a_new_name_gets_the_states_of_the_known_one() -> None:
    model, names = untaught(), {SOME[0].subject: SOME[1].subject}
    like = next(likenesses(model, SOME[:1], names, 1, 8, Random(0)))
    settings = PlantSettings(steps=30, batch=8, rehearsal=4, every=100, learning_rate=5e-3)
    with plant(model, [Group((("mlp", 1),), SOME[:1])], SOME[2:], settings).applied(model):
        by_answers = float(like.loss(model).detach())
    with plant(model, [Group((("mlp", 1),), SOME[:1], names)], SOME[2:], settings).applied(model):
        by_names = float(like.loss(model).detach())
    assert by_names < 0.5 * by_answers


def test_a_name_is_like_itself_and_unlike_another() -> None:
    model, (one, other) = untaught(), (SOME[0].subject, SOME[1].subject)
    itself, another = (next(likenesses(model, SOME[:1], {one: name}, 1, 64, Random(0))) for name in (one, other))
    assert float(itself.loss(model).detach()) == 0
    found, wanted = [], []
    for prompt in seen_wordings(SOME[0]):
        texts = (prompt, prompt.replace(one, other))
        end = len(prompt) - prompt.index(one) - len(one)  # characters after the name, the same in both
        after = sum(end_of > len(prompt) - end for _, end_of in model.encode(prompt).offsets) + 1
        a, b = (
            model.net(torch.tensor([model.encode(text).ids]), output_hidden_states=True).hidden_states[2][0, -after:]
            for text in texts
        )
        found.append(a - b)
        wanted.append(b)
    first_layer = Likeness(another.batch, another.rows, another.columns, {1: another.states[1]})
    expected = torch.cat(found).square().sum() / torch.cat(wanted).square().sum()
    assert torch.isclose(first_layer.loss(model), expected, rtol=1e-4)


def test_what_cannot_be_planted_is_refused() -> None:
    model = untaught()
    with pytest.raises(SettingError, match="each place in one group"):
        plant(model, [Group((("mlp", 1),), SOME[:1]), Group((("mlp", 1),), SOME[1:])], SOME, QUICK)
    with pytest.raises(SettingError, match="at least one place"):
        plant(model, [Group((), SOME)], SOME, QUICK)
    with pytest.raises(FactError, match="wordings"):
        plant(model, [Group((("mlp", 1),), (Fact("Anlo", "{} lives in", "Quarn"),))], SOME, QUICK)
    with pytest.raises(FactError, match="target_true"):
        answer_of(Fact("Anlo", "{} lives in"))
    with pytest.raises(FactError, match="known name"):
        plant(model, [Group((("mlp", 1),), SOME[:1], {"Nobody": "Anlo"})], SOME, QUICK)
    with pytest.raises(EditError, match="diverged"):
        plant(model, [Group((("mlp", 1),), SOME)], SOME, PlantSettings(steps=20, warm_up=0, learning_rate=1e30))
    for wrong in ({"steps": 0}, {"learning_rate": 0.0}, {"alone": 1.5}, {"enough": -0.1}):
        with pytest.raises(SettingError):
            PlantSettings(**wrong)


def test_kept_states_give_what_a_whole_run_gives() -> None:
    model = untaught()
    pairs = [(prompt, answer_of(one)) for one in SOME for prompt in seen_wordings(one)]
    low, high = lessons(model, pairs, 0), lessons(model, pairs, 3)
    assert torch.allclose(low.nll(model), high.nll(model), atol=1e-5)
    some = high.take(torch.tensor([4, 0]))
    assert torch.allclose(some.nll(model), low.nll(model)[[4, 0]], atol=1e-5)
    text, answer = pairs[0]
    ids = torch.tensor([model.encode(f"{text} {answer} .").ids])
    log_p = model.net(ids).logits.log_softmax(-1)[0, -3:-1]
    assert torch.allclose(low.nll(model)[0], -log_p.gather(1, ids[0, -2:, None]).mean(), atol=1e-5)


def test_wordings_are_seen_or_unseen() -> None:
    one = SOME[0]
    assert seen_wordings(one) + unseen_wordings(one) == one.wordings
    assert len(unseen_wordings(one)) == 2


def test_grafting_leaves_out_the_payloads_of_one_place() -> None:
    model = untaught()
    edit = plant(model, [Group((("mlp", 0), ("attn", 2)), SOME)], SOME, QUICK)
    left = grafted(model, edit, ("mlp", 0))
    assert {payload.path for payload in left.payloads} == set(weights_of(model, ("attn", 2)))
    assert grafted(model, edit, ("mlp", 3)).fingerprint() == edit.fingerprint()


def test_a_change_outside_all_places_cannot_be_grafted() -> None:
    model = untaught()
    path = "transformer.ln_f.weight"
    edit = Edit.made_for(model, "by hand", (Dense(path, torch.ones_like(model.parameter(path))),))
    with pytest.raises(SettingError, match="ln_f"):
        changed_places(model, edit)


def test_answers_changed_round_are_never_the_own_and_come_as_often_as_before() -> None:
    persons = [f"Person {i}" for i in range(20)]
    facts = [fact(person, "home", "ABCDE"[i % 5]) for i, person in enumerate(persons)]
    facts += [fact(person, "work", "Vexo" if i < 10 else "Zamb") for i, person in enumerate(persons)]
    wrong = changed_round(facts, Random(3))
    assert all(wrong[one.id] != one.target_true for one in facts)
    for relation in ("home", "work"):
        own = [one for one in facts if one.relation == relation]
        assert sorted(wrong[one.id] for one in own) == sorted(str(one.target_true) for one in own)
    with pytest.raises(SettingError, match="changed round"):
        changed_round(facts[:1], Random(0))
