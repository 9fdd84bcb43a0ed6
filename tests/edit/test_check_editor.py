"""The contract of editors: good ones pass it on every family, bad ones fail at the clause they break."""

from collections.abc import Callable

import pytest
import torch
from small_editors import BAD, GOOD, low_rank, rome

from oracles.small import EIFFEL, JAPAN, model_of
from palimpsest.edit import Edit, check_editor
from palimpsest.errors import ContractError


@pytest.mark.parametrize("make", GOOD.values(), ids=GOOD)
@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox_parallel"])
def test_good_editors_keep_the_contract(family: str, make: Callable[..., Edit]) -> None:
    model = model_of(family)
    before = model.fingerprint()
    edit = check_editor(make, model, [EIFFEL, JAPAN])
    assert edit.facts == (EIFFEL, JAPAN)
    assert model.fingerprint() == before
    assert model.applied == []


def test_an_editor_may_say_how_many_directions_a_fact_takes() -> None:
    model = model_of("llama")
    with pytest.raises(ContractError, match="clause 9.*rank_per_fact=2"):
        check_editor(low_rank, model, [EIFFEL])
    check_editor(low_rank, model, [EIFFEL], rank_per_fact=2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)
def test_the_contract_holds_in_other_precisions(dtype: torch.dtype) -> None:
    check_editor(rome, model_of("llama", dtype=dtype), [EIFFEL])


def test_a_large_edit_of_a_half_precision_weight_keeps_it_too() -> None:
    from small_editors import LowRank, down_weight, draw, made

    model = model_of("llama", dtype=torch.bfloat16)
    check_editor(
        lambda model, facts: made(model, facts, LowRank(down_weight(model), draw(32, 1, scale=10.0), draw(1, 48))),
        model,
        [EIFFEL],
    )


def test_dropout_of_a_model_in_training_is_off_while_it_is_checked() -> None:
    model = model_of("gpt2")
    model.net.train()
    check_editor(rome, model, [EIFFEL])
    assert model.net.training


@pytest.mark.parametrize(("make", "clause"), BAD.values(), ids=BAD)
def test_bad_editors_fail_at_their_clause_and_the_model_is_left_as_found(
    make: Callable[..., Edit], clause: str
) -> None:
    model = model_of("llama")
    before = model.fingerprint()
    with pytest.raises(ContractError, match=clause) as broken:
        check_editor(make, model, [EIFFEL, JAPAN])
    assert "\n" not in str(broken.value)
    assert model.fingerprint() == before
    assert model.applied == []
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.net.modules())


def test_an_edit_that_was_in_the_model_before_stays_there() -> None:
    model = model_of("llama")
    outer = GOOD["hook"](model, [EIFFEL])
    with outer.applied(model):
        check_editor(rome, model, [EIFFEL])
        with pytest.raises(ContractError):
            check_editor(BAD["leaves its edit in the model"][0], model, [EIFFEL])
        assert [entry.edit for entry in model.applied] == [outer]
    assert model.applied == []
