"""Erasing from models: hooks, the whole stream, folding into weights, and where concepts come from."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import palimpsest as pal
from oracles.small import FACTS, model_of
from palimpsest.edit.artefact import Edit
from palimpsest.edit.payload import Hook
from palimpsest.erase.leace import (
    Concept,
    Eraser,
    Labelled,
    LeaceFitter,
    erase_concept,
    folded,
    number_concept,
    read_concept,
    relation_concept,
    states_of,
)
from palimpsest.erase.leace.fold import output_map
from palimpsest.errors import EditError, InputError, RecordError, SettingError
from palimpsest.facts import Fact, read_facts
from palimpsest.model import Model, Site, pad
from palimpsest.world import made_world

WORDS = ("king", "river", "house", "tower", "market", "bridge", "road", "forest", "town", "sea")
PLURAL = Concept(
    "number",
    tuple(
        Labelled(f"{start} {word}{'s' * many}", "plural" if many else "singular", group=word)
        for word in WORDS
        for start in ("The old", "We saw the", "A", "Near some", "He knows one")
        for many in (0, 1)
    ),
)


def correlation(states: torch.Tensor, labels: tuple[str, ...]) -> float:
    """The largest correlation of an entry of the states with the first class."""
    z = np.array([label == sorted(set(labels))[0] for label in labels], dtype=float)
    x = states.numpy()
    spread = np.maximum(x.std(0) * z.std(), 1e-12)
    return float(np.abs(((x - x.mean(0)) * (z - z.mean())[:, None]).mean(0) / spread).max())


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_one_layer_is_erased_and_undone(family: str, tmp_path) -> None:
    model = model_of(family)
    before = model.fingerprint()
    site = Site("resid_out", 1)
    states, labels, _ = states_of(model, PLURAL, [site])
    assert correlation(states[site], labels) > 0.3
    edit = erase_concept(model, PLURAL, layers=[1])
    path = tmp_path / "edit.safetensors"
    edit.save(path)
    for one in (edit, Edit.load(path)):
        with one.applied(model):
            erased, labels, _ = states_of(model, PLURAL, [site])
        assert correlation(erased[site], labels) < 1e-3
    assert model.fingerprint() == before
    again, _, _ = states_of(model, PLURAL, [site])
    assert torch.equal(again[site], states[site])
    with edit.applied(model, dose=0.5):
        half, _, _ = states_of(model, PLURAL, [site])
    torch.testing.assert_close(half[site], (states[site] + erased[site]) / 2, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox_parallel"])
def test_the_whole_stream_is_erased_at_every_layer(family: str) -> None:
    model = model_of(family)
    edit = erase_concept(model, PLURAL)
    assert [payload.site for payload in edit.payloads if isinstance(payload, Hook)] == [
        Site("resid_in", 0),
        *(Site("resid_out", layer) for layer in range(model.n_layers)),
    ]
    sites = [Site("resid_out", layer) for layer in range(model.n_layers)]
    with edit.applied(model):
        states, labels, _ = states_of(model, PLURAL, sites)
    for site in sites:
        assert correlation(states[site], labels) < 2e-3, site
    # one eraser at the first layer does not do that: later layers read other tokens
    with erase_concept(model, PLURAL, layers=[0]).applied(model):
        states, labels, _ = states_of(model, PLURAL, sites)
    assert correlation(states[sites[-1]], labels) > 0.1


def test_scrubbing_is_fitted_on_states_already_erased_below() -> None:
    """The slow way: an edit of all sites below, applied, and an eraser fitted on what a whole run gives."""
    model = model_of("gpt2")
    edit = erase_concept(model, PLURAL, kind="mlp_out")
    for i, payload in enumerate(edit.payloads):
        assert isinstance(payload, Hook)
        assert payload.site == Site("mlp_out", i)
        below = Edit.made_for(model, "leace", edit.payloads[:i])
        with below.applied(model):
            states, labels, _ = states_of(model, PLURAL, [payload.site])
        fitter = LeaceFitter(model.anatomy.width, PLURAL.classes)
        fitter.update(states[payload.site], labels)
        # every token, cut after the read one, text by text
        for text in PLURAL.texts:
            with below.applied(model):
                fitter.surround(model.record(pad([text.ids(model)]), [payload.site])[payload.site][0])
        torch.testing.assert_close(payload.b.T @ payload.a.T, -fitter.eraser().projection.T.float(), rtol=0, atol=2e-3)


def outputs(model: Model) -> torch.Tensor:
    return model.run(pad([model.encode(text.text).ids for text in PLURAL.texts[:6]]))


@pytest.mark.parametrize("kind", ["attn_out", "mlp_out", "value"])
def test_folded_into_weights_it_does_what_the_hook_does(kind: str) -> None:
    model = model_of("gpt2")
    plain = outputs(model)
    hook = erase_concept(model, PLURAL, layers=[0, 1], kind=kind)
    fold = erase_concept(model, PLURAL, layers=[0, 1], kind=kind, fold=True)
    assert not any(isinstance(payload, Hook) for payload in fold.payloads)
    for dose in (1.0, 0.5):
        with hook.applied(model, dose):
            expected = outputs(model)
        with fold.applied(model, dose):
            found = outputs(model)
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-3)
        assert float((expected - plain).abs().max()) > 0.05


def test_a_map_without_a_bias_takes_no_constant() -> None:
    model = model_of("llama")
    with pytest.raises(EditError, match="has no bias to take the eraser's constant.*drop_constant=True"):
        erase_concept(model, PLURAL, layers=[1], kind="mlp_out", fold=True)
    fold = erase_concept(model, PLURAL, layers=[1], kind="mlp_out", fold=True, drop_constant=True)
    site = Site("mlp_out", 1)
    with fold.applied(model):
        states, labels, _ = states_of(model, PLURAL, [site])
    assert correlation(states[site], labels) < 1e-3
    centred = Eraser(torch.ones(32, 1), torch.ones(1, 32) / 32, torch.zeros(32))
    assert len(folded(model, site, centred)) == 1  # no constant: nothing to drop


@pytest.mark.parametrize("drop_constant", [False, True])
def test_every_layer_is_erased_when_folded_without_constants(drop_constant: bool) -> None:
    """Erasers above are fitted on what those below leave: states that were moved, where constants are dropped."""
    model = model_of("llama" if drop_constant else "gpt2")
    layers = list(range(model.n_layers))
    fold = erase_concept(model, PLURAL, layers=layers, kind="mlp_out", fold=True, drop_constant=drop_constant)
    sites = [Site("mlp_out", layer) for layer in layers]
    before, labels, _ = states_of(model, PLURAL, sites)
    with fold.applied(model):
        after, _, _ = states_of(model, PLURAL, sites)
    assert len(layers) > 1
    for site in sites:
        assert correlation(after[site], labels) < 2e-3 < correlation(before[site], labels)


def test_what_cannot_be_folded_says_why() -> None:
    model = model_of("gpt2")
    with pytest.raises(EditError, match=r"resid_out\[1\] cannot be folded.*no output of one linear map"):
        erase_concept(model, PLURAL, layers=[1], fold=True)
    part = model.anatomy.layers[1].attention
    assert part is not None
    handle = part.module.register_forward_hook(lambda _m, _a, out: (out[0] * 2, *out[1:]))
    try:
        with pytest.raises(EditError, match=r"Something follows .*c_proj before attn_out\[1\]"):
            output_map(model, Site("attn_out", 1))
    finally:
        handle.remove()
    assert output_map(model, Site("attn_out", 1)).path.endswith("attn.c_proj")


def test_the_controls_have_the_rank_and_do_not_erase() -> None:
    model, site = model_of("gpt2"), Site("resid_out", 1)
    for control in ("random", "permuted"):
        edit = erase_concept(model, PLURAL, layers=[1], control=control)
        (payload,) = edit.payloads
        assert isinstance(payload, Hook)
        assert payload.a.shape == (model.anatomy.width, 1)
        with edit.applied(model):
            states, labels, _ = states_of(model, PLURAL, [site])
        assert correlation(states[site], labels) > 0.2
    drawn = [erase_concept(model, PLURAL, layers=[1], control="random", seed=seed).fingerprint() for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_states_that_are_not_numbers_are_refused_by_place() -> None:
    model = model_of("gpt2")
    weight = model.anatomy.layers[1].block.module.mlp.c_fc.weight
    with torch.no_grad():
        weight[0, 0] = float("nan")
    with pytest.raises(InputError, match=r"states at resid_out\[1\] hold nan in state 0 \(of label 'singular'\)"):
        erase_concept(model, PLURAL)


def test_few_texts_warn_on_a_model() -> None:
    model = model_of("gpt2")
    few = Concept("few", PLURAL.texts[:10])
    with pytest.warns(UserWarning, match=r"10 states are no more than the 32 dimensions of states at resid_out\[0\]"):
        edit = erase_concept(model, few, layers=[0], least="read")
    assert edit.notes["sites"][0]["states"] == 10
    assert 0 < edit.notes["sites"][0]["share"] < 1


def test_few_texts_warn_by_default_too() -> None:
    """All tokens are enough for their own covariance, but not the texts for theirs with the concept."""
    few = Concept("few", PLURAL.texts[:10])
    with pytest.warns(UserWarning, match="10 labelled texts are no more than the 32 dimensions of a state") as said:
        erase_concept(model_of("gpt2"), few)
    assert len(said) == 1


def test_all_tokens_move_less_than_when_only_the_read_ones_count() -> None:
    """Both erase; what is least for the tokens that are read is more for the others."""
    model, site = model_of("gpt2"), Site("resid_out", 1)
    batch = pad([text.ids(model) for text in PLURAL.texts])
    plain, moved = model.record(batch, [site])[site], {}
    for least in ("all", "read"):
        with erase_concept(model, PLURAL, layers=[1], least=least).applied(model):
            states, labels, _ = states_of(model, PLURAL, [site])
            assert correlation(states[site], labels) < 1e-3
            change = (model.record(batch, [site])[site] - plain).pow(2).sum(2)
        rows = torch.arange(len(batch))
        moved[least] = (float(change[batch.mask.bool()].mean()), float(change[rows, batch.last].mean()))
    assert moved["all"][0] < moved["read"][0]
    assert moved["all"][1] > moved["read"][1]


def test_settings_that_do_not_exist() -> None:
    model = model_of("gpt2")
    for settings, said in [
        ({"kind": "resid_ou"}, "Did you mean 'resid_out'"),
        ({"control": "rndom"}, "Did you mean 'random'"),
        ({"layers": [9]}, "There is no layer 9"),
        ({"layers": []}, "at least one layer"),
        ({"drop_constant": True}, "about folding"),
        ({"least": "al"}, "Did you mean 'all'"),
        ({"shrinkage": "lw", "layers": [0]}, "no shrinkage 'lw'"),
    ]:
        with pytest.raises(SettingError, match=said):
            erase_concept(model, PLURAL, **settings)


# ---- concepts


def test_a_concept_of_one_class_or_none_is_refused() -> None:
    with pytest.raises(
        InputError, match="'number' needs at least two classes to be erased, got only 'plural', 2 times"
    ):
        Concept("number", (Labelled("cats", "plural"), Labelled("dogs", "plural")))
    with pytest.raises(InputError, match="got no text"):
        Concept("number", ())


def test_a_concept_splits_by_group() -> None:
    one, other = PLURAL.split(0.6, seed=1)
    groups = [{text.group for text in part.texts} for part in (one, other)]
    assert not groups[0] & groups[1]
    assert (len(groups[0]), len(one.texts) + len(other.texts)) == (6, 100)
    assert PLURAL.permuted(seed=3).sizes == PLURAL.sizes
    assert PLURAL.permuted(seed=3) != PLURAL


def test_the_token_that_is_read() -> None:
    model = model_of("gpt2")
    whole = Labelled("The old towers are near", "x")
    cut = Labelled("The old towers are near", "x", end=len("The old towers"))
    assert whole.ids(model) == model.encode("The old towers are near").ids
    assert cut.ids(model) == model.encode("The old towers are near").ids[: len(cut.ids(model))]
    assert model.tokenizer.decode(cut.ids(model)).startswith("The old towers")
    with pytest.raises(InputError, match="character 1 to 4, got 9"):
        Labelled("text", "x", end=9)
    with pytest.raises(InputError, match="label of a labelled text"):
        Labelled("text", " ")


def test_a_file_of_labelled_texts(tmp_path) -> None:
    path = tmp_path / "colour.json"
    entries = [
        {"text": "The sky is blue today", "label": "blue", "at": "blue", "group": "sky"},
        {"text": "Grass is green", "label": "green"},
    ]
    path.write_text(json.dumps(entries))
    concept = read_concept(path)
    assert concept == Concept(
        "colour", (Labelled("The sky is blue today", "blue", 15, "sky"), Labelled("Grass is green", "green"))
    )
    for bad, said in [
        ([{"text": "a"}], 'entry 1: expected an object with "text" and "label"'),
        ([{"text": "a", "label": "b", "grop": "c"}], "no field 'grop'. Did you mean 'group'"),
        ([{"text": "abc", "label": "b", "at": "z"}], "\"at\" must be a part of the text 'abc', got 'z'"),
        ([{"text": 3, "label": "b"}], 'entry 1: "text" must be text, got 3'),
        ({"text": "a"}, "must hold a JSON list, got dict"),
    ]:
        path.write_text(json.dumps(bad))
        with pytest.raises(RecordError, match=said):
            read_concept(path)
    path.write_text("[")
    with pytest.raises(RecordError, match="is no JSON"):
        read_concept(path)
    with pytest.raises(RecordError, match="cannot be read"):
        read_concept(tmp_path / "none.json")


def fact(subject: str, answer: str, relation: str = "in") -> Fact:
    return Fact(
        subject, "The {} is in", answer, relation=relation, paraphrases=(f"You find the {subject} in", "Elsewhere")
    )


def test_the_answers_of_one_relation() -> None:
    facts = [
        fact("king", "north"),
        fact("river", "north"),
        fact("house", "south"),
        fact("road", "south"),
        fact("sea", "west"),
    ]
    concept = relation_concept(facts, "in")
    assert concept.sizes == {"north": 4, "south": 4}  # one subject says west; "Elsewhere" names no subject
    assert {text.text[: text.end].rsplit(" ", 1)[1] for text in concept.texts} == {"king", "river", "house", "road"}
    assert {text.end for text in relation_concept(facts, "in", "last").texts} == {None}
    with pytest.raises(InputError, match="relation 'inn'. Did you mean 'in'"):
        relation_concept(facts, "inn")
    with pytest.raises(InputError, match="got 'frst'"):
        relation_concept(facts, "in", "frst")
    with pytest.raises(InputError, match="has 1 answers of 2 subjects or more, of 2 facts"):
        relation_concept(facts[:2], "in")


def test_number_in_blimp(tmp_path) -> None:
    row = {
        "sentence_good": "Raymond is selling this sketch.",
        "sentence_bad": "Raymond is selling this sketches.",
        "one_prefix_prefix": "Raymond is selling this",
        "one_prefix_word_good": "sketch",
        "one_prefix_word_bad": "sketches",
        "UID": "determiner_noun_agreement_1",
        "one_prefix_method": True,
        "pairID": "0",
    }
    path = tmp_path / "determiner_noun_agreement_1.jsonl"
    path.write_text(json.dumps(row) + "\n")
    concept = number_concept(read_facts(path).facts)
    assert concept.texts == (
        Labelled("Raymond is selling this sketch", "singular", group="sketch/sketches"),
        Labelled("Raymond is selling these sketches", "plural", group="sketch/sketches"),
    )
    with pytest.raises(InputError, match="None of the facts is of BLiMP"):
        number_concept(list(FACTS))


def test_number_of_the_real_records(records) -> None:
    concept = number_concept(read_facts(records / "blimp" / "determiner_noun_agreement_1.jsonl").facts)
    assert concept.sizes == {"plural": 200, "singular": 200}
    train, test = concept.split(0.5)
    assert not {text.group for text in train.texts} & {text.group for text in test.texts}


def test_the_answers_of_a_relation_of_the_world() -> None:
    """On a trained model a probe reads professions in unseen wordings; after erasing it is no better than the commonest answer."""
    from sklearn.linear_model import LogisticRegression

    model, site = pal.load("world"), Site("resid_out", 4)
    facts = [fact for fact in made_world(0).records(["profession"], probes=1) if fact.relation == "profession"]
    halves = [
        relation_concept([replace(fact, paraphrases=fact.paraphrases[part:10:2]) for fact in facts], "profession")
        for part in (0, 1)
    ]

    def accuracy() -> float:
        train, test = (states_of(model, half, [site]) for half in halves)
        centre, spread = train[0][site].mean(0), train[0][site].std(0)
        probe = LogisticRegression(C=1.0, max_iter=300).fit(((train[0][site] - centre) / spread).numpy(), train[1])
        return float((probe.predict(((test[0][site] - centre) / spread).numpy()) == np.array(test[1])).mean())

    commonest = max(halves[1].sizes.values()) / len(halves[1].texts)
    assert accuracy() > 0.6
    with erase_concept(model, halves[0], layers=[4]).applied(model):
        assert accuracy() < commonest + 0.05
    with erase_concept(model, halves[0], layers=[4], control="random").applied(model):
        assert accuracy() > 0.5
