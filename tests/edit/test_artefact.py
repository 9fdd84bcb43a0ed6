"""`Edit`: applied and undone bit for bit, in every order that makes sense and refused in those that do not."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from small_editors import GOOD, dense, down_weight, draw, hook, low_rank, made, rome

from oracles.small import EIFFEL, FACTS, model_of
from palimpsest.edit import Dense, Edit, Hook, LowRank
from palimpsest.errors import AnatomyError, EditError, SettingError, WeightError
from palimpsest.model import Model, Site, pad

MAKERS = pytest.mark.parametrize("make", GOOD.values(), ids=GOOD)


def logits(model: Model) -> torch.Tensor:
    """Of a batch of prompts."""
    return model.last_logits(pad([model.encode(fact.text).ids for fact in FACTS]))


def hooks(model: Model) -> int:
    """How many hooks there are in the network."""
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.net.modules())


@MAKERS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_undo_is_bit_for_bit_in_every_precision(family: str, dtype: torch.dtype, make: Callable[..., Edit]) -> None:
    model = model_of(family, dtype=dtype)
    before, said = model.fingerprint(), logits(model)
    edit = make(model, [EIFFEL])
    assert model.fingerprint() == before
    for dose in (1.0, 0.3, -1.0):
        with edit.applied(model, dose=dose) as same:
            assert same is model
            assert not torch.equal(logits(model), said)
            assert all(weight.dtype == dtype for weight in model.net.parameters())
        assert model.fingerprint() == before
        assert torch.equal(logits(model), said)
    assert (model.applied, hooks(model)) == ([], 0)


@MAKERS
def test_dose_zero_writes_nothing_but_is_an_application(make: Callable[..., Edit]) -> None:
    model = model_of("llama")
    edit, before, said = make(model, [EIFFEL]), model.fingerprint(), logits(model)
    with edit.applied(model, dose=0.0):
        assert model.fingerprint() == before
        assert torch.equal(logits(model), said)
        assert hooks(model) == 0
        with pytest.raises(EditError, match="applied already"):
            edit.apply(model)
    assert model.applied == []


@pytest.mark.parametrize("dose", [float("nan"), float("inf")])
def test_a_dose_is_a_finite_number(dose: float) -> None:
    model = model_of("llama")
    for use in (Edit.apply, Edit.rounding):
        with pytest.raises(SettingError, match="dose of an edit must be a finite number"):
            use(low_rank(model, [EIFFEL]), model, dose)
    assert model.applied == []


@MAKERS
def test_an_error_inside_the_block_undoes_too(make: Callable[..., Edit]) -> None:
    model = model_of("llama")
    edit, before = make(model, [EIFFEL]), model.fingerprint()
    with pytest.raises(ZeroDivisionError), edit.applied(model):
        raise ZeroDivisionError
    assert model.fingerprint() == before
    assert (model.applied, hooks(model)) == ([], 0)


@MAKERS
def test_applying_twice_and_undoing_what_is_not_there_are_refused(make: Callable[..., Edit]) -> None:
    model = model_of("llama")
    edit, before = make(model, [EIFFEL]), model.fingerprint()
    with pytest.raises(EditError, match="not applied"):
        edit.undo(model)
    edit.apply(model)
    changed = model.fingerprint()
    with pytest.raises(EditError, match="applied already"):
        edit.apply(model)
    assert model.fingerprint() == changed
    edit.undo(model)
    assert model.fingerprint() == before
    with pytest.raises(EditError, match="not applied"):
        edit.undo(model)


def test_a_later_edit_of_the_same_weight_is_undone_first() -> None:
    model = model_of("llama")
    before = model.fingerprint()
    first = low_rank(model, [EIFFEL])
    first.apply(model)
    middle = model.fingerprint()
    second = low_rank(model, [EIFFEL], seed=7)
    second.apply(model)
    with pytest.raises(EditError, match="first: it was applied later.*down_proj"):
        first.undo(model)
    second.undo(model)
    assert model.fingerprint() == middle
    first.undo(model)
    assert model.fingerprint() == before


def test_edits_of_different_weights_are_undone_in_any_order() -> None:
    model = model_of("llama")
    before = model.fingerprint()
    edits = [low_rank(model, [EIFFEL], layer=0), low_rank(model, [EIFFEL], layer=2), hook(model, [EIFFEL])]
    for edit in edits:
        edit.apply(model)
    for edit in edits:
        edit.undo(model)
    assert model.fingerprint() == before
    assert (model.applied, hooks(model)) == ([], 0)


def test_nested_blocks() -> None:
    model = model_of("gpt2")
    before, said = model.fingerprint(), logits(model)
    outer = rome(model, [EIFFEL])
    with outer.applied(model):
        once = model.fingerprint()
        inner = dense(model, [EIFFEL])
        with inner.applied(model, dose=0.5):
            assert model.fingerprint() != once
        assert model.fingerprint() == once
        with pytest.raises(WeightError):
            low_rank(model_of("gpt2"), [EIFFEL]).apply(model)
    assert model.fingerprint() == before
    assert torch.equal(logits(model), said)


def test_other_weights_are_refused_in_one_sentence_that_names_one() -> None:
    edit = low_rank(model_of("llama"), [EIFFEL])
    other = model_of("llama", seed=1)
    before = other.fingerprint()
    with pytest.raises(WeightError, match=r"model\.layers\.1\.mlp\.down_proj\.weight") as refused:
        edit.apply(other)
    assert "\n" not in str(refused.value)
    assert "LlamaForCausalLM" in str(refused.value)
    assert (other.fingerprint(), other.applied) == (before, [])


def test_a_weight_that_is_not_there_is_refused() -> None:
    edit = low_rank(model_of("llama"), [EIFFEL])
    with pytest.raises(WeightError, match=r"no weight 'model\.layers\.1\.mlp\.down_proj\.weight'"):
        edit.apply(model_of("gpt2"))


def test_an_edit_that_fails_half_way_leaves_nothing() -> None:
    model = model_of("llama")
    before = model.fingerprint()
    good = dense(model, [EIFFEL])
    far = replace(hook(model, [EIFFEL]).payloads[0], site=replace(hook(model, [EIFFEL]).payloads[0].site, layer=9))
    broken = replace(good, payloads=(*good.payloads, far))
    with pytest.raises(SettingError, match="no layer 9"):
        broken.apply(model)
    assert (model.fingerprint(), model.applied, hooks(model)) == (before, [], 0)


def test_a_model_without_the_site_is_refused() -> None:
    model = model_of("mixtral")
    payload = hook(model_of("llama"), [EIFFEL]).payloads[0]
    assert isinstance(payload, Hook)
    edit = made(model, [EIFFEL], replace(payload, site=replace(payload.site, kind="value")))
    with pytest.raises(AnatomyError, match="experts"):
        edit.apply(model)
    assert (model.applied, hooks(model)) == ([], 0)


def test_an_edit_has_one_payload_a_weight() -> None:
    model = model_of("llama")
    payload = low_rank(model, [EIFFEL]).payloads[0]
    with pytest.raises(EditError, match="at most one payload"):
        made(model, [EIFFEL], payload, payload)


def test_what_an_edit_says_of_itself() -> None:
    model = model_of("llama")
    edit = dense(model, [EIFFEL])
    assert down_weight(model) in repr(edit)
    assert "resid_out[1]" in repr(hook(model, [EIFFEL]))
    assert edit.norm == pytest.approx(sum(payload.norm**2 for payload in edit.payloads) ** 0.5)
    assert set(edit.versions) == {"palimpsest", "torch", "transformers"}
    assert edit.settings["model"] == model.name
    assert set(edit.weights) == {payload.path for payload in edit.payloads}  # type: ignore[union-attr]
    assert all(len(digest) == 64 for digest in edit.weights.values())


def test_the_fingerprint_says_where_each_change_goes() -> None:
    a, b, c = draw(4, 1), draw(1, 4, seed=1), draw(4, seed=2)
    one, two = LowRank("one", a, b), LowRank("two", a, 2 * b)
    square = torch.ones(4, 4)
    changes = [
        (Hook(Site("resid_out", 1), a, b, c),),
        (Hook(Site("resid_out", 2), a, b, c),),
        (Hook(Site("mlp_out", 1), a, b, c),),
        (one, two),
        (replace(one, path="two"), replace(two, path="one")),
        (Dense("one", square),),
        (Dense("two", square),),
    ]
    prints = [Edit("small", payloads).fingerprint() for payloads in changes]
    assert len(set(prints)) == len(changes)
    assert prints == [Edit("small", payloads).fingerprint() for payloads in changes]


def test_a_tied_weight_is_one_weight() -> None:
    model = model_of("gpt2", tie_word_embeddings=True)
    before = model.fingerprint()
    embedding = "transformer.wte.weight"
    edit = made(model, [EIFFEL], replace(dense(model, [EIFFEL]).payloads[0], path=embedding,
                                         delta=torch.ones_like(model.parameter(embedding))))  # fmt: skip
    with edit.applied(model):
        assert torch.equal(model.anatomy.head.weight, model.anatomy.embedding.weight)
    assert model.fingerprint() == before
