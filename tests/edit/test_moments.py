"""Second moments: the same from batches, in one pass for several layers, from the cache and from a plain loop."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from families import byte_tokenizer
from oracles.small import LAYER, documents, down_of, model_of
from oracles.textbook_moments import textbook_moments
from palimpsest.edit import SecondMoment, cached_moments, collect_moments, moments
from palimpsest.edit.moments import collect, load_moment, save_moment
from palimpsest.errors import AnatomyError, EditError, InputError, SettingError
from palimpsest.model import Model


def plain_loop(model: Model, family: str, layer: int, text: str, tokens: int) -> tuple[torch.Tensor, int]:
    """C as one writes it down first: document after document, token after token."""
    keys: list[torch.Tensor] = []
    hook = down_of(model, family, layer).register_forward_pre_hook(
        lambda module, inputs: keys.extend(inputs[0].reshape(-1, inputs[0].shape[-1]).double())
    )
    for document in text.split("\n\n"):
        ids = model.tokenizer(document).input_ids[: tokens - len(keys)]
        if ids:
            model.net(input_ids=torch.tensor([ids]))
    hook.remove()
    return sum(torch.outer(k, k) for k in keys) / len(keys), len(keys)  # type: ignore[return-value]


@pytest.mark.parametrize("family", ["gpt2", "llama", "opt"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_c_is_the_mean_outer_product(family: str, dtype: torch.dtype, tolerance: float) -> None:
    model = model_of(family, dtype=dtype, tokenizer=byte_tokenizer(bos=family == "llama"))
    text = documents(12)
    expected, count = plain_loop(model, family, LAYER, text, 500)
    found = collect_moments(model, [LAYER], text, tokens=500)[LAYER]
    assert found.count == count == 500
    assert found.matrix.dtype == torch.float64
    torch.testing.assert_close(found.matrix, expected, rtol=0, atol=tolerance * float(expected.abs().max()))


def test_one_pass_is_the_textbooks_pass_for_each_layer() -> None:
    model = model_of("llama", dtype=torch.float64)
    downs = [down_of(model, "llama", layer) for layer in range(3)]
    book = textbook_moments(model.net, model.tokenizer, downs, documents(), 700, longest=256, batch_tokens=300)
    found = collect_moments(model, range(3), documents(), tokens=700)
    for layer, (expected, count) in enumerate(book):
        assert found[layer].count == count == 700
        torch.testing.assert_close(found[layer].matrix, expected, rtol=0, atol=1e-12 * float(expected.abs().max()))


def test_documents_longer_than_a_window_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("llama", dtype=torch.float64)
    text = documents(30).replace("\n\n", " ", 20)  # one long document and some short ones
    assert len(model.tokenizer(text.split("\n\n")[0]).input_ids) > 256
    (expected, count), *_ = textbook_moments(
        model.net, model.tokenizer, [down_of(model, "llama", LAYER)], text, 10_000, longest=256
    )
    monkeypatch.setattr(collect, "BATCH_TOKENS", 90)
    found = collect_moments(model, [LAYER], text, tokens=10_000)[LAYER]
    assert found.count == count
    torch.testing.assert_close(found.matrix, expected, rtol=0, atol=1e-12)


def test_the_matrix_is_exactly_symmetric() -> None:
    matrix = collect_moments(model_of("gpt2"), [LAYER], documents(), tokens=500)[LAYER].matrix
    assert torch.equal(matrix, matrix.T)


def test_half_precision_is_summed_in_float64() -> None:
    model = model_of("llama", dtype=torch.bfloat16)
    found = collect_moments(model, [LAYER], documents(), tokens=500)[LAYER]
    (expected, _), *_ = textbook_moments(
        model.net.float(), model.tokenizer, [down_of(model, "llama", LAYER)], documents(), 500
    )
    assert found.matrix.dtype == torch.float64
    assert found.provenance["dtype"] == "torch.bfloat16"
    assert float((found.matrix - expected).norm() / expected.norm()) < 0.05


def test_batches_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("llama", dtype=torch.float64)
    monkeypatch.setattr(collect, "BATCH_TOKENS", 10**6)
    whole = collect_moments(model, [LAYER], documents(), tokens=1500)[LAYER]
    for size in (1, 100, 2048):
        monkeypatch.setattr(collect, "BATCH_TOKENS", size)
        streamed = collect_moments(model, [LAYER], documents(), tokens=1500)[LAYER]
        assert streamed.count == whole.count
        torch.testing.assert_close(streamed.matrix, whole.matrix, rtol=0, atol=1e-12)


def test_several_layers_in_one_pass_are_those_of_one_pass_each() -> None:
    model = model_of("gpt2")
    together = collect_moments(model, [2, 0, 1], documents(), tokens=600)
    for layer in range(3):
        alone = collect_moments(model, [layer], documents(), tokens=600)[layer]
        torch.testing.assert_close(together[layer].matrix, alone.matrix, rtol=0, atol=0)
        assert together[layer].provenance == alone.provenance


def test_dropout_is_off_meanwhile() -> None:
    model = model_of("gpt2")
    quiet = collect_moments(model, [LAYER], documents(), tokens=500)[LAYER]
    model.net.train()
    assert torch.equal(collect_moments(model, [LAYER], documents(), tokens=500)[LAYER].matrix, quiet.matrix)
    assert model.net.training


def test_the_budget_is_ten_times_the_key_width_and_ends_with_the_text() -> None:
    model = model_of("llama")
    assert collect_moments(model, [LAYER], documents())[LAYER].count == 480
    short = documents(3)
    total = sum(len(model.tokenizer(d).input_ids) for d in short.split("\n\n"))
    assert collect_moments(model, [LAYER], short, tokens=10_000)[LAYER].count == total


def test_solve_is_the_inverse() -> None:
    moment = collect_moments(model_of("llama"), [LAYER], documents(), tokens=1500)[LAYER]
    k = torch.randn(48, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    np.testing.assert_allclose(moment.solve(k), np.linalg.solve(moment.matrix.numpy(), k.numpy()), rtol=1e-8)
    assert moment.condition == pytest.approx(np.linalg.cond(moment.matrix.numpy()), rel=1e-6)
    identity = SecondMoment.identity(48)
    assert torch.equal(identity.solve(k), k)
    assert identity.condition == 1


@pytest.mark.parametrize("tokens", [20, 47])
def test_too_little_text_is_said_with_the_number_of_tokens(tokens: int) -> None:
    moment = collect_moments(model_of("llama"), [LAYER], documents(), tokens=tokens)[LAYER]
    with pytest.raises(
        EditError, match=f"48 wide and was measured on {tokens} tokens; measure it on 480 tokens, the default,"
    ):
        moment.solve(torch.ones(48))


def test_a_singular_moment_is_refused() -> None:
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[3, 3] = 0
    with pytest.raises(EditError, match="singular"):
        SecondMoment(matrix, 100, {"module": "h.1"}).solve(torch.ones(4))
    matrix[3, 3] = float("nan")
    with pytest.raises(EditError, match="singular"):
        SecondMoment(matrix, 100, {}).solve(torch.ones(4))


@pytest.mark.parametrize("text", ["", "\n\n \n\n"])
def test_empty_text_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="empty"):
        collect_moments(model_of("gpt2"), [LAYER], text)


def test_no_layer_is_refused() -> None:
    with pytest.raises(SettingError, match="no layer"):
        collect_moments(model_of("gpt2"), [], documents())


def test_layers_must_exist_and_have_a_down_projection() -> None:
    with pytest.raises(SettingError, match="Did you mean 2"):
        collect_moments(model_of("gpt2"), [3], documents())
    with pytest.raises(AnatomyError, match="experts"):
        collect_moments(model_of("mixtral"), [1], documents())


def test_a_moment_is_measured_once(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("gpt2", seed=11)
    first = cached_moments(model, [0, 1], documents(), tokens=500)
    measured: list[Any] = []
    monkeypatch.setattr(
        moments, "collect_moments", lambda *args, **kwargs: measured.append(args) or collect_moments(*args, **kwargs)
    )
    again = cached_moments(model, [1], documents(), tokens=500)
    assert not measured
    assert torch.equal(again[1].matrix, first[1].matrix)
    assert again[1].count == first[1].count
    assert again[1].provenance == first[1].provenance
    assert torch.equal(again[1].solve(torch.ones(48)), first[1].solve(torch.ones(48)))
    cached_moments(model, [1], documents() + "More.", tokens=500)
    cached_moments(model, [1], documents(), tokens=501)
    cached_moments(model_of("gpt2", seed=12), [1], documents(), tokens=500)
    assert len(measured) == 3
    assert not [path for path in own_cache.rglob("*") if ".tmp." in path.name]


def test_weights_above_the_layer_do_not_matter_to_its_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("gpt2", seed=13)
    cached_moments(model, [0], documents(), tokens=500)
    with torch.no_grad():
        down_of(model, "gpt2", 2).weight.add_(1.0)
    monkeypatch.setattr(moments, "collect_moments", lambda *args, **kwargs: pytest.fail("measured again"))
    cached_moments(model, [0], documents(), tokens=500)


def test_a_file_of_moments_comes_back_or_says_that_it_is_damaged(tmp_path: Path) -> None:
    moment = collect_moments(model_of("gpt2"), [LAYER], documents(), tokens=500)[LAYER]
    path = tmp_path / "below" / "c.safetensors"
    save_moment(moment, path)
    loaded = load_moment(path)
    assert torch.equal(loaded.matrix, moment.matrix)
    assert (loaded.count, loaded.provenance["text"]) == (moment.count, moment.provenance["text"])
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(EditError, match="damaged.*delete it"):
        load_moment(path)
