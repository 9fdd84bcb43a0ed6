"""How long until something happens, when for some it had not happened by the end: Kaplan and Meier's curve.

    S(t) = prod_{t_j <= t} (1 - d_j / n_j),        quantile q = the first t with S(t) <= 1 - q

d_j is how many reach the event at t_j, n_j how many had neither reached it nor dropped out before. Here "time" is a dose: a fact
whose neighbours are still unharmed at the largest dose has a toxic dose *above* it. Leaving such facts out would call the edit more
toxic than it is, and taking the largest dose for theirs too; counting them as at risk up to it does neither.

Source: Kaplan and Meier 1958, *Journal of the American Statistical Association* 53, 457-481.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from palimpsest.errors import SettingError
from palimpsest.statistics.bootstrap import percentile_estimate
from palimpsest.statistics.checks import Numbers, finite_numbers, same_length, tail_rank, yes_or_no
from palimpsest.statistics.estimate import Estimate
from palimpsest.statistics.hierarchy import Labels, arrange


class Survival(NamedTuple):
    """Kaplan and Meier's curve at the times where something happened or ended.

    Attributes:
        times: (m,) ascending, each once.
        survival: (m,) the share that has not reached the event after each time.
    """

    times: Float[np.ndarray, " m"]
    survival: Float[np.ndarray, " m"]


def kaplan_meier(times: Numbers, reached: Numbers) -> Survival:
    """The share that has not yet reached the event, by time.

    Args:
        times: (n,) when each reached it, or was last seen without it.
        reached: (n,) whether it did; 1 or True.

    Raises:
        InputError: lengths differ, times are not finite, or `reached` is neither 0 nor 1 somewhere.

    Source: Kaplan and Meier 1958.
    """
    when, event = _checked(times, reached)
    places, survival = _survival(when, event, np.ones((1, when.size)))
    return Survival(places, survival[0])


def kaplan_meier_quantile(
    times: Numbers,
    reached: Numbers,
    q: float = 0.5,
    clusters: Labels | None = None,
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
    unit: str = "",
) -> Estimate:
    """The time by which a share q has reached the event; infinite where so many never do.

    Args:
        times, reached: as in `kaplan_meier`; give those that never reached it the largest time they were watched.
        q: the share, strictly between 0 and 1; 0.5 is the median.
        clusters, resamples, level, seed, unit: as in `cluster_bootstrap`.

    Returns:
        Estimate in the unit of the times; value, low or high may be infinite.

    Raises:
        InputError: as `kaplan_meier`, or as `cluster_bootstrap` of the labels.
        SettingError: q is not strictly between 0 and 1, or as `cluster_bootstrap`.

    Source: Kaplan and Meier 1958; Efron 1981 for the bootstrap of pairs (time, reached).
    """
    if not 0 < q < 1:
        raise SettingError(f"q must lie strictly between 0 and 1, got {q}; 0.5 is the median.")
    rank = tail_rank(level, resamples)
    hierarchy = arrange(np.stack(_checked(times, reached), axis=1), clusters)
    when, event = hierarchy.rows.T
    weights = [np.ones((1, when.size)), *hierarchy.record_times(resamples, seed)]
    quantiles = np.concatenate([_quantile(*_survival(when, event, block), q) for block in weights])
    return percentile_estimate(
        value=float(quantiles[0]),
        resampled=quantiles[1:],
        hierarchy=hierarchy,
        rank=rank,
        level=level,
        seed=seed,
        name=f"Kaplan-Meier quantile {q:g}, {int(event.sum())} of {when.size} reached",
        unit=unit,
    )


def _survival(
    when: Float[np.ndarray, " n"], event: Float[np.ndarray, " n"], weights: Float[np.ndarray, "block n"]
) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, "block m"]]:
    """S after each distinct time, record i counted weights[:, i] times; those who drop out at t were still at risk at t."""
    order = np.argsort(when, kind="stable")
    places, starts = np.unique(when[order], return_index=True)
    happened = np.add.reduceat((weights * event)[:, order], starts, axis=1)
    present = np.add.reduceat(weights[:, order], starts, axis=1)
    at_risk = np.cumsum(present[:, ::-1], axis=1)[:, ::-1]
    return places, np.cumprod(1 - happened / np.maximum(at_risk, 1e-300), axis=1)


def _quantile(
    places: Float[np.ndarray, " m"], survival: Float[np.ndarray, "block m"], q: float
) -> Float[np.ndarray, " block"]:
    below = survival <= 1 - q + 1e-12  # a product of fractions that equals 1 - q but for rounding counts as equal
    return np.where(below.any(axis=1), places[below.argmax(axis=1)], np.inf)


def _checked(times: Numbers, reached: Numbers) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    when, event = finite_numbers(times, "times"), yes_or_no(reached, "reached")
    same_length(when.size, "times", event.size, "reached")
    return when, event
