"""Every kind, window, severed path, corruption and lesion against one full forward per cell."""

from typing import Any

import numpy as np
import pytest
import torch

import palimpsest as pal
from families import FAMILIES, byte_tokenizer
from oracles.small import layers_of, model_of, smollm2
from oracles.textbook_trace import add_noise, patch_every_cell, published_window
from palimpsest.errors import SettingError
from palimpsest.facts import Fact
from palimpsest.locate import EffectMap
from palimpsest.locate.tracing.corruption import noise_draw, subject_embeddings
from palimpsest.locate.tracing.patching import Patch
from palimpsest.model import Model

NAMES = ("Kenya", "Japan", "Italy", "Spain", "China", "India", "Ghana", "Qatar", "Nepal", "Chile", "Egypt", "Libya")
CAPITALS = tuple(
    Fact(name, "The capital of {} is", f"{name[::-1].title()}", "Rome", id=name, relation="capital") for name in NAMES
)
OTHER = (
    Fact("Eiffel Tower", "The {} is located in the city of", "Paris", "Rome", id="eiffel", relation="city"),
    Fact("Danielle Darrieux", "{} speaks", "French", "Swiss", id="darrieux", relation="language"),
)
POOL = CAPITALS + OTHER
PATCHES = [
    ("state", 1, None),
    ("state", 1, "mlp"),
    ("state", 1, "attn"),
    ("mlp", 1, None),
    ("mlp", 2, None),
    ("attn", 3, None),
    ("attn", 10, None),
    ("mlp", 1, "mlp"),
    ("mlp", 2, "attn"),
    ("attn", 1, "mlp"),
]
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-11}


def parts_of(model: Model, family: str) -> dict[str, list[torch.nn.Module]]:
    place, layers = FAMILIES[family], layers_of(model, family)
    mlp = place.mlp if isinstance(place.mlp, str) else place.mlp[0]
    return {
        "state": layers,
        "mlp": [layer.get_submodule(mlp) for layer in layers],
        "attn": [layer.get_submodule(place.attention) for layer in layers],
    }


def tokens_of(model: Model, found: EffectMap, answers: tuple[str, str]) -> list[int]:
    return [model.encode_answer(found.fact.text, answer)[0][len(found.tokens)] for answer in answers]


def corrupted_rows(model: Model, found: EffectMap, width: int) -> tuple[list[tuple[int, ...]], Any]:
    """What the corruption of a map means, said again."""
    ids, (first, end) = tuple(model.tokenizer(found.fact.text).input_ids), found.subject
    settings: dict[str, Any] = found.settings  # type: ignore[assignment]
    kind = settings.get("corruption") or {"noise": "noise"}.get(settings["by"], "swap")
    samples = len(found.log_p_corrupted)
    if kind == "swap":
        names = settings["swapped"]
        assert len(set(names)) == len(names) > 1
        assert found.fact.subject not in names
        return [tuple(model.tokenizer(found.fact.prompt.replace("{}", name)).input_ids) for name in names], None
    positions = range(first, end)
    if kind == "relation":
        bos = len(model.tokenizer("").input_ids)
        positions = [i for i in range(bos, len(ids)) if not first <= i < end]  # type: ignore[assignment]
    if kind == "mean":
        mean = subject_embeddings(model, POOL).mean(0)
        return [ids], lambda embedded: torch.cat(
            [embedded[:, :first], mean.expand(1, end - first, -1), embedded[:, end:]], 1
        )
    draw = noise_draw(samples, len(positions), width, seed=1, fact=found.fact).numpy()
    return [ids] * samples, add_noise(settings["noise_level"] * draw, positions)


def check(model: Model, family: str, found: EffectMap, tolerance: float, cells: Any = None) -> None:
    """One restoration against the textbook."""
    ids = tuple(model.tokenizer(found.fact.text).input_ids)
    settings: dict[str, Any] = found.settings  # type: ignore[assignment]
    answers = (str(found.fact.target_true), str(found.fact.target_new))
    base, donor, patched = patch_every_cell(
        model.net,
        parts_of(model, family),
        corrupted_rows(model, found, model.anatomy.width),
        ([ids], None),
        tokens_of(model, found, answers),
        kind=settings["kind"],
        window=settings["window"],
        severed=settings["severed"],
        cells=cells,
    )
    there = ~np.isnan(patched)
    np.testing.assert_allclose(found.log_p_clean, donor[0], rtol=0, atol=tolerance)
    np.testing.assert_allclose(found.log_p_corrupted, base, rtol=0, atol=tolerance)
    np.testing.assert_allclose(found.log_p_patched[there], patched[there], rtol=0, atol=tolerance)


@pytest.mark.parametrize("patch", PATCHES, ids=str)
@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox_parallel"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_restorations_are_the_textbook_ones(
    family: str, patch: tuple[str, int, str | None], dtype: torch.dtype
) -> None:
    model = model_of(family, dtype=dtype, tokenizer=byte_tokenizer(bos=family == "llama"))
    kind, window, severed = patch
    found = pal.trace(
        model, CAPITALS[0], kind=kind, window=window, severed=severed, samples=3, noise_level=1.0, spread_of=POOL
    )
    assert np.abs(found.effect).max() > 1e-4 * found.clean
    check(model, family, found, TOLERANCE[dtype])


@pytest.mark.parametrize("patch", [("state", 1, None), ("mlp", 2, None), ("state", 1, "mlp")], ids=str)
@pytest.mark.parametrize("corruption", ["noise", "swap", "mean", "relation"])
@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox_parallel"])
def test_every_corruption_is_the_textbook_one(family: str, corruption: str, patch: tuple[str, int, str | None]) -> None:
    model = model_of(family, dtype=torch.float64, tokenizer=byte_tokenizer(bos=family == "llama"))
    kind, window, severed = patch
    found = pal.trace(
        model,
        CAPITALS[0],
        kind=kind,
        window=window,
        severed=severed,
        corruption=corruption,
        samples=4,
        noise_level=1.0,
        spread_of=POOL,
    )
    check(model, family, found, TOLERANCE[torch.float64])


@pytest.mark.parametrize("patch", [("state", 1, None), ("mlp", 2, None), ("attn", 1, "mlp")], ids=str)
@pytest.mark.parametrize("by", ["noise", "interchange", "mean", "zero"])
@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox_parallel"])
def test_lesions_are_the_textbook_ones(family: str, by: str, patch: tuple[str, int, str | None]) -> None:
    model = model_of(family, dtype=torch.float64, tokenizer=byte_tokenizer(bos=family == "llama"))
    kind, window, severed = patch
    found = pal.lesion(
        model,
        CAPITALS[0],
        kind=kind,
        window=window,
        severed=severed,
        by=by,
        samples=3,
        noise_level=1.0,
        spread_of=POOL,
    )
    ids = tuple(model.tokenizer(found.fact.text).input_ids)
    donor = ([ids], None) if by == "zero" else corrupted_rows(model, found, model.anatomy.width)
    rows = 1 if by in ("zero", "mean") else len(donor[0])
    change = {
        "zero": lambda values: {l: torch.zeros_like(value) for l, value in values.items()},
        "mean": lambda values: {l: value.mean(0, keepdim=True) for l, value in values.items()},
    }.get(by, lambda values: values)
    base, other, patched = patch_every_cell(
        model.net,
        parts_of(model, family),
        ([ids] * rows, None),
        donor,
        tokens_of(model, found, (str(found.fact.target_true), "Rome")),
        kind=kind,
        window=window,
        severed=severed,
        donor_values=change,
    )
    np.testing.assert_allclose(found.log_p_clean, base[0], rtol=0, atol=1e-11)
    if by != "zero":
        np.testing.assert_allclose(found.log_p_corrupted, other, rtol=0, atol=1e-11)
    np.testing.assert_allclose(found.log_p_patched, patched, rtol=0, atol=1e-11)
    assert np.abs(found.effect).max() > 1e-4 * found.clean


def test_a_resampled_lesion_puts_in_what_other_prompts_have() -> None:
    model = model_of("gpt2", dtype=torch.float64)
    found = pal.lesion(model, CAPITALS[0], by="resample", samples=5, spread_of=POOL)
    assert found.effects.shape[2] == 2  # two facts of another relation are there
    rows = [model.tokenizer(fact.text).input_ids for fact in OTHER]
    values = torch.cat([_states(model, row, 1) for row in rows])
    t = 2
    ids = torch.tensor([model.tokenizer(found.fact.text).input_ids])
    token = tokens_of(model, found, (str(found.fact.target_true), "Rome"))[0]
    possible = []
    for value in values:

        def put(_: Any, __: Any, output: Any, value: torch.Tensor = value) -> Any:
            hidden = (output[0] if isinstance(output, tuple) else output).clone()
            hidden[0, t] = value
            return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

        handle = layers_of(model, "gpt2")[1].register_forward_hook(put)
        with torch.no_grad():
            possible.append(float(model.net(input_ids=ids).logits[0, -1].log_softmax(-1)[token]))
        handle.remove()
    for got in found.log_p_patched[t, 1, :, 0]:
        assert min(abs(got - one) for one in possible) < 1e-11


def _states(model: Model, ids: list[int], layer: int) -> torch.Tensor:
    kept = []
    handle = layers_of(model, "gpt2")[layer].register_forward_hook(
        lambda _, __, output: kept.append(output[0] if isinstance(output, tuple) else output)
    )
    with torch.no_grad():
        model.net(input_ids=torch.tensor([ids]))
    handle.remove()
    return kept[0].reshape(-1, model.anatomy.width)


@pytest.mark.parametrize("budget", [1, 7, 40, 10_000])
def test_the_batch_budget_changes_nothing(budget: int) -> None:
    model = model_of("llama", dtype=torch.float64)
    usual = pal.trace(model, OTHER[0], kind="mlp", window=2, samples=3, noise_level=1.0, spread_of=POOL)
    found = pal.trace(
        model, OTHER[0], kind="mlp", window=2, samples=3, noise_level=1.0, spread_of=POOL, batch_tokens=budget
    )
    np.testing.assert_allclose(found.log_p_patched, usual.log_p_patched, rtol=0, atol=1e-11)


def test_a_map_of_some_layers_is_part_of_the_whole() -> None:
    model = model_of("llama", dtype=torch.float64)
    usual = pal.trace(model, OTHER[0], kind="attn", window=2, samples=2, noise_level=1.0, spread_of=POOL)
    some = pal.trace(model, OTHER[0], kind="attn", window=2, samples=2, noise_level=1.0, spread_of=POOL, layers=[2, 0])
    assert some.layers == (2, 0)
    assert some.peak[1] in (0, 2)
    np.testing.assert_allclose(some.log_p_patched, usual.log_p_patched[:, [2, 0]], rtol=0, atol=1e-11)


@pytest.mark.parametrize("n_layers", [1, 3, 48])
@pytest.mark.parametrize("window", [1, 2, 5, 10])
def test_windows_are_the_published_ones(window: int, n_layers: int) -> None:
    for l in range(n_layers):
        assert Patch("mlp", window).layers(l, n_layers) == published_window(l, window, n_layers)
    assert Patch("mlp", 10).layers(20, 48) == range(15, 25)


@pytest.mark.slow
@pytest.mark.parametrize("patch", [("mlp", 10, None), ("attn", 10, None), ("state", 1, "mlp"), ("state", 1, "attn")])
@pytest.mark.parametrize("corruption", ["noise", "swap"])
def test_smollm2_is_traced_as_in_the_textbook(patch: tuple[str, int, str | None], corruption: str) -> None:
    model = smollm2()
    by_id = {fact.id: fact for fact in pal.read_facts("shipped").facts}
    kind, window, severed = patch
    found = pal.trace(
        model, by_id["capital/france"], kind=kind, window=window, severed=severed, corruption=corruption, samples=2
    )
    assert found.known
    assert found.total_effect > 0.1
    net = model.net.get_submodule("model.layers")
    parts = {
        "state": list(net),
        "mlp": [layer.mlp for layer in net],
        "attn": [layer.self_attn for layer in net],
    }
    base, donor, patched = patch_every_cell(
        model.net,
        parts,
        corrupted_rows(model, found, 576),
        ([tuple(model.tokenizer(found.fact.text).input_ids)], None),
        tokens_of(model, found, (str(found.fact.target_true), str(found.fact.target_new))),
        kind=kind,
        window=window,
        severed=severed,
        cells=[(3, 0), (3, 9), (3, 17), (4, 3), (4, 20), (4, 29)],
    )
    there = ~np.isnan(patched)
    np.testing.assert_allclose(found.log_p_corrupted, base, rtol=0, atol=1e-4)
    np.testing.assert_allclose(found.log_p_patched[there], patched[there], rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"kind": "mpl"}, "Did you mean 'mlp'"),
        ({"kind": "mlp", "window": 0}, "got 0"),
        ({"severed": "state"}, "'mlp', 'attn' or None, got 'state'"),
        ({"corruption": "nois"}, "Did you mean 'noise'"),
        ({"score": "logit"}, "score 'logit'"),
        ({"donor": "shuffled"}, "Did you mean 'shuffled-subject'"),
        ({"layers": [3]}, "There is no layer 3"),
        ({"layers": []}, "at least one layer"),
        ({"preset": "rome-2022", "corruption": "swap"}, "corruption='noise', got 'swap'"),
        ({"preset": "rome-2022", "answer": "Paris"}, "clean argmax"),
    ],
)
def test_a_mistaken_setting_is_answered_with_one_sentence(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SettingError, match=sentence):
        pal.trace(model_of("gpt2"), OTHER[0], noise_level=1.0, spread_of=POOL, **settings)


def test_a_mistaken_lesion_is_answered_with_one_sentence() -> None:
    with pytest.raises(SettingError, match="Did you mean 'zero'"):
        pal.lesion(model_of("gpt2"), OTHER[0], by="zeros")
