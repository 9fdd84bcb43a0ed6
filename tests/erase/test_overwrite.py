"""Overwriting: MEMIT's search with a further term, against that term written by hand; what it does on the made world."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

import palimpsest as pal
from oracles.small import CONTEXTS, EIFFEL, FACTS, JAPAN, documents, layers_of, model_of
from palimpsest.edit import check_editor
from palimpsest.edit.contexts import in_context
from palimpsest.edit.keys import edited_token
from palimpsest.edit.search import Found
from palimpsest.edit.values import ValueSettings, find_values
from palimpsest.erase.overwrite.suppression import Suppression
from palimpsest.errors import SettingError
from palimpsest.facts import Fact
from palimpsest.locate import passing
from palimpsest.model import Model, Site
from palimpsest.world import made_world

FEW: dict[str, Any] = {"layers": (0, 1), "contexts": ((5, 2),), "steps": 4, "moment_weight": 10.0}
SETTINGS = ValueSettings(steps=5, kl_factor=0.0, decay=0.0, skip_known=False)


def found(model: Model, facts: tuple[Fact, ...], term: Suppression | None) -> list[Found]:
    return find_values(model, Site("resid_out", 0), facts, CONTEXTS, [4.0] * len(facts), SETTINGS, term=term)


def readings(model: Model, family: str, fact: Fact, context: str, delta: torch.Tensor) -> list[torch.Tensor]:
    """The logit lens after layers 1 and 2 at the last token, with delta put in by hand after layer 0."""
    text, (_, at) = in_context(context, fact.text), edited_token(model, context, fact, "subject_last")
    body = model.net.transformer if family == "gpt2" else model.net.model
    norm = body.ln_f if family == "gpt2" else body.norm
    states = []

    def add(_module, _args, output):
        (output[0] if isinstance(output, tuple) else output)[0, at] += delta

    def keep(_module, _args, output):
        states.append((output[0] if isinstance(output, tuple) else output)[0, -1].clone())

    blocks = layers_of(model, family)
    hooks = [blocks[0].register_forward_hook(add), *(block.register_forward_hook(keep) for block in blocks[1:])]
    with torch.no_grad():
        model.net(input_ids=torch.tensor([model.encode(text).ids]))
        for hook in hooks:
            hook.remove()
        return [model.net.get_output_embeddings()(norm(state)) for state in states]


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_term_is_that_written_by_hand(family: str) -> None:
    model = model_of(family, dtype=torch.float64)
    term = Suppression(suppress=0.7, margin=-50.0, rivals=5, lens_every=1)
    facts = (EIFFEL, JAPAN)
    for fact, one in zip(facts, found(model, facts, term), strict=True):
        tokens = [
            model.tokenizer(f" {answer}", add_special_tokens=False).input_ids[0]
            for answer in (fact.target_true, fact.target_new)
        ]
        with torch.no_grad():
            bare = model.net(input_ids=torch.tensor([model.encode(fact.text).ids])).logits[0, -1]
        rivals = [token for token in bare.argsort(descending=True).tolist() if token not in tokens][:5]
        terms = [
            max(0.0, float(logits[tokens[0]] - logits[rivals].mean()) + 50.0)
            for context in CONTEXTS
            for logits in readings(model, family, fact, context, one.delta)
        ]
        assert sum(value > 0 for value in terms) == 2 * len(CONTEXTS)
        assert one.loss - one.nll == pytest.approx(0.7 * sum(terms) / len(terms), rel=1e-9)


def test_facts_do_not_mix_and_a_finished_one_leaves() -> None:
    model = model_of("gpt2", dtype=torch.float64)
    term = Suppression(margin=-50.0, lens_every=1)
    for fact, together in zip(FACTS, found(model, FACTS, term), strict=True):
        (alone,) = found(model, (fact,), term)
        torch.testing.assert_close(together.delta, alone.delta)


def test_without_an_old_answer_the_first_choice_is_suppressed() -> None:
    model = model_of("gpt2", dtype=torch.float64)
    with torch.no_grad():
        first = int(model.net(input_ids=torch.tensor([model.encode(EIFFEL.text).ids])).logits[0, -1].argmax())
    bare = replace(EIFFEL, target_true=None)
    term = Suppression(margin=-50.0, lens_every=1)
    (one,) = find_values(
        model, Site("resid_out", 0), [bare], ("",), [4.0], replace(SETTINGS, steps=1), term=replace(term, suppress=1.0)
    )
    read = readings(model, "gpt2", bare, "", torch.zeros(32, dtype=torch.float64))
    with torch.no_grad():
        likely = (
            model.net(input_ids=torch.tensor([model.encode(EIFFEL.text).ids])).logits[0, -1].argsort(descending=True)
        )
    new = model.tokenizer(f" {bare.target_new}", add_special_tokens=False).input_ids[0]
    rivals = [token for token in likely.tolist() if token not in (first, new)][:16]
    wanted = sum(max(0.0, float(z[first] - z[rivals].mean()) + 50) for z in read) / len(read)
    assert one.loss - one.nll == pytest.approx(wanted, rel=1e-9)


def test_with_nothing_more_demanded_it_is_memit() -> None:
    model = model_of("gpt2")
    ours = pal.edit(model, FACTS, method="overwrite", preset="memit", text=documents(), **FEW)
    theirs = pal.edit(model, FACTS, method="memit", text=documents(), **FEW)
    for one, other in zip(ours.payloads, theirs.payloads, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one.tensors().values(), other.tensors().values(), strict=True))


def test_it_keeps_the_contract_of_every_editor() -> None:
    def make(model: Model, facts: Sequence[Fact]) -> pal.Edit:
        return pal.edit(model, facts, method="overwrite", text=documents(), **FEW)

    check_editor(make, model_of("gpt2"), FACTS)


def test_wordings_are_held_in_where_they_hold_the_subject_once() -> None:
    model = model_of("gpt2")
    editor: Any = pal.editor(model, "overwrite", text=documents(), held_in=2, **FEW)
    texts = (
        "It is said that Eiffel Tower stands in",
        "Where is it?",
        "Eiffel Tower, Eiffel Tower: in",
        "See Eiffel Tower in",
    )
    held = editor._held_in(replace(EIFFEL, paraphrases=texts))
    assert [fact.text for fact in held] == [texts[0], texts[3]]
    assert editor.card["held_in"] == 2
    assert editor.card["suppression"]["lens_every"] == 4


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"held_in": -1}, "whole number of 0 or more, got -1"),
        ({"suppress": -0.5}, "0 or more, got -0.5"),
        ({"rivals": 0}, "whole number of 1 or more, got 0"),
        ({"supress": 1.0}, "Did you mean 'suppress'"),
    ],
)
def test_a_setting_out_of_range_is_named(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SettingError, match=sentence):
        pal.editor(model_of("gpt2"), "overwrite", text=documents(), **FEW, **given)


def test_on_the_made_world_the_old_answer_falls_further_than_under_memit() -> None:
    model = pal.load("world", check=False)
    facts = passing(
        model, [fact for fact in made_world().records(["headquarters"]) if fact.target_new], "known", limit=6
    )
    chance = {}
    for method in ("memit", "overwrite"):
        editor: Any = pal.editor(model, method)
        scores = []
        for fact, edit in zip(facts, editor.edit_each(facts), strict=True):
            with edit.applied(model):
                text = fact.paraphrases[-1]
                old, new = _log_p(model, text, (str(fact.target_true), str(fact.target_new)))
            scores.append((old, new > old))
        chance[method] = scores
    falls = [a[0] - b[0] for a, b in zip(chance["memit"], chance["overwrite"], strict=True)]
    assert all(won for _, won in chance["overwrite"])
    assert sum(falls) / len(falls) > 0.5


def _log_p(model: Model, text: str, answers: tuple[str, ...]) -> list[float]:
    logits = model.net(input_ids=torch.tensor([model.encode(text).ids])).logits[0, -1].log_softmax(-1)
    return [float(logits[model.tokenizer(f" {a}", add_special_tokens=False).input_ids[0]]) for a in answers]
