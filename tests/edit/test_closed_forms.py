"""MEMIT, EMMET and AlphaEdit against dense textbook versions, and what each promises about its update."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from oracles.small import CONTEXTS, EIFFEL, FACTS, documents, layers_of, model_of
from oracles.textbook_memit import (
    DenseSolve,
    alphaedit_solve,
    compute_z,
    emmet_solve,
    memit_solve,
    projector,
    write_dense,
)
from palimpsest.edit import Dense, LowRank, SecondMoment, collect_moments
from palimpsest.edit.closed_form import ClosedForm
from palimpsest.edit.keys import combine
from palimpsest.edit.memory import Memory
from palimpsest.edit.methods.alphaedit import AlphaEdit
from palimpsest.edit.methods.emmet import Emmet
from palimpsest.edit.methods.memit import Memit
from palimpsest.edit.methods.rome import Rome
from palimpsest.edit.walk import Walk
from palimpsest.errors import EditError, SettingError, WeightError
from palimpsest.facts import Fact
from palimpsest.model import Model

LAYERS = (0, 1)
QUICK: dict[str, Any] = {"steps": 6, "clamp": 0.75}
METHODS: dict[str, tuple[type[ClosedForm], dict[str, Any]]] = {
    "memit": (Memit, {"layers": LAYERS, "moment_weight": 20.0}),
    "pmet": (Memit, {"layers": LAYERS, "moment_weight": 20.0, "spread": "root"}),
    "emmet": (Emmet, {"layers": (1,), "moment_weight": 2.0, "softness": 0.3}),
    "emmet exact": (Emmet, {"layers": (1,)}),
    "alphaedit": (AlphaEdit, {"layers": LAYERS, "energy": None, "threshold": 0.0, "ridge": 2.0}),
}


def moments_of(model: Model) -> dict[int, SecondMoment]:
    """C of all layers."""
    return collect_moments(model, range(model.n_layers), documents(), tokens=1500)


def half_threshold(moments: dict[int, SecondMoment]) -> float:
    """A threshold that puts part of the directions of every layer into the null space."""
    return float(torch.stack([torch.linalg.eigvalsh(moments[layer].matrix)[24] for layer in LAYERS]).mean())


def prepared(model: Model, method: str, moments: dict[int, SecondMoment], **settings: Any) -> ClosedForm:
    """The editor, with the contexts of `small`."""
    made, own = METHODS[method]
    if method == "alphaedit":
        own = own | {"threshold": half_threshold(moments)}
    editor = made(model, moments=moments, contexts=((5, 1),), **(own | QUICK | settings))
    editor.contexts = CONTEXTS
    return editor


def dense_solve(method: str, moments: dict[int, SecondMoment], cache: dict[int, torch.Tensor]) -> DenseSolve:
    """The dense solve of a method's paper."""
    matrices = {layer: moment.matrix for layer, moment in moments.items()}
    if method in ("memit", "pmet"):
        return memit_solve(matrices, 20.0)
    if method.startswith("emmet"):
        return emmet_solve(matrices, *((2.0, 0.3) if method == "emmet" else (1.0, 0.0)))
    threshold = half_threshold(moments)
    return alphaedit_solve({l: projector(matrices[l], threshold) for l in LAYERS}, cache, 2.0)


def textbook(
    family: str, method: str, facts: tuple[Fact, ...], moments: dict[int, SecondMoment]
) -> dict[int, torch.Tensor]:
    """dW by layer on a fresh model."""
    model = model_of(family, dtype=torch.float64)
    layers = METHODS[method][1]["layers"]
    blocks, downs = layers_of(model, family), [model.anatomy.down(l).module for l in range(model.n_layers)]
    found = [compute_z(model.net, model.tokenizer, blocks[layers[-1]], f, CONTEXTS, **QUICK) for f in facts]
    return write_dense(
        model.net, model.tokenizer, blocks, downs, layers, facts, CONTEXTS, found, dense_solve(method, moments, {}),
        root=method == "pmet",
    )  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox_parallel"])
def test_the_update_is_the_dense_textbook_update(family: str, method: str) -> None:
    model = model_of(family, dtype=torch.float64)
    moments = moments_of(model)
    edit = prepared(model, method, moments).edit(FACTS)
    expected = textbook(family, method, FACTS, moments)
    assert len(edit.payloads) == len(expected)
    for payload, (layer, update) in zip(edit.payloads, expected.items(), strict=True):
        assert payload.path == f"{model.anatomy.down(layer).path}.weight"
        assert isinstance(payload, LowRank)
        assert payload.rank <= len(FACTS)
        found = payload.u.double() @ payload.v.double()
        # factors are stored in float32; the solve itself is tested to 1e-8 below
        assert float((found - update).norm()) <= 2e-6 * float(update.norm())


@pytest.mark.parametrize("method", METHODS)
def test_the_solve_is_the_dense_solve_in_float64(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same, before factors are rounded to float32."""
    monkeypatch.setattr(torch.Tensor, "float", lambda tensor: tensor)
    model = model_of("llama", dtype=torch.float64)
    moments = moments_of(model)
    editor = prepared(model, method, moments)
    draw = torch.Generator().manual_seed(0)
    for layer in editor.layers:
        k = torch.randn(5, 48, dtype=torch.float64, generator=draw)
        r = torch.randn(5, 32, dtype=torch.float64, generator=draw)
        memory = Memory()
        cache = {layer: torch.zeros(48, 48, dtype=torch.float64)}
        if method == "alphaedit":
            earlier = torch.randn(60, 48, dtype=torch.float64, generator=draw)
            memory.add(layer, earlier)
            cache = {layer: earlier.T @ earlier}
        update = editor._solve(editor.price(layer, memory), layer, k, r, editor.softness(5))
        book = dense_solve(method, moments, cache)(layer, k.T, r.T)
        assert float((update.u @ update.v - book).norm()) <= 1e-8 * float(book.norm())


def change(payload: object) -> torch.Tensor:
    assert isinstance(payload, LowRank)
    return payload.u.double() @ payload.v.double()


def keys_at(editor: ClosedForm, facts: tuple[Fact, ...], layer: int) -> torch.Tensor:
    """The keys the method wrote at, on the model as it is, in order."""
    rows = torch.zeros(len(facts), 48, dtype=torch.float64)
    for which, (keys,) in Walk(editor.model, facts, editor.contexts).read(layer, "key"):
        rows[which] = combine(keys, "halves")
    return rows


def test_emmet_meets_every_constraint_when_its_softness_is_0() -> None:
    model = model_of("llama", dtype=torch.float64)
    moments = moments_of(model)
    exact, soft = (prepared(model, "emmet", moments, softness=s).edit(FACTS) for s in (0.0, 0.3))
    editor = prepared(model, "emmet", moments)
    keys = keys_at(editor, FACTS, 1)
    walk = Walk(model, FACTS, editor.contexts)
    deltas = torch.stack([one.delta for one in editor._find(FACTS, [[0], [1], [2]], editor._states(walk, 3), None)])
    met = keys @ change(exact.payloads[0]).T
    assert float((met - deltas).norm()) <= 2e-6 * float(deltas.norm())
    assert float((keys @ change(soft.payloads[0]).T - deltas).norm()) > 1e-2 * float(deltas.norm())


def test_one_fact_of_emmet_is_rome_at_the_output_of_the_layer() -> None:
    model = model_of("llama", dtype=torch.float64)
    moments = moments_of(model)
    emmet = prepared(model, "emmet exact", moments).edit([EIFFEL])
    rome = Rome(model, moments=moments, layers=(1,), contexts=((5, 1),), site="resid_out", **QUICK)
    rome.contexts = CONTEXTS
    torch.testing.assert_close(change(emmet.payloads[0]), change(rome.edit([EIFFEL]).payloads[0]), rtol=1e-6, atol=1e-8)


def test_the_update_of_alphaedit_lies_in_the_null_space() -> None:
    model = model_of("llama", dtype=torch.float64)
    moments = moments_of(model)
    edit = prepared(model, "alphaedit", moments).edit(FACTS)
    for layer, payload in zip(LAYERS, edit.payloads, strict=True):
        p = projector(moments[layer].matrix, half_threshold(moments))
        assert 0 < float(torch.trace(p)) < 48
        w = change(payload)
        assert float((w - w @ p).norm()) <= 1e-6 * float(w.norm())
        used = torch.linalg.eigh(moments[layer].matrix).eigenvectors[:, -1]  # what ordinary text uses most
        assert float((w @ used).norm()) <= 1e-6 * float(w.norm())


@pytest.mark.parametrize("settings", [{"energy": 0.999999, "threshold": None}, {"energy": None, "threshold": 1e9}])
def test_a_null_space_of_everything_is_refused(settings: dict[str, Any]) -> None:
    model = model_of("llama")
    editor = prepared(model, "alphaedit", moments_of(model), **settings)
    with pytest.raises(EditError, match="null space"):
        editor.edit([EIFFEL])


TOWERS = tuple(replace(EIFFEL, subject=f"Tower {i}", id=f"tower{i}") for i in range(60))


def test_more_facts_than_a_key_is_wide_are_summed_and_give_the_same() -> None:
    model = model_of("llama", dtype=torch.float64)
    moments = moments_of(model)
    editor = prepared(model, "memit", moments, layers=(1,), steps=2)
    edit = editor.edit(TOWERS)
    (payload,) = edit.payloads
    keys = keys_at(editor, TOWERS, 1)
    walk = Walk(model, TOWERS, editor.contexts)
    found = editor._find(TOWERS, [[i] for i in range(60)], editor._states(walk, 60), None)
    deltas = torch.stack([one.delta for one in found])
    book = memit_solve({1: moments[1].matrix}, 20.0)(1, keys.T, deltas.T)
    written = payload.delta.double() if isinstance(payload, Dense) else change(payload)
    assert float((written - book).norm()) <= 2e-6 * float(book.norm())
    with pytest.raises(EditError, match="cannot all be met exactly"):
        prepared(model, "emmet exact", moments, steps=1).edit(TOWERS)


def test_a_batch_is_no_larger_in_the_file_than_the_dense_change() -> None:
    model = model_of("llama")
    edit = prepared(model, "memit", moments_of(model), steps=1).edit(TOWERS[:30])
    for payload in edit.payloads:
        assert sum(tensor.numel() for tensor in payload.tensors().values()) <= 48 * 32


def test_batches_see_the_model_as_edited_so_far() -> None:
    model = model_of("llama", dtype=torch.float64)
    moments = moments_of(model)
    batched = prepared(model, "memit", moments, batch=2).edit(FACTS)
    first = prepared(model, "memit", moments).edit(FACTS[:2])
    with first.applied(model):
        second = prepared(model, "memit", {l: SecondMoment(m.matrix, m.count, {}) for l, m in moments.items()})
        second.contexts = CONTEXTS
        last = second.edit(FACTS[2:])
    for i in range(2):
        summed = change(first.payloads[i]) + change(last.payloads[i])
        assert float((change(batched.payloads[i]) - summed).norm()) <= 1e-5 * float(summed.norm())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("method", ["memit", "emmet", "alphaedit"])
def test_half_precision_models_are_edited_without_nan(method: str, dtype: torch.dtype) -> None:
    model = model_of("llama", dtype=dtype)
    before = model.fingerprint()
    moments = {l: SecondMoment(m.matrix, m.count, {}) for l, m in moments_of(model_of("llama")).items()}
    edit = prepared(model, method, moments).edit(FACTS)
    for payload in edit.payloads:
        assert isinstance(payload, LowRank)
        assert payload.u.dtype == payload.v.dtype == torch.float32
        assert torch.isfinite(payload.u).all()
        assert torch.isfinite(payload.v).all()
        assert payload.norm > 0
    with edit.applied(model):
        assert all(torch.isfinite(model.parameter(payload.path)).all() for payload in edit.payloads)
    assert model.fingerprint() == before


@pytest.mark.parametrize("method", ["memit", "emmet exact", "alphaedit"])
def test_each_alone_is_each_edited_alone(method: str) -> None:
    model = model_of("llama", dtype=torch.float64)
    editor = prepared(model, method, moments_of(model))
    for fact, edit in zip(FACTS, editor.edit_each(FACTS), strict=True):
        alone = editor.edit([fact])
        assert edit.facts == alone.facts == (fact,)
        for one, other in zip(edit.payloads, alone.payloads, strict=True):
            torch.testing.assert_close(change(one), change(other), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    ("made", "settings", "sentence"),
    [
        (Memit, {"layers": (1, 0)}, "ascending order, got"),
        (Memit, {"layers": (0, 5)}, "no layer 5"),
        (Memit, {"moment_weight": -1.0}, "0 or more, got -1"),
        (Memit, {"spread": "evn"}, "even and root, got 'evn'"),
        (Memit, {"site": "value", "layers": (0, 1)}, "one layer, got 2"),
        (Emmet, {"layers": (0, 1)}, "EMMET edits one layer, got 2"),
        (Emmet, {"softness": -0.1}, "0 or more"),
        (AlphaEdit, {"ridge": -1.0}, "0 or more, got -1"),
        (AlphaEdit, {"preset": "alphaedit"}, "Did you mean 'alphaedit-2025'"),
        (Rome, {"preset": "rome-2022", "batch": 3}, "one fact at a time, got batch=3"),
    ],
)
def test_settings_out_of_range(made: type[ClosedForm], settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SettingError, match=sentence) as refused:
        made(model_of("llama"), text=documents(), contexts=((5, 1),), **settings)
    assert "\n" not in str(refused.value)


def test_moments_of_another_model_are_refused() -> None:
    moments = moments_of(model_of("llama", seed=5))
    with pytest.raises(WeightError, match="another model"):
        Memit(model_of("llama"), layers=(0, 1), moments=moments, contexts=((5, 1),))
    with pytest.raises(SettingError, match="No second moment was given for layer 1"):
        Memit(model_of("llama", seed=5), layers=(0, 1), moments={0: moments[0]}, contexts=((5, 1),))
