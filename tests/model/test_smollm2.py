"""The real model that comes with palimpsest."""

import pytest
import torch

from palimpsest.model import Model, Site, examine, load, pad

pytestmark = pytest.mark.floor


@pytest.fixture(scope="module")
def model() -> Model:
    pytest.importorskip("gguf")
    return load("smollm2")


def test_it_is_whole(model):
    assert (model.n_layers, model.anatomy.width, model.context) == (30, 576, 8192)
    assert model.net.dtype == torch.float32
    assert model.anatomy.down(9).path == "model.layers.9.mlp.down_proj"
    assert (
        model.net.config.rope_parameters["rope_theta"] == 100000
        if hasattr(model.net.config, "rope_parameters")
        else True
    )


def test_it_is_healthy(model):
    found = examine(model, thorough=False)
    assert all(check.passed for check in found.checks), found.verdict


def test_it_knows_where_the_eiffel_tower_is(model):
    text = "The Eiffel Tower is located in the city of"
    probability = model.last_logits(pad([model.encode(text).ids])).softmax(-1)[0]
    (paris,) = model.tokenizer.encode(" Paris", add_special_tokens=False)
    assert int(probability.argmax()) == paris
    assert float(probability[paris]) == pytest.approx(0.70, abs=0.01)


def test_its_tokenizer_is_the_one_it_was_trained_with(model):
    encoded = model.encode("The Eiffel Tower, built in 1889")
    words = model.tokenizer.convert_ids_to_tokens(list(encoded.ids))
    assert words == ["The", "ĠE", "iffel", "ĠTower", ",", "Ġbuilt", "Ġin", "Ġ", "1", "8", "8", "9"]
    assert list(encoded.tokens_of(4, 16)) == [1, 2, 3]
    assert model.tokenizer.decode(encoded.ids) == encoded.text
    ids, begin = model.encode_answer("The capital of Switzerland is", "Zürich")
    assert model.tokenizer.decode(ids[begin:]) == " Zürich"


def test_it_starts_at_a_layer(model):
    batch = pad([model.encode("The capital of France is").ids])
    resid = model.record(batch, [Site("resid_in", 20)])[Site("resid_in", 20)]
    with torch.no_grad():
        assert torch.equal(model.run(batch, start=20, resid=resid), model.run(batch))
