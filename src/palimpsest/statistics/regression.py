"""Least squares with factors: how much of a response several groups of columns account for, together and apart.

    y = b0 + X b + e,      b = argmin |e|^2,      R^2 = 1 - |e|^2 / |y - ybar|^2

A model names the blocks of columns in its X; the intercept is always there. Of two nested models with k0 < k1 independent
columns and n records,

    F = ((RSS0 - RSS1) / (k1 - k0)) / (RSS1 / (n - k1)),      p = P(F_{k1-k0, n-k1} >= F)

F takes records for independent. Where they come in clusters (one fact at ten layers) it does not hold, and R^2 never falls when
columns are added: read the gain of a model beside what shuffled columns gain, and with an interval that draws clusters.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import stats

from palimpsest.errors import InputError, SettingError, did_you_mean
from palimpsest.statistics.bootstrap import resamples_text
from palimpsest.statistics.checks import Numbers, finite_numbers, refuse_not_finite, same_length, tail_rank
from palimpsest.statistics.estimate import Estimate
from palimpsest.statistics.hierarchy import Hierarchy, Labels, arrange

Blocks = Mapping[str, np.ndarray]
Models = Mapping[str, Sequence[str]]
FLAT = 1e-12  # a response whose spread is less than this share of its size does not vary: R^2 is not defined


@dataclass(frozen=True, eq=False)
class Fit:
    """One model fitted.

    Attributes:
        coefficients: the intercept, then one a column; the shortest where columns depend on each other.
        rank: independent columns, the intercept among them.
        residual, total: |e|^2 and |y - ybar|^2.
        n: records.
    """

    coefficients: Float[np.ndarray, " columns"]
    rank: int
    residual: float
    total: float
    n: int

    @property
    def r2(self) -> float:
        """R^2; NaN where the response does not vary."""
        return 1 - self.residual / self.total if self.total > 0 else float("nan")


@dataclass(frozen=True)
class FTest:
    """Whether a larger model explains more than chance would, records taken for independent."""

    statistic: float
    between: int
    within: int
    p: float

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {"F": self.statistic, "df": [self.between, self.within], "p": self.p}


def least_squares(columns: Float[np.ndarray, "n columns"], response: Numbers) -> Fit:
    """Fit the response on an intercept and `columns`.

    Raises:
        InputError: lengths differ, or numbers are not finite.
    """
    y = finite_numbers(response, "response")
    same_length(len(columns), "columns", y.size, "response")
    refuse_not_finite(columns, "columns")
    design = np.column_stack([np.ones(y.size), columns])
    coefficients, _, rank, _ = np.linalg.lstsq(design, y, rcond=None)
    total = float(((y - y.mean()) ** 2).sum())
    if total <= FLAT * float((y**2).sum()):
        total = 0.0
    return Fit(coefficients, int(rank), float(((y - design @ coefficients) ** 2).sum()), total, y.size)


def f_test(smaller: Fit, larger: Fit) -> FTest:
    """Whether the columns that `larger` has beyond `smaller` explain more than chance would.

    Raises:
        InputError: the models are not nested by their numbers: other records, or no further independent column.
    """
    if smaller.n != larger.n or smaller.rank >= larger.rank:
        raise InputError(
            f"An F-test compares a model with a larger one of the same records, got ranks {smaller.rank} and {larger.rank} on "
            f"{smaller.n} and {larger.n} records; give the smaller model first."
        )
    between, within = larger.rank - smaller.rank, larger.n - larger.rank
    if within < 1 or larger.total == 0:
        return FTest(float("nan"), between, within, float("nan"))
    gained = max(smaller.residual - larger.residual, 0.0) / between
    left = larger.residual / within
    statistic = gained / left if left > 0 else float("inf")
    return FTest(statistic, between, within, float(stats.f.sf(statistic, between, within)))


def factor(labels: Sequence[Any]) -> Float[np.ndarray, "n levels_but_one"]:
    """A factor as columns: 1 where a record has the level, for every level but the first."""
    levels = list(dict.fromkeys(labels))
    return np.array([[float(label == level) for level in levels[1:]] for label in labels]).reshape(len(labels), -1)


def fit_models(blocks: Blocks, response: Numbers, models: Models) -> dict[str, Fit]:
    """Every model, as a list of names of blocks, fitted to the same response."""
    return {name: least_squares(_columns(blocks, parts), response) for name, parts in models.items()}


def r2_intervals(
    blocks: Blocks,
    response: Numbers,
    models: Models,
    clusters: Labels | None,
    *,
    gains: Iterable[tuple[str, str]] = (),
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[dict[str, Estimate], dict[tuple[str, str], Estimate]]:
    """R^2 of every model, and the gain R^2(larger) - R^2(smaller) of pairs, with intervals from resampled clusters.

    Every model and pair is computed on the same resamples, so that a gain has the interval of a paired difference. With Z the
    columns and the response, a resample's Z'Z is the sum over clusters of (times drawn) Z_c'Z_c, and R^2 follows from it; no
    record is copied. A gain cannot be below 0 in any resample: that its interval excludes 0 is no evidence of anything;
    compare it with what shuffled columns gain.

    Args:
        blocks: by name, columns (n, k).
        response: (n,).
        models: by name, the blocks each has.
        clusters: as in `cluster_bootstrap`.
        gains: pairs (smaller, larger) of names of models.
        resamples, level, seed: of the percentile bootstrap.

    Raises:
        InputError: lengths differ, or numbers are not finite.
        SettingError: level or resamples is out of range, or a model names a block that is not there.

    Source: Davison and Hinkley 1997, section 6.2.4 (resampling cases) with section 3.8 (whole clusters).
    """
    rank = tail_rank(level, resamples)
    fits = fit_models(blocks, response, models)
    grams, hierarchy = _resampled_grams(blocks, response, clusters, resamples, seed)
    drawn = {name: _r2_of(grams, _places(blocks, parts)) for name, parts in models.items()}

    def estimate(value: float, resampled: Float[np.ndarray, " resamples"], said: str) -> Estimate:
        return _percentiles(value, resampled, hierarchy, rank, level, f"{said}, seed {seed}")

    r2 = {name: estimate(fit.r2, drawn[name], f"R^2 of the model {name}") for name, fit in fits.items()}
    gained = {
        (small, large): estimate(
            fits[large].r2 - fits[small].r2, drawn[large] - drawn[small], f"R^2 of {large} minus R^2 of {small}"
        )
        for small, large in gains
    }
    return r2, gained


def slope_intervals(
    blocks: Blocks,
    response: Numbers,
    models: Models,
    clusters: Labels | None,
    *,
    block: str,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Estimate]:
    """The coefficient b of one column, in units of the response per unit of the column, in every model that has it.

    R^2 cannot tell a response that rises with the column from one that falls; the sign of b can. It is NaN where the
    response does not vary, or the column by itself. The resamples are those of `r2_intervals` with the same seed.

    Args:
        blocks, response, models, clusters: as in `r2_intervals`.
        block: the name of a block of one column.
        resamples, level, seed: of the percentile bootstrap.

    Raises:
        InputError: lengths differ, or numbers are not finite.
        SettingError: level or resamples is out of range, a block is not there, or `block` has not one column.
    """
    rank = tail_rank(level, resamples)
    column = _columns(blocks, [block])
    if column.shape[1] != 1:
        raise SettingError(
            f"A slope is that of one column, and the block {block!r} has {column.shape[1]}; name another."
        )
    y = finite_numbers(response, "response")[:, None]
    grams, hierarchy = _resampled_grams(blocks, response, clusters, resamples, seed)
    unit = float(_spread(y)[0] / _spread(column)[0])
    z = _with_intercept(hierarchy)
    (place,) = _places(blocks, [block])[1:]
    slopes = {}
    for name, parts in models.items():
        if block in parts:
            others = _places(blocks, [part for part in parts if part != block])
            value, drawn = (unit * _slope_of(g, others, place) for g in ((z.T @ z)[None], grams))
            said = f"slope of {block} in the model {name}, seed {seed}"
            slopes[name] = _percentiles(float(value[0]), drawn, hierarchy, rank, level, said)
    return slopes


def _resampled_grams(
    blocks: Blocks, response: Numbers, clusters: Labels | None, resamples: int, seed: int
) -> tuple[Float[np.ndarray, "m k k"], Hierarchy]:
    """Z'Z of every resample, Z being the intercept, the columns and the response, both standardised over all records."""
    y = finite_numbers(response, "response")
    hierarchy = arrange(_standardised(np.column_stack([*blocks.values(), y])), clusters)
    z = _with_intercept(hierarchy)
    width = z.shape[1]
    sums = hierarchy.resampled_sums((z[:, :, None] * z[:, None, :]).reshape(hierarchy.n, -1), resamples, seed)
    return sums.reshape(-1, width, width), hierarchy


def _with_intercept(hierarchy: Hierarchy) -> Float[np.ndarray, "n k"]:
    return np.column_stack([np.ones(hierarchy.n), hierarchy.rows])


def _places(blocks: Blocks, parts: Sequence[str]) -> list[int]:
    """Where the intercept and the columns of a model stand in Z."""
    names = list(blocks)
    starts = dict(zip(names, np.cumsum([1, *(blocks[name].shape[1] for name in names)]), strict=False))
    return [0, *(c for part in parts for c in range(starts[part], starts[part] + blocks[part].shape[1]))]


def _columns(blocks: Blocks, parts: Sequence[str]) -> Float[np.ndarray, "n columns"]:
    for part in parts:
        if part not in blocks:
            raise SettingError(f"There is no block of columns {part!r}.{did_you_mean(part, blocks)}")
    return np.column_stack([blocks[part] for part in parts])


def _standardised(table: Float[np.ndarray, "n columns"]) -> Float[np.ndarray, "n columns"]:
    """Columns of mean 0 and spread 1: R^2 stays what it is, and sums of squares keep their digits."""
    return (table - table.mean(axis=0)) / _spread(table)


def _spread(table: Float[np.ndarray, "n columns"]) -> Float[np.ndarray, " columns"]:
    """Standard deviations; 1 where a column varies by no more than rounding, so that it can be divided by."""
    variance = table.var(axis=0)
    return np.sqrt(np.where(variance > FLAT * (table**2).mean(axis=0), variance, 1.0))


def _r2_of(grams: Float[np.ndarray, "m k k"], columns: Sequence[int]) -> Float[np.ndarray, " m"]:
    """R^2 of the last column on `columns` (the first of all is the intercept), from Z'Z of every resample."""
    inside = grams[:, columns][:, :, columns]
    against = grams[:, columns, -1]
    # the pseudo-inverse leaves out what a resample does not hold, such as a level of a factor
    solved = np.einsum("mij,mj->mi", np.linalg.pinv(inside, rcond=1e-10, hermitian=True), against)
    squares, sums, counts = grams[:, -1, -1], grams[:, 0, -1], grams[:, 0, 0]
    total = squares - sums**2 / counts
    residual = squares - (against * solved).sum(axis=1)
    varies = total > FLAT * np.maximum(squares, 1.0)
    return np.where(varies, 1 - residual / np.where(varies, total, 1.0), np.nan)


def _slope_of(grams: Float[np.ndarray, "m k k"], others: Sequence[int], column: int) -> Float[np.ndarray, " m"]:
    """The coefficient of a column beside others: the slope of what they leave of the response on what they leave of the column."""
    inverse = np.linalg.pinv(grams[:, others][:, :, others], rcond=1e-10, hermitian=True)
    shared = np.einsum("mi,mij->mj", grams[:, column, others], inverse)
    left = grams[:, column, column] - (shared * grams[:, column, others]).sum(axis=1)
    with_response = grams[:, column, -1] - (shared * grams[:, others, -1]).sum(axis=1)
    # standardised, so that a resample of n records whose column varies has about n; a million-millionth of it is rounding
    defined = (left > FLAT * grams[:, 0, 0]) & ~np.isnan(_r2_of(grams, others))
    return np.where(defined, with_response / np.where(defined, left, 1.0), np.nan)


def _percentiles(
    value: float,
    resampled: Float[np.ndarray, " resamples"],
    hierarchy: Hierarchy,
    rank: int,
    level: float,
    said: str,
) -> Estimate:
    """The estimate with the interval from the rank-th smallest to the rank-th largest, widened to hold the value."""
    defined = np.sort(resampled[~np.isnan(resampled)])
    counted = resamples_text(resampled.size, resampled.size - defined.size)
    low = high = float("nan")
    if defined.size and not np.isnan(value):
        kept = max(1, rank * defined.size // resampled.size)
        low, high = float(defined[kept - 1]), float(defined[-kept])
        if max(low - value, value - high) > 1e-9 * max(1.0, abs(value)):  # by more than rounding
            counted += ", interval widened to hold the estimate"
        low, high = min(low, value), max(high, value)
    method = f"{said}, percentile bootstrap of {hierarchy.drawn}, {counted}"
    return Estimate(value, low, high, hierarchy.n, hierarchy.clusters, level, method)
