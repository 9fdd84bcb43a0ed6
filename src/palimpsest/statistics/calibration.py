"""Whether stated probabilities come true as often as they say: Brier's score and the expected calibration error.

    Brier = sum_i (p_i - y_i)^2 / n,        ECE = sum_bins n_b / n |mean p in b - mean y in b|

A score of a locator says which layer is more likely, not how likely. The isotonic map (`isotonic`) turns it into a probability that
rises with the score; fitted and judged on the same cells it would look calibrated by construction, so each group of cells (an
organism) gets probabilities from a map fitted on the *other* groups. ECE is above 0 by chance, the more the more bins and the fewer
records: bins here hold about equally many records, and `bins` is small.

Source: Brier 1950, *Monthly Weather Review* 78, 1-3; ECE: Naeini, Cooper and Hauskrecht 2015; map: Zadrozny and Elkan 2002.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from palimpsest.errors import InputError, SettingError
from palimpsest.statistics.bootstrap import cluster_bootstrap, percentile_estimate
from palimpsest.statistics.checks import Numbers, finite_numbers, same_length, tail_rank, within_0_and_1, yes_or_no
from palimpsest.statistics.estimate import Estimate
from palimpsest.statistics.hierarchy import Labels, arrange
from palimpsest.statistics.isotonic import isotonic_at, isotonic_fit


@dataclass(frozen=True)
class Calibration:
    """How a score does as a probability, judged on groups its map has not seen.

    Attributes:
        ece: expected calibration error, 0 to 1.
        brier: Brier's score, 0 to 1; always saying the base rate r gives r (1 - r).
        probabilities: (n,) the cross-validated probability of each record, in the order given.
    """

    ece: Estimate
    brier: Estimate
    probabilities: tuple[float, ...]


def calibrate(
    scores: Numbers,
    outcomes: Numbers,
    groups: Labels,
    *,
    folds: int = 5,
    bins: int = 10,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Calibration:
    """Cross-validated isotonic probabilities of a score, and how well they come true.

    Args:
        scores: (n,) larger where the outcome is more likely.
        outcomes: (n,) whether it came; 1 or True.
        groups: n labels; records of one group are never on both sides of a fold, and are drawn together for the intervals.
        folds: into how many parts the groups are dealt; with fewer groups, each is left out in turn.
        bins, resamples, level, seed: as in `expected_calibration_error`.

    Raises:
        InputError: lengths differ, numbers are not finite, outcomes are neither 0 nor 1, or there is only one group.
        SettingError: folds or bins is out of range, or as `cluster_bootstrap`.

    Source: Zadrozny and Elkan 2002; Naeini, Cooper and Hauskrecht 2015.
    """
    probabilities = cross_validated_isotonic(scores, outcomes, groups, folds=folds, seed=seed)
    options: dict[str, Any] = {"resamples": resamples, "level": level, "seed": seed}
    return Calibration(
        ece=expected_calibration_error(probabilities, outcomes, groups, bins=bins, **options),
        brier=brier_score(probabilities, outcomes, groups, **options),
        probabilities=tuple(float(probability) for probability in probabilities),
    )


def cross_validated_isotonic(
    scores: Numbers, outcomes: Numbers, groups: Labels, *, folds: int = 5, seed: int = 0
) -> Float[np.ndarray, " n"]:
    """The probability of each record from an isotonic map fitted on other groups.

    Args, Raises: as `calibrate`.
    """
    values, came = finite_numbers(scores, "scores"), yes_or_no(outcomes, "outcomes")
    same_length(values.size, "scores", came.size, "outcomes")
    same_length(values.size, "scores", len(groups), "groups")
    if folds < 2:
        raise SettingError(f"folds must be 2 or more, got {folds}; 5 is customary.")
    fold = _folds(list(groups), folds, seed)
    made = np.empty(values.size)
    for part in range(int(fold.max()) + 1):
        out = fold == part
        fitted = isotonic_fit(values[~out], came[~out]).fitted
        made[out] = isotonic_at(values[~out], fitted, values[out])
    return np.clip(made, 0.0, 1.0)


def brier_score(
    probabilities: Numbers,
    outcomes: Numbers,
    clusters: Labels | None,
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """The mean squared distance of a probability from what came; smaller is better.

    Args:
        probabilities: (n,) 0 to 1.
        outcomes: (n,) 0 or 1.
        clusters, resamples, level, seed: as in `cluster_bootstrap`.

    Raises:
        InputError: lengths differ, or numbers are out of range.
        SettingError: as `cluster_bootstrap`.

    Source: Brier 1950.
    """
    stated, came = _stated(probabilities, outcomes)
    estimate = cluster_bootstrap((stated - came) ** 2, clusters, resamples=resamples, level=level, seed=seed)
    return Estimate(**{**estimate.__dict__, "method": f"Brier score: {estimate.method}"})


def expected_calibration_error(
    probabilities: Numbers,
    outcomes: Numbers,
    clusters: Labels | None,
    *,
    bins: int = 10,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """How far stated probabilities lie from how often they come true; smaller is better.

    Args:
        probabilities: (n,) 0 to 1.
        outcomes: (n,) 0 or 1.
        clusters, resamples, level, seed: as in `cluster_bootstrap`.
        bins: at most so many, of about equally many records each; equal probabilities are never parted.

    Raises:
        InputError: lengths differ, or numbers are out of range.
        SettingError: bins is below 1, or as `cluster_bootstrap`.

    Source: Naeini, Cooper and Hauskrecht 2015, with bins of equal counts (Nguyen and O'Connor 2015).
    """
    rank = tail_rank(level, resamples)
    stated, came = _stated(probabilities, outcomes)
    if bins < 1:
        raise SettingError(f"bins must be 1 or more, got {bins}; 10 is customary.")
    edges = np.unique(np.quantile(stated, np.arange(1, bins) / bins))
    members = np.searchsorted(edges, stated, side="right")[:, None] == np.arange(edges.size + 1)
    hierarchy = arrange(
        np.concatenate([members * (stated - came)[:, None], np.ones((stated.size, 1))], axis=1), clusters
    )
    sums = np.concatenate([hierarchy.rows.sum(axis=0)[None], hierarchy.resampled_sums(hierarchy.rows, resamples, seed)])
    errors = np.abs(sums[:, :-1]).sum(axis=1) / sums[:, -1]
    return percentile_estimate(
        value=float(errors[0]),
        resampled=errors[1:],
        hierarchy=hierarchy,
        rank=rank,
        level=level,
        seed=seed,
        name=f"expected calibration error, {int(members.any(axis=0).sum())} bins",
        unit="",
    )


def _folds(groups: Sequence[Hashable], folds: int, seed: int) -> Int[np.ndarray, " n"]:
    """The fold of each record: whole groups, shuffled, dealt like cards."""
    names = list(dict.fromkeys(groups))
    if len(names) < 2:
        raise InputError(
            f"groups must name at least 2 groups, got {len(names)}; a map is judged on groups it has not seen."
        )
    order = np.random.default_rng(seed).permutation(len(names))
    fold = {names[place]: index % min(folds, len(names)) for index, place in enumerate(order)}
    return np.array([fold[group] for group in groups])


def _stated(probabilities: Numbers, outcomes: Numbers) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    stated = within_0_and_1(probabilities, "probabilities", "map scores to probabilities first")
    came = yes_or_no(outcomes, "outcomes")
    same_length(stated.size, "probabilities", came.size, "outcomes")
    return stated, came
