"""The walk up the layers: the keys of an edited model, whatever is kept on the way."""

from dataclasses import replace

import pytest
import torch

from oracles.small import CONTEXTS, EIFFEL, FACTS, down_of, model_of
from palimpsest.edit import walk as walking
from palimpsest.edit.keys import TOKENS, keys_and_values
from palimpsest.edit.walk import Walk
from palimpsest.facts import Fact
from palimpsest.model import Model, Site, pad


def gathered(walk: Walk, layer: int, count: int) -> dict[str, list[torch.Tensor]]:
    found: dict[str, list[torch.Tensor]] = {"key": [torch.empty(0)] * count, "value": [torch.empty(0)] * count}
    for which, (keys, values) in walk.read(layer, "key", "value"):
        for row, i in enumerate(which.tolist()):
            found["key"][i], found["value"][i] = keys[row], values[row]
    return found


def check_layer(model: Model, walk: Walk, facts: tuple[Fact, ...], layer: int, token: str = "subject_last") -> None:
    found = gathered(walk, layer, len(facts))
    for i, fact in enumerate(facts):
        key, value = keys_and_values(model, layer, fact, CONTEXTS, token)
        torch.testing.assert_close(found["key"][i], key, rtol=0, atol=1e-10)
        torch.testing.assert_close(found["value"][i], value, rtol=0, atol=1e-10)


@pytest.mark.parametrize("keep_bytes", [0, 2**30])
@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox_parallel"])
def test_keys_are_those_of_the_model_as_edited_so_far(family: str, keep_bytes: int) -> None:
    model = model_of(family, dtype=torch.float64)
    walk = Walk(model, FACTS, CONTEXTS, keep_bytes=keep_bytes)
    for layer in range(model.n_layers):
        check_layer(model, walk, FACTS, layer)
        with torch.no_grad():
            weight = down_of(model, family, layer).weight
            weight.add_(
                0.1 * torch.randn(weight.shape, dtype=weight.dtype, generator=torch.Generator().manual_seed(layer))
            )
        outputs = walk.outputs(model.n_layers - 1)
        for i, fact in enumerate(FACTS):
            end = len(model.encode(fact.text).ids)
            last = model.encode(fact.text).tokens_of(*fact.subject_span)[-1]
            site = Site("resid_out", model.n_layers - 1)
            whole = model.record(pad([model.encode(fact.text).ids]), [site])[site]
            assert whole.shape[1] == end
            torch.testing.assert_close(outputs[i], whole[0, last], rtol=0, atol=1e-10)


@pytest.mark.parametrize("token", TOKENS)
def test_every_token_role_can_be_walked(token: str) -> None:
    model = model_of("llama", dtype=torch.float64)
    walk = Walk(model, FACTS, CONTEXTS, token)
    check_layer(model, walk, FACTS, 1, token)


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("llama", dtype=torch.float64)
    facts = tuple(replace(EIFFEL, subject="Tower " * (1 + i % 4) + str(i), id=str(i)) for i in range(9))
    monkeypatch.setattr(walking, "CHUNK_TOKENS", 150)
    walk = Walk(model, facts, CONTEXTS, keep_bytes=60_000)
    assert len(walk._chunks) > 2
    assert {chunk.keeps for chunk in walk._chunks} == {True, False}
    for layer in range(3):
        check_layer(model, walk, facts, layer)
