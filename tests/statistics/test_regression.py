"""Regressions against scikit-learn and scipy, and their intervals against resamples built row by row."""

import numpy as np
import pytest
from scipy import stats
from sklearn.linear_model import LinearRegression

from palimpsest.errors import InputError, SettingError
from palimpsest.statistics.hierarchy import arrange
from palimpsest.statistics.regression import f_test, factor, fit_models, least_squares, r2_intervals, slope_intervals

LAYERS, FACTS = 4, 12
MODELS = {"layer": ("layer",), "effect": ("effect",), "both": ("layer", "effect")}


def data(seed: int) -> tuple[dict[str, np.ndarray], np.ndarray, list[tuple[str, str]]]:
    """Facts at several layers, in relations of two subjects: a response that layer and effect both move."""
    draw = np.random.default_rng(seed)
    layer = [l for _ in range(FACTS) for l in range(LAYERS)]
    effect = draw.uniform(size=FACTS * LAYERS)
    response = np.array(layer) * 0.3 + 0.5 * effect + draw.normal(scale=0.4, size=FACTS * LAYERS)
    clusters = [(f"relation {i // 4}", f"subject {i}") for i in range(FACTS) for _ in range(LAYERS)]
    return {"layer": factor(layer), "effect": effect[:, None]}, response, clusters


@pytest.mark.parametrize("seed", range(5))
def test_r2_and_coefficients_are_those_of_scikit_learn(seed: int) -> None:
    blocks, y, _ = data(seed)
    columns = np.column_stack([blocks["layer"], blocks["effect"]])
    fit = least_squares(columns, y)
    book = LinearRegression().fit(columns, y)
    assert fit.r2 == pytest.approx(book.score(columns, y), abs=1e-12)
    assert fit.coefficients == pytest.approx([book.intercept_, *book.coef_])
    assert (fit.rank, fit.n) == (1 + columns.shape[1], len(y))


def test_columns_that_depend_on_each_other_count_once() -> None:
    blocks, y, _ = data(0)
    twice = np.column_stack([blocks["effect"], 2 * blocks["effect"] + 1])
    alone = least_squares(blocks["effect"], y)
    fit = least_squares(twice, y)
    assert fit.rank == alone.rank == 2
    assert fit.r2 == pytest.approx(alone.r2)


def test_a_factor_against_the_mean_is_a_one_way_analysis_of_variance() -> None:
    blocks, y, _ = data(1)
    found = f_test(least_squares(np.empty((len(y), 0)), y), least_squares(blocks["layer"], y))
    book = stats.f_oneway(*(y[l::LAYERS] for l in range(LAYERS)))
    assert found.statistic == pytest.approx(book.statistic)
    assert found.p == pytest.approx(book.pvalue)
    assert (found.between, found.within) == (LAYERS - 1, len(y) - LAYERS)
    assert found.to_json() == {"F": found.statistic, "df": [found.between, found.within], "p": found.p}


def test_one_more_column_has_the_f_of_its_t() -> None:
    blocks, y, _ = data(2)
    fits = fit_models({"effect": blocks["effect"]}, y, {"effect": ("effect",)})
    found = f_test(least_squares(np.empty((len(y), 0)), y), fits["effect"])
    line = stats.linregress(blocks["effect"][:, 0], y)
    assert found.p == pytest.approx(line.pvalue)
    assert fits["effect"].r2 == pytest.approx(line.rvalue**2)


def test_a_factor_has_a_column_for_every_level_but_the_first() -> None:
    assert factor(["b", "a", "b", "c"]).tolist() == [[0, 0], [1, 0], [0, 0], [0, 1]]
    assert factor(["a", "a"]).shape == (2, 0)


@pytest.mark.parametrize("seed", range(3))
def test_intervals_are_those_of_resamples_built_row_by_row(seed: int) -> None:
    blocks, y, clusters = data(seed)
    r2, gains = r2_intervals(blocks, y, MODELS, clusters, gains=[("layer", "both")], resamples=60, seed=seed)
    table = np.column_stack([blocks["layer"], blocks["effect"], y])
    spread = (table - table.mean(0)) / table.std(0)  # the order of rows, and so the draw, is that of these numbers
    places = {"layer": [0, 1, 2], "effect": [3], "both": [0, 1, 2, 3]}
    drawn = {name: [] for name in MODELS}
    for rows in arrange(spread, clusters).resampled_rows(60, seed):
        for name, columns in places.items():
            x = rows[:, columns]
            drawn[name].append(LinearRegression().fit(x, rows[:, -1]).score(x, rows[:, -1]))
    for name, values in drawn.items():
        ordered = np.sort(values)
        assert r2[name].low == pytest.approx(min(ordered[0], r2[name].value), abs=1e-9)
        assert r2[name].high == pytest.approx(max(ordered[-1], r2[name].value), abs=1e-9)
    gap = np.sort(np.subtract(drawn["both"], drawn["layer"]))
    found = gains["layer", "both"]
    assert found.value == pytest.approx(r2["both"].value - r2["layer"].value)
    assert (found.low, found.high) == pytest.approx((min(gap[0], found.value), max(gap[-1], found.value)), abs=1e-9)
    assert (found.n, found.clusters) == (FACTS * LAYERS, 3)


@pytest.mark.parametrize("seed", range(3))
def test_slopes_and_their_intervals_are_those_of_resamples_built_row_by_row(seed: int) -> None:
    blocks, y, clusters = data(seed)
    blocks = blocks | {"effect": 5 - 7 * blocks["effect"]}  # another unit and sign, so that a scale left out would show
    slopes = slope_intervals(blocks, y, MODELS, clusters, block="effect", resamples=60, seed=seed)
    assert set(slopes) == {"effect", "both"}
    table = np.column_stack([blocks["layer"], blocks["effect"], y])
    centre, spread = table.mean(0), table.std(0)
    for name, columns in {"effect": [3], "both": [0, 1, 2, 3]}.items():
        book = LinearRegression().fit(table[:, columns], y).coef_[-1]
        drawn = [
            LinearRegression().fit((rows * spread)[:, columns], (rows * spread)[:, -1]).coef_[-1]
            for rows in arrange((table - centre) / spread, clusters).resampled_rows(60, seed)
        ]
        found = slopes[name]
        assert found.value == pytest.approx(book)
        assert found.low == pytest.approx(min(min(drawn), book), abs=1e-9)
        assert found.high == pytest.approx(max(max(drawn), book), abs=1e-9)
        assert f"slope of effect in the model {name}" in found.method


def test_there_is_no_slope_where_nothing_varies() -> None:
    blocks, y, clusters = data(0)
    still = {"effect": np.full_like(blocks["effect"], 0.1)}
    assert not slope_intervals(blocks, 0 * y, MODELS, clusters, block="effect", resamples=50)["both"].is_known
    only = {"effect": ("effect",)}
    assert not slope_intervals(still, y, only, clusters, block="effect", resamples=50)["effect"].is_known


def test_an_interval_that_was_widened_says_so() -> None:
    draw = np.random.default_rng(0)
    blocks, y = {"noise": draw.normal(size=(20, 10)), "one": draw.normal(size=(20, 1))}, draw.normal(size=20)
    models = {"noise": ("noise",), "one": ("one",)}  # twelve rows of twenty are fitted far better by ten columns
    found, _ = r2_intervals(blocks, y, models, None, resamples=100)
    assert found["noise"].low == found["noise"].value
    assert "widened to hold the estimate" in found["noise"].method
    assert found["one"].low < found["one"].value < found["one"].high
    assert "widened" not in found["one"].method


def test_the_order_of_records_does_not_matter() -> None:
    blocks, y, clusters = data(3)
    order = np.random.default_rng(0).permutation(len(y))
    one, _ = r2_intervals(blocks, y, MODELS, clusters, resamples=50)
    shuffled = {name: columns[order] for name, columns in blocks.items()}
    other, _ = r2_intervals(shuffled, y[order], MODELS, [clusters[i] for i in order], resamples=50)
    for name in MODELS:
        assert one[name].low == pytest.approx(other[name].low)
        assert one[name].high == pytest.approx(other[name].high)


def test_a_response_that_does_not_vary_has_no_r2() -> None:
    blocks, y, clusters = data(0)
    still = np.full_like(y, 0.1)
    fits = fit_models(blocks, still, MODELS)
    assert np.isnan(fits["both"].r2)
    assert np.isnan(f_test(fits["layer"], fits["both"]).p)
    r2, _ = r2_intervals(blocks, still, MODELS, clusters, resamples=50)
    assert not r2["layer"].is_known


def test_a_perfect_fit_is_one() -> None:
    blocks, _, clusters = data(0)
    y = 3 * blocks["effect"][:, 0] - 1
    r2, _ = r2_intervals(blocks, y, MODELS, clusters, resamples=50)
    assert r2["effect"].low == pytest.approx(1.0)


def test_mistakes_are_named() -> None:
    blocks, y, clusters = data(0)
    fits = fit_models(blocks, y, MODELS)
    with pytest.raises(InputError, match="give the smaller model first"):
        f_test(fits["both"], fits["layer"])
    with pytest.raises(InputError, match="same records, got 48 and 47"):
        least_squares(blocks["effect"], y[:-1])
    with pytest.raises(InputError, match="finite numbers, got 1 NaN"):
        least_squares(np.where(blocks["effect"] == blocks["effect"][0], np.nan, blocks["effect"]), y)
    with pytest.raises(SettingError, match="no block of columns 'efect'.*Did you mean 'effect'"):
        fit_models(blocks, y, {"effect": ("efect",)})
    with pytest.raises(SettingError, match="resamples must be at least"):
        r2_intervals(blocks, y, MODELS, clusters, resamples=10)
    with pytest.raises(SettingError, match="one column, and the block 'layer' has 3"):
        slope_intervals(blocks, y, MODELS, clusters, block="layer")
