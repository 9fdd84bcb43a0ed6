"""How far apart signal and noise lie, in spreads: d prime.

    d' = z(hit rate) - z(false-alarm rate),        d_a = (mean_signal - mean_noise) / sqrt((var_signal + var_noise) / 2)

z is the normal quantile. Both ask the same: by how many spreads do the scores of what is there exceed the scores of what is not.
d' is read off yes-or-no answers at one threshold, d_a off the scores themselves, without a threshold; where scores are normal,
AUROC = Phi(d_a / sqrt 2). Rates of 0 or 1 have no quantile; half a yes and half a no are added to each side (Hautus 1995). The
areas under the curves stand in `ranking`.

Source: Green and Swets 1966, *Signal Detection Theory and Psychophysics*; Simpson and Fitter 1973 for d_a.
"""

from statistics import NormalDist

import numpy as np

from palimpsest.errors import InputError
from palimpsest.statistics.checks import Numbers, finite_numbers, same_length, yes_or_no


def d_prime(hits: int, signals: int, false_alarms: int, noises: int) -> float:
    """d' from counts of yes answers at one threshold.

        rate = (yes + 1/2) / (n + 1)

    Args:
        hits: yes answers among the signals.
        signals: how many there were, 1 or more.
        false_alarms: yes answers among the noises.
        noises: how many there were, 1 or more.

    Returns:
        d', 0 by chance.

    Raises:
        InputError: a count is not a whole number in its range.

    Source: Green and Swets 1966; the added halves: Hautus 1995.
    """
    quantile = NormalDist().inv_cdf
    return quantile(_rate(hits, signals, "hits")) - quantile(_rate(false_alarms, noises, "false_alarms"))


def d_a(scores: Numbers, positive: Numbers) -> float:
    """How many spreads the scores of what is there exceed those of what is not.

    Args:
        scores: (n,) larger where there is more reason to say yes.
        positive: (n,) whether it is there; 1 or True.

    Returns:
        d_a; infinite where two different scores have no spread, NaN where either side has fewer than 2 scores or nothing varies.

    Raises:
        InputError: lengths differ, scores are not finite, or `positive` is neither 0 nor 1 somewhere.

    Source: Simpson and Fitter 1973.
    """
    values, there = finite_numbers(scores, "scores"), yes_or_no(positive, "positive", "score")
    same_length(values.size, "scores", there.size, "positive")
    signal, noise = values[there == 1], values[there == 0]
    if min(signal.size, noise.size) < 2:
        return float("nan")
    gap = float(signal.mean() - noise.mean())
    spread = float(np.sqrt((signal.var(ddof=1) + noise.var(ddof=1)) / 2))
    if spread > 0:
        return gap / spread
    return float("nan") if gap == 0 else float(np.copysign(np.inf, gap))


def _rate(yes: int, n: int, name: str) -> float:
    if int(n) != n or n < 1:
        raise InputError(f"{name} must be counted among 1 or more answers, got {n}; d' needs both signals and noises.")
    if int(yes) != yes or not 0 <= yes <= n:
        raise InputError(f"{name} must be a whole number from 0 to {n}, got {yes}; count them again.")
    return (yes + 0.5) / (n + 1)
