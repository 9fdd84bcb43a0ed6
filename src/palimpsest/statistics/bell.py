"""An effect that rises with the dose and falls again: a bell of two Hill curves, and the choice between the two shapes.

    E(d) = bottom + height  d^s / (d^s + ed50^s)  (1 - d^s / (d^s + fall50^s)),        fall50 >= ed50

Overdoses of an edit push a state so far that later layers no longer read it, and the effect declines. A Hill curve fitted to
such effects puts its top into the middle of the decline. Which of the two describes the effects is decided by Akaike's criterion
corrected for few points (Hurvich and Tsai 1989),

    AICc = n ln(RSS / n) + 2 k + 2 k (k + 1) / (n - k - 1),        k = parameters + 1

the smaller being the better; the bell pays for its fifth parameter.

Source: the product of a rising and a falling Hill curve is the usual bell of pharmacology (Gaddum 1957; Prinz 2010).
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import optimize

from palimpsest.statistics.checks import Numbers, finite_numbers
from palimpsest.statistics.hill import (
    PARAMETERS,
    SLOPES,
    HillFit,
    checked_doses,
    dose_bounds,
    hill_fit,
    is_flat,
    r_squared,
    residual_squares,
    residuals,
    rise,
    straight_line,
)


@dataclass(frozen=True)
class BellFit:
    """A bell fitted to effects; every number is NaN where the effects do not vary.

    Attributes:
        bottom: the effect of no dose, and of a dose without end.
        height: what multiplies the product of the two curves; the summit is lower where they overlap.
        ed50: the dose half of the way up, were there no decline.
        fall50: the dose half of the way down; never below ed50.
        slope: Hill's coefficient of both flanks, 0.2 to 20.
        r2: 1 - residual / total sum of squares.
        n: how many doses were fitted.
    """

    bottom: float
    height: float
    ed50: float
    fall50: float
    slope: float
    r2: float
    n: int

    @property
    def peak(self) -> float:
        """The dose of the summit, sqrt(ed50 fall50): both flanks have one slope, so the bell is even in the logarithm."""
        return float(np.sqrt(self.ed50 * self.fall50))

    def at(self, doses: Numbers) -> Float[np.ndarray, " n"]:
        """The curve at some doses."""
        return self.bottom + self.height * _bell(finite_numbers(doses, "doses"), self.ed50, self.fall50, self.slope)


def bell_fit(doses: Numbers, effects: Numbers) -> BellFit:
    """The bell nearest to the effects in the sum of squares, searched as in `hill_fit`.

    Args:
        doses: (n,) 0 or more, at least 6 different ones.
        effects: (n,) the effect of each, in any unit.

    Returns:
        BellFit; of NaN where the effects do not vary.

    Raises:
        InputError: as `hill_fit`, or fewer than 6 doses differ.
    """
    dose, effect = checked_doses(doses, effects, PARAMETERS + 1)
    if is_flat(effect):
        none = float("nan")
        return BellFit(none, none, none, none, none, none, n=dose.size)
    low, high = dose_bounds(dose)
    furthest = high - low  # of fall50 from ed50, in logarithms
    grid = np.stack(
        np.meshgrid(
            np.linspace(low, high, 16),
            np.linspace(0, furthest, 16),
            np.linspace(math.log(SLOPES[0]), math.log(SLOPES[1]), 8),
            indexing="ij",
        ),
        axis=-1,
    ).reshape(-1, 3)
    ed50, apart, slope = np.exp(grid.T)[:, :, None]
    start = grid[np.argmin(residual_squares(_bell(dose[None], ed50, ed50 * apart, slope), effect))]

    def shape(logs: Float[np.ndarray, " 3"]) -> Float[np.ndarray, " n"]:
        return _bell(dose, np.exp(logs[0]), np.exp(logs[0] + logs[1]), np.exp(logs[2]))

    found = optimize.least_squares(
        lambda logs: residuals(shape(logs), effect),
        start,
        bounds=([low, 0.0, math.log(SLOPES[0])], [high, furthest, math.log(SLOPES[1])]),
    )
    bottom, height = straight_line(shape(found.x), effect)
    return BellFit(
        bottom=bottom,
        height=height,
        ed50=float(np.exp(found.x[0])),
        fall50=float(np.exp(found.x[0] + found.x[1])),
        slope=float(np.exp(found.x[2])),
        r2=r_squared(2 * found.cost, effect),
        n=dose.size,
    )


def dose_fit(doses: Numbers, effects: Numbers) -> HillFit | BellFit:
    """The Hill curve or the bell, whichever has the smaller AICc; the Hill curve where doses are too few to compare (below 8).

    Args:
        doses, effects: as in `hill_fit`.

    Raises:
        InputError: as `hill_fit`.
    """
    hill = hill_fit(doses, effects)
    dose = finite_numbers(doses, "doses")
    # AICc of the bell divides by n - 7, and the bell needs one dose more than it has parameters
    if dose.size < 8 or np.unique(dose).size < PARAMETERS + 2 or np.isnan(hill.r2):
        return hill
    bell = bell_fit(doses, effects)
    return bell if _aicc(bell.r2, hill.n, PARAMETERS + 1) < _aicc(hill.r2, hill.n, PARAMETERS) else hill


def _aicc(r2: float, n: int, parameters: int) -> float:
    """Without n ln(total / n), which both curves share; a perfect fit counts as one to rounding."""
    k = parameters + 1
    return n * float(np.log(max(1 - r2, 1e-12))) + 2 * k + 2 * k * (k + 1) / (n - k - 1)


def _bell(
    dose: Float[np.ndarray, "..."],
    ed50: float | Float[np.ndarray, "..."],
    fall50: float | Float[np.ndarray, "..."],
    slope: float | Float[np.ndarray, "..."],
) -> Float[np.ndarray, "..."]:
    return rise(dose, ed50, slope) * (1 - rise(dose, fall50, slope))
