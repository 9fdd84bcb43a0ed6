"""Localisation against editing: planted answers, the regressions of scikit-learn, and facts that cannot be in it."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

import palimpsest as pal
from oracles.small import EIFFEL, FACTS, documents, model_of
from palimpsest.errors import InputError, SettingError
from palimpsest.evaluate.localisation import localisation, tracing_effects
from palimpsest.evaluate.sweep import sweep
from palimpsest.evaluate.sweep_result import Sweep

LAYERS, COUNT = (1, 4, 7), 16
NAMES = [replace(EIFFEL, subject=f"Tower {i}", id=f"fact {i}", relation=f"relation {i // 4}") for i in range(COUNT)]
QUICK: dict[str, Any] = {"resamples": 100, "permutations": 99}


def traces(effect: np.ndarray, **changes: Any) -> list[dict[str, Any]]:
    """Maps as plain data: two tokens, the effect at the first of them (the subject's), a tenth of it at the other."""
    return [
        {
            "fact": fact.to_json(), "known": True, "withheld": "", "score": "probability", "also": {}, "total_effect": 0.5,
            "layers": [0, *LAYERS], "tokens": ["a", "b"], "subject": [0, 1],
            "effect": [[9.0, *(0.5 * row)], [9.0, *(0.05 * row)]], **changes,
        }
        for fact, row in zip(NAMES, effect, strict=True)
    ]  # fmt: skip


def edits(rewrite: np.ndarray) -> Sweep:
    """A sweep whose rewrite scores are given, by fact and layer."""
    some = dict.fromkeys(("es", "em", "ps", "pm", "ns", "nm"), 1.0)
    before = [{"fact": fact.id, "pre": some | {"nll_new": 60.0}} for fact in NAMES]
    records: list[dict[str, Any]] = [{"id": "unedited/0", "layer": None, "token": None, "facts": before}]
    for l, layer in enumerate(LAYERS):
        rows = [
            {"fact": fact.id, "error": "it diverged"}
            if np.isnan(rewrite[i, l])
            else {"fact": fact.id, "post": some | {"nll_new": -math.log(rewrite[i, l])}}
            for i, fact in enumerate(NAMES)
        ]
        records.append({"id": f"layer {layer}/subject_last/0", "layer": layer, "token": "subject_last", "facts": rows})
    return Sweep(tuple(records), tuple(NAMES), LAYERS, ("subject_last",))


def draw(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.1, 0.9, (COUNT, len(LAYERS)))


def test_r2_is_that_of_the_textbook_regressions() -> None:
    y, x = draw(0), draw(1)
    found = localisation(edits(y), traces(x), **QUICK)
    layer = np.tile(np.eye(3)[:, 1:], (COUNT, 1))
    effect = x.reshape(-1, 1)
    books = {
        "layer": layer,
        "effect": effect,
        "both": np.column_stack([layer, effect]),
        "interaction": np.column_stack([layer, effect, layer * effect]),
    }
    r2 = {name: LinearRegression().fit(c, y.ravel()).score(c, y.ravel()) for name, c in books.items()}
    for name, value in r2.items():
        assert found.r2[name].value == pytest.approx(value)
    for name in ("both", "interaction"):
        assert found.gains[name].value == pytest.approx(r2[name] - r2["layer"])
    slope = LinearRegression().fit(books["both"], y.ravel()).coef_[-1]
    assert found.slopes["both"].value == pytest.approx(slope)
    assert set(found.slopes) == {"effect", "both"}
    n, between, rank = y.size, 1, 4
    f = (r2["both"] - r2["layer"]) / between / ((1 - r2["both"]) / (n - rank))
    assert found.tests["both"].statistic == pytest.approx(f)
    assert (found.tests["both"].between, found.tests["both"].within) == (1, n - rank)
    assert (found.tests["interaction"].between, found.tests["interaction"].within) == (3, n - 6)
    assert (found.r2["layer"].n, found.r2["layer"].clusters) == (COUNT * len(LAYERS), 4)


def test_success_that_follows_the_layer_alone_gains_nothing_from_tracing() -> None:
    y = 0.2 + 0.3 * np.arange(3) + 0.01 * np.random.default_rng(0).normal(size=(COUNT, 3))
    found = localisation(edits(y), traces(draw(1)), **QUICK)
    assert found.r2["layer"].value > 0.99
    assert found.r2["effect"].value < 0.2
    assert found.gains["both"].value < 0.005
    assert found.chance["both"].p > 0.05
    assert found.chance["both"].mean > 0  # which is why a gain above zero alone says nothing


def test_success_that_follows_the_tracing_effect_is_found() -> None:
    x = draw(2)
    y = 0.05 + 0.8 * x + 0.02 * np.random.default_rng(0).normal(size=x.shape)
    found = localisation(edits(y), traces(x), **QUICK)
    assert found.r2["effect"].low > 0.95
    assert found.r2["layer"].value < 0.3
    assert found.gains["both"].low > 0.5
    assert found.chance["both"].p == pytest.approx(0.01)
    assert found.chance["both"].mean < 0.1
    assert found.tests["both"].p < 1e-10


def test_success_that_falls_where_tracing_points_has_the_same_r2_and_a_slope_below_zero() -> None:
    x, noise = draw(2), 0.02 * np.random.default_rng(0).normal(size=(COUNT, len(LAYERS)))
    rises = localisation(edits(0.05 + 0.8 * x + noise), traces(x), **QUICK)
    falls = localisation(edits(0.85 - 0.8 * x - noise), traces(x), **QUICK)
    assert falls.r2["effect"].value == pytest.approx(rises.r2["effect"].value)
    for name in ("effect", "both"):
        assert falls.slopes[name].value == pytest.approx(-rises.slopes[name].value)
        assert falls.slopes[name].high < -0.7
        assert falls.slopes[name].clusters == 4


def test_what_tracing_and_editing_share_by_layer_alone_is_no_match_of_facts() -> None:
    profile = np.array([0.2, 0.5, 0.8])  # both rise with the layer, in every fact alike
    noise = np.random.default_rng(0).normal(scale=0.03, size=(2, COUNT, 3))
    found = localisation(edits(profile + noise[0]), traces(profile + noise[1]), **QUICK)
    assert found.r2["effect"].value > 0.9
    assert found.chance["effect"].mean > 0.9
    assert found.chance["both"].p > 0.05


def test_effects_are_read_at_the_largest_token_or_at_the_subject() -> None:
    x = draw(3)
    maps = traces(x)
    maps[0]["effect"][1] = [9.0, *(0.4 + 0.5 * x[0])]
    at_max, _ = tracing_effects(maps, LAYERS)
    at_last, _ = tracing_effects(maps, LAYERS, at="subject_last")
    assert at_max["fact 0"] == pytest.approx(0.8 + x[0])
    assert at_last["fact 0"] == pytest.approx(x[0])
    assert at_max["fact 1"] == pytest.approx(x[1])
    reverse, _ = tracing_effects(maps, LAYERS[::-1])
    assert reverse["fact 1"] == pytest.approx(x[1][::-1])


def test_facts_that_cannot_be_in_it_are_named() -> None:
    y, maps = draw(0), traces(draw(1))
    y[2, 1] = np.nan
    maps[0]["known"] = False
    maps[1]["withheld"] = "the total effect 0.0010 is below 0.01"
    maps.insert(0, {**maps[0], "fact": replace(EIFFEL, id="traced, never edited").to_json()})
    found = localisation(edits(y), maps[:-1], **QUICK)
    assert found.left_out == {
        "fact 0": "the model does not know it",
        "fact 1": "the total effect 0.0010 is below 0.01",
        "fact 2": "it has no edit or no such metric at some layer",
        "fact 15": "it was not traced",
    }
    assert found.facts == tuple(f"fact {i}" for i in range(3, 15))
    with pytest.raises(InputError, match="needs three .* got 2"):
        localisation(edits(y), maps[4:6], **QUICK)


def test_success_that_never_varies_has_no_r2_and_says_so() -> None:
    found = localisation(edits(draw(0)), traces(draw(1)), metric="es", **QUICK)
    assert not found.r2["layer"].is_known
    assert not found.slopes["effect"].is_known
    assert math.isnan(found.chance["effect"].p)
    assert found.table()[0]["R2"] == "unknown"


def test_it_is_saved_and_told(tmp_path: Path) -> None:
    found = localisation(edits(draw(0)), traces(draw(1)), **QUICK)
    found.save(tmp_path / "found.json")
    stored = json.loads((tmp_path / "found.json").read_text())
    assert stored["r2"]["layer"] == found.r2["layer"].to_json()
    assert stored["chance"]["both"] == {"mean": found.chance["both"].mean, "p": found.chance["both"].p}
    assert "does not tell where to edit" in stored["reads"]
    rows = {row["model"]: row for row in found.table()}
    assert set(rows) == {"layer", "effect", "both", "interaction", "both - layer", "interaction - layer"}
    assert rows["layer"]["p"] == rows["layer"]["slope"] == rows["both - layer"]["slope"] == ""
    assert rows["both"]["slope"] == str(found.slopes["both"]).split(" (")[0]
    assert stored["slopes"]["both"] == found.slopes["both"].to_json()
    assert "over all relations" in stored["shuffled"]
    assert rows["both - layer"]["p"] == f"{found.chance['both'].p:.3f}"


def test_mistakes_are_named() -> None:
    swept, maps = edits(draw(0)), traces(draw(1))
    with pytest.raises(SettingError, match="Did you mean 'max'"):
        localisation(swept, maps, at="maxx")
    with pytest.raises(SettingError, match="token 'last' was not swept"):
        localisation(swept, maps, token="last")
    with pytest.raises(SettingError, match="no metric"):
        localisation(swept, maps, metric="success")
    with pytest.raises(SettingError, match="permutations must be 1 or more, got 0"):
        localisation(swept, maps, permutations=0)
    for record in maps:
        record["layers"] = [0, 1, 4, 8]
    with pytest.raises(SettingError, match="lacks layer 7"):
        localisation(swept, maps)


def test_real_edits_and_traces_meet() -> None:
    model = model_of("gpt2")
    facts = [replace(fact, target_true=None) for fact in FACTS]  # traced is what the model itself says first
    maps = [pal.trace(model, fact, samples=2, spread_of=FACTS, kind="mlp", window=2).to_json() for fact in facts]
    for record in maps:
        record["withheld"] = ""  # a random model has no total effect worth dividing by
    swept = sweep(model, FACTS, layers=[0, 1], tokens=["subject_last"], text=documents(), contexts=((5, 1),), steps=2)
    found = localisation(swept, maps, at="subject_last", **QUICK)
    assert found.facts == tuple(fact.id for fact in FACTS)
    end = maps[0]["subject"][1] - 1
    fraction = np.array(maps[0]["effect"])[end, :2] / maps[0]["total_effect"]
    effects, _ = tracing_effects(maps, (0, 1), at="subject_last")
    assert effects["eiffel"] == pytest.approx(fraction)
    assert 0 <= found.r2["layer"].value <= found.r2["both"].value <= found.r2["interaction"].value <= 1
