"""Doses of every payload in every precision, what rounding costs, and weights that are refused."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_editors import dense, down_weight, draw, hook, low_rank, made
from torch import Tensor, nn

from oracles.small import EIFFEL, FACTS, model_of
from palimpsest.edit import Dense, Edit, Hook, LowRank
from palimpsest.errors import EditError, WeightError
from palimpsest.model import Anatomy, Model, Site, pad

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
MODELS = {(family, dtype): model_of(family, dtype=dtype) for family in ("gpt2", "llama") for dtype in DTYPES}
MAKERS = {"low rank": low_rank, "dense": dense, "hook": hook}
ANY = st.tuples(st.sampled_from(list(MODELS)), st.sampled_from(list(MAKERS)), st.integers(0, 3))


def logits(model: Model) -> Tensor:
    """Of a batch of prompts."""
    return model.last_logits(pad([model.encode(fact.text).ids for fact in FACTS]))


@settings(max_examples=40, deadline=None)
@given(ANY)
def test_dose_zero_and_undo_are_exact(drawn: tuple[tuple[str, torch.dtype], str, int]) -> None:
    place, kind, _ = drawn
    model, edit = MODELS[place], MAKERS[kind](MODELS[place], [EIFFEL])
    before, said = model.fingerprint(), logits(model)
    with edit.applied(model, dose=0.0):
        assert model.fingerprint() == before
        assert torch.equal(logits(model), said)
    with edit.applied(model):
        assert not torch.equal(logits(model), said)
    assert model.fingerprint() == before
    assert torch.equal(logits(model), said)


@settings(max_examples=40, deadline=None)
@given(ANY, st.floats(-8, 8).filter(lambda dose: abs(dose) > 1e-2))
def test_the_change_is_linear_in_the_dose(drawn: tuple[tuple[str, torch.dtype], str, int], dose: float) -> None:
    """W(dose) - W = dose dW within half a unit in the last place of what is stored; a hook adds dose times its map."""
    place, kind, seed = drawn
    model = MODELS[place]
    edit = low_rank(model, [EIFFEL], seed=seed) if kind == "low rank" else MAKERS[kind](model, [EIFFEL])
    payload = edit.payloads[0]
    if isinstance(payload, Hook):
        x = draw(2, 3, 32, seed=seed, scale=1.0).double()
        once, much = (payload.tap(d).function(x) for d in (1.0, dose))
        assert once is not None
        assert much is not None
        torch.testing.assert_close(much - x, dose * (once - x), rtol=1e-9, atol=1e-9)
        return
    stored = model.parameter(payload.path)
    weight, eps = stored.double(), torch.finfo(stored.dtype).eps
    full = payload.u.double() @ payload.v.double() if isinstance(payload, LowRank) else payload.delta.double()
    full = full.T if full.shape != weight.shape else full
    new = payload.new_weight(model, dose).double()
    slack = 1e-6 * (weight.abs() + abs(dose) * (1 + full.abs()))  # sums are float32
    smallest = torch.finfo(stored.dtype).smallest_normal * eps
    assert bool(((new - (weight + dose * full)).abs() <= eps * new.abs() + slack + smallest).all())


@pytest.mark.parametrize(
    ("dtype", "least", "most"),
    [(torch.float64, 0.0, 1e-14), (torch.float32, 1e-9, 1e-5), (torch.float16, 1e-4, 0.1), (torch.bfloat16, 1e-3, 0.5)],
    ids=str,
)
@pytest.mark.parametrize("make", [low_rank, dense])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_what_rounding_costs(
    family: str, make: Callable[..., Edit], dtype: torch.dtype, least: float, most: float
) -> None:
    model = model_of(family, dtype=dtype)
    edit, before = make(model, [EIFFEL]), model.fingerprint()
    found = edit.rounding(model)
    assert set(found) == {payload.path for payload in edit.payloads}  # type: ignore[union-attr]
    one = found[down_weight(model)]
    assert least <= one.relative_error <= most
    assert one.dtype == str(dtype).removeprefix("torch.")
    assert model.fingerprint() == before
    if dtype == torch.bfloat16:
        assert edit.rounding(model, 0.01)[one.path].unchanged > 0.1
        assert edit.rounding(model, 0.01)[one.path].relative_error > 5 * one.relative_error


def test_rounding_by_hand() -> None:
    """In bfloat16 1 + 0.001 is 1 and 1 + 2^-7 is itself; an entry that is not meant to change is not counted."""
    model = model_of("llama", dtype=torch.bfloat16)
    path = down_weight(model)
    with torch.no_grad():
        model.parameter(path).fill_(1.0)
    delta = torch.zeros(32, 48)
    delta[0, 0], delta[0, 1] = 0.001, 2.0**-7
    one = made(model, [EIFFEL], Dense(path, delta)).rounding(model)[path]
    assert one.unchanged == 0.5
    assert one.relative_error == pytest.approx(0.001 / math.hypot(0.001, 2.0**-7), rel=1e-5)
    assert one.share == pytest.approx(math.hypot(0.001, 2.0**-7) / (32 * 48) ** 0.5, rel=1e-5)
    nothing = made(model, [EIFFEL], Dense(path, torch.zeros(32, 48))).rounding(model)[path]
    assert (nothing.relative_error, nothing.unchanged) == (0.0, 0.0)


def test_rounding_asks_for_the_weights_the_edit_was_made_for() -> None:
    with pytest.raises(WeightError, match="made for other weights"):
        low_rank(model_of("llama"), [EIFFEL]).rounding(model_of("llama", seed=1))


@pytest.mark.parametrize(
    ("dtype", "number", "dose"),
    [(torch.float16, 1e5, 1.0), (torch.float16, 1e3, 1e3), (torch.float32, 1e38, 1e3), (torch.bfloat16, math.nan, 1.0)],
)
def test_what_is_not_finite_is_never_written(dtype: torch.dtype, number: float, dose: float) -> None:
    model = model_of("llama", dtype=dtype)
    shape = model.parameter(down_weight(model)).shape
    good = low_rank(model, [EIFFEL], layer=0)
    edit = made(model, [EIFFEL], *good.payloads, Dense(down_weight(model), torch.full(shape, number)))
    before = model.fingerprint()
    with pytest.raises(EditError, match=rf"{32 * 48} numbers that are not finite in {str(dtype)[6:]}") as refused:
        edit.apply(model, dose)
    assert "\n" not in str(refused.value)
    assert (model.fingerprint(), model.applied) == (before, [])


def test_a_hook_that_is_not_finite_is_refused() -> None:
    model = model_of("llama")
    bad = Hook(Site("resid_out", 1), torch.zeros(32, 0), torch.zeros(0, 32), torch.full((32,), math.inf))
    with pytest.raises(EditError, match="not finite"):
        made(model, [EIFFEL], bad).apply(model)
    assert model.applied == []


class PackedLinear(nn.Linear):
    """A linear map whose weight is stored in 8-bit integers, two rows to one, as quantised layers keep theirs."""

    def __init__(self, inner: nn.Linear, how: str) -> None:
        super().__init__(inner.in_features, inner.out_features, bias=False)
        self.scale = float(inner.weight.abs().max()) / 127
        whole = (inner.weight.detach() / self.scale).round()
        stored: Any = {
            "integers": whole.to(torch.int8),
            "packed": whole.to(torch.uint8).reshape(-1, 1),
            "packed floats": whole.reshape(-1, 1),
            "short floats": whole.to(torch.float8_e4m3fn),
        }[how]
        self.weight = nn.Parameter(stored, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.to(x.dtype).reshape(self.out_features, self.in_features)
        return nn.functional.linear(x, weight * self.scale)


def quantised(how: str = "integers") -> Model:
    """The tiny Llama with the down-projection of layer 1 replaced."""
    model = model_of("llama")
    mlp = model.net.get_submodule("model.layers.1.mlp")
    mlp.down_proj = PackedLinear(mlp.down_proj, how)  # type: ignore[assignment]
    return Model(model.net, model.tokenizer, Anatomy.find(model.net), "quantised")


@pytest.mark.parametrize("how", ["integers", "packed", "packed floats", "short floats"])
@pytest.mark.parametrize("kind", ["low rank", "dense"])
def test_quantised_weights_are_refused_and_an_adapter_offered(how: str, kind: str) -> None:
    before_it_was, model = MAKERS[kind](model_of("llama"), [EIFFEL]), quantised(how)
    for edit in [before_it_was, low_rank(model, [EIFFEL])]:
        for refused in (edit.apply, edit.rounding):
            with pytest.raises(EditError, match=r"down_proj\.weight .* is quantised .*edit\.to_lora\(folder\)") as said:
                refused(model)
            assert "\n" not in str(said.value)
    assert model.applied == []


def test_a_quantised_module_without_the_tensor_is_named_so() -> None:
    model = model_of("llama")
    edit = low_rank(model, [EIFFEL])
    mlp = model.net.get_submodule("model.layers.1.mlp")
    kept = nn.Module()
    kept.in_features, kept.out_features = 48, 32  # type: ignore[assignment]
    kept.register_buffer("qweight", torch.zeros(6, 32, dtype=torch.int32))
    mlp.down_proj = kept  # type: ignore[assignment]
    with pytest.raises(EditError, match="is quantised"):
        edit.apply(model)
