"""The mean of several groups' effects when the groups truly differ: random effects, and what a further group would show.

    w_i = 1 / v_i,    Q = sum_i w_i (y_i - ybar_w)^2,    tau2 = max(0, (Q - (k - 1)) / (sum w - sum w^2 / sum w))

    w*_i = 1 / (v_i + tau2),    mean = sum w*_i y_i / sum w*_i,    SE^2 = 1 / sum w*_i,    I2 = max(0, (Q - (k - 1)) / Q)

    prediction = mean +- t_{k-2} sqrt(tau2 + SE^2)

The interval of the mean says where the average of all relations lies. The *prediction* interval says where a relation not yet
measured would lie, and it alone answers "does it hold for relations", for a mean well above zero can be made of relations on both
sides of it. With few groups tau2 is known badly; the t quantile pays for that in part.

Source: DerSimonian and Laird 1986, *Controlled Clinical Trials* 7, 177-188; prediction: Higgins, Thompson and Spiegelhalter 2009,
*Journal of the Royal Statistical Society A* 172, 137-159; I2: Higgins and Thompson 2002.
"""

import math
from dataclasses import dataclass

from scipy import stats

from palimpsest.errors import InputError, SettingError
from palimpsest.statistics.checks import Numbers, finite_numbers, same_length
from palimpsest.statistics.estimate import Estimate


@dataclass(frozen=True)
class RandomEffects:
    """What several groups say together.

    Attributes:
        mean: the average over groups, with its normal interval.
        tau2: variance between groups beyond what their own variances explain, in squared units.
        i2: the share of the spread between groups that is not chance, 0 to 1; NaN for a single group.
        prediction: the same value, with the interval for a further group; no interval for fewer than 3 groups.
        q: Cochran's Q.
    """

    mean: Estimate
    tau2: float
    i2: float
    prediction: Estimate
    q: float


def random_effects(values: Numbers, variances: Numbers, *, level: float = 0.95, unit: str = "") -> RandomEffects:
    """Random-effects mean of groups' estimates, with its prediction interval.

    Args:
        values: (k,) one estimate a group.
        variances: (k,) the squared standard error of each, above 0.
        level: coverage aimed at.
        unit: unit of the values.

    Returns:
        RandomEffects; n and clusters of its estimates are the number of groups.

    Raises:
        InputError: lengths differ, numbers are missing or not finite, or a variance is not above 0.
        SettingError: level is not strictly between 0 and 1.

    Source: DerSimonian and Laird 1986; Higgins, Thompson and Spiegelhalter 2009.
    """
    if not 0 < level < 1:
        raise SettingError(f"level must lie strictly between 0 and 1, got {level}; try 0.95.")
    effect, variance = finite_numbers(values, "values"), finite_numbers(variances, "variances")
    same_length(effect.size, "values", variance.size, "variances")
    if variance.min() <= 0:
        raise InputError(
            f"variances must be above 0, got {variance.min()}; a group of equal records has no standard error, so give "
            f"it that of a similar group, or leave it out and say so."
        )
    k = effect.size
    weight = 1 / variance
    q = float(weight @ (effect - (weight @ effect) / weight.sum()) ** 2)
    beyond = max(0.0, q - (k - 1))
    tau2 = beyond / float(weight.sum() - (weight**2).sum() / weight.sum()) if beyond > 0 else 0.0
    both = 1 / (variance + tau2)
    mean, error = float(both @ effect / both.sum()), 1 / math.sqrt(both.sum())

    def estimate(half: float, method: str) -> Estimate:
        return Estimate(mean, mean - half, mean + half, n=k, clusters=k, level=level, method=method, unit=unit)

    upper = (1 + level) / 2
    of_mean = f"random-effects mean of {k} groups (DerSimonian-Laird), normal interval"
    predicted = (
        f"random-effects mean of {k} groups (DerSimonian-Laird), prediction interval (t, {k - 2} degrees of freedom)"
    )
    return RandomEffects(
        mean=estimate(float(stats.norm.ppf(upper)) * error, of_mean),
        tau2=tau2,
        i2=beyond / q if q > 0 else (math.nan if k == 1 else 0.0),
        prediction=estimate(float(stats.t.ppf(upper, k - 2)) * math.sqrt(tau2 + error**2), predicted)
        if k > 2
        else estimate(math.nan, f"random-effects mean of {k} groups, too few for a prediction interval"),
        q=q,
    )
