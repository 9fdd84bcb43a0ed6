"""The rising steps nearest to some points: isotonic regression.

    fitted = argmin sum_i w_i (y_i - f_i)^2        subject to f_i <= f_j wherever x_i <= x_j

No shape is assumed but that it never falls. Points that share an x share a value, their mean; neighbours that fall are pooled until
none does (pool adjacent violators, Ayer et al. 1955). On dose-response it is the check of a Hill fit that assumes nothing; on
scores it is the map from a score to a probability (Zadrozny and Elkan 2002).
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import optimize

from palimpsest.errors import InputError
from palimpsest.statistics.checks import Numbers, finite_numbers, same_length


class Isotonic(NamedTuple):
    """Rising steps, and how much of the spread they account for.

    Attributes:
        fitted: (n,) the value at each point, in the order given.
        r2: 1 - residual / total sum of squares, 0 to 1; NaN where y does not vary.
    """

    fitted: Float[np.ndarray, " n"]
    r2: float


def isotonic_fit(x: Numbers, y: Numbers, *, increasing: bool = True) -> Isotonic:
    """The rising (or falling) steps nearest to the points in the sum of squares.

    Args:
        x: (n,) where the points stand, in any order.
        y: (n,) their values.
        increasing: whether steps rise; else they fall.

    Returns:
        Isotonic.

    Raises:
        InputError: lengths differ, or numbers are missing or not finite.

    Source: Ayer et al. 1955; Barlow et al. 1972, *Statistical Inference under Order Restrictions*.
    """
    places, values = finite_numbers(x, "x"), finite_numbers(y, "y")
    same_length(places.size, "x", values.size, "y")
    _, step, counts = np.unique(places, return_inverse=True, return_counts=True)
    means = np.bincount(step, values) / counts
    fitted = optimize.isotonic_regression(means, weights=counts, increasing=increasing).x[step]
    total = float(((values - values.mean()) ** 2).sum())
    residual = float(((values - fitted) ** 2).sum())
    return Isotonic(fitted, 1 - residual / total if total > 0 else float("nan"))


def isotonic_at(x: Numbers, fitted: Numbers, new: Numbers) -> Float[np.ndarray, " m"]:
    """The fitted steps at new places: straight lines between the points, level beyond the first and the last.

    Args:
        x: (n,) where the points of the fit stand.
        fitted: (n,) `Isotonic.fitted`.
        new: (m,) where to read it.

    Raises:
        InputError: lengths differ, numbers are not finite, or two points at one x have different values.
    """
    places, values, wanted = finite_numbers(x, "x"), finite_numbers(fitted, "fitted"), finite_numbers(new, "new")
    same_length(places.size, "x", values.size, "fitted")
    knots, first, back = np.unique(places, return_index=True, return_inverse=True)
    if (values[first][back] != values).any():
        raise InputError(
            "Points of an isotonic fit that share an x share a value, got two values at one x; pass its `fitted`."
        )
    return np.interp(wanted, knots, values[first])
