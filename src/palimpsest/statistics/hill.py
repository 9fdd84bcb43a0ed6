"""How an effect grows with the dose: Hill's curve, fitted by least squares.

    E(d) = bottom + (top - bottom) d^slope / (d^slope + ed50^slope)

`bottom` is the effect of no dose, `top` that of a dose without end, `ed50` the dose that gives half of the way, `slope` how
suddenly it comes (1 is gradual, 10 almost a switch). A curve that falls has its top below its bottom.

Given ed50 and slope, the best bottom and top are a straight-line regression, so only two numbers are searched: on a grid of
logarithms first, then downhill from its best point ("variable projection", Golub and Pereyra 1973). Both stay within bounds: ed50
from a tenth of the smallest dose above 0 to ten times the largest, slope from 0.2 to 20. A fit whose ed50 lies above the largest
dose has seen less than half of its own curve; `is_reached` says so. Effects that rise and fall again want `bell`.

Source: Hill 1910, *Journal of Physiology* 40, iv-vii; Goutelle et al. 2008 for its use on doses.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import optimize

from palimpsest.errors import InputError
from palimpsest.statistics.checks import Numbers, finite_numbers, same_length

SLOPES = (0.2, 20.0)
# effects whose spread is less than this share of their size do not vary: there is no curve to fit
FLAT = 1e-12
PARAMETERS = 4


@dataclass(frozen=True)
class HillFit:
    """A Hill curve fitted to effects; every number is NaN where the effects do not vary.

    Attributes:
        bottom: the effect of no dose, in the unit of the effects.
        top: the effect of a dose without end, in the unit of the effects.
        ed50: the dose half of the way, in the unit of the doses.
        slope: Hill's coefficient, 0.2 to 20.
        r2: 1 - residual / total sum of squares; at most 1.
        n: how many doses were fitted.
        largest: the largest dose among them.
    """

    bottom: float
    top: float
    ed50: float
    slope: float
    r2: float
    n: int
    largest: float

    @property
    def is_reached(self) -> bool:
        """Whether half of the way lies within the doses given; else ed50 is an extrapolation."""
        return self.ed50 <= self.largest

    def at(self, doses: Numbers) -> Float[np.ndarray, " n"]:
        """The curve at some doses."""
        return self.bottom + (self.top - self.bottom) * rise(finite_numbers(doses, "doses"), self.ed50, self.slope)


def hill_fit(doses: Numbers, effects: Numbers) -> HillFit:
    """The Hill curve nearest to the effects in the sum of squares.

    Args:
        doses: (n,) 0 or more, at least 5 different ones; a dose may be given several times.
        effects: (n,) the effect of each, in any unit.

    Returns:
        HillFit; of NaN where the effects do not vary.

    Raises:
        InputError: lengths differ, numbers are not finite, a dose is negative, or fewer than 5 doses differ.

    Source: Hill 1910; Golub and Pereyra 1973.
    """
    dose, effect = checked_doses(doses, effects, PARAMETERS)
    if is_flat(effect):
        none = float("nan")
        return HillFit(none, none, none, none, none, n=dose.size, largest=float(dose.max()))
    low, high = dose_bounds(dose)
    grid = np.stack(
        np.meshgrid(
            np.linspace(low, high, 24), np.linspace(math.log(SLOPES[0]), math.log(SLOPES[1]), 12), indexing="ij"
        ),
        axis=-1,
    ).reshape(-1, 2)
    shapes = rise(dose[None], *np.exp(grid.T)[:, :, None])
    start = grid[np.argmin(residual_squares(shapes, effect))]
    found = optimize.least_squares(
        lambda logs: residuals(rise(dose, *np.exp(logs)), effect),
        start,
        bounds=([low, math.log(SLOPES[0])], [high, math.log(SLOPES[1])]),
    )
    ed50, slope = (float(number) for number in np.exp(found.x))
    bottom, height = straight_line(rise(dose, ed50, slope), effect)
    return HillFit(
        bottom=bottom,
        top=bottom + height,
        ed50=ed50,
        slope=slope,
        r2=r_squared(2 * found.cost, effect),
        n=dose.size,
        largest=float(dose.max()),
    )


def rise(
    dose: Float[np.ndarray, "..."], ed50: float | Float[np.ndarray, "..."], slope: float | Float[np.ndarray, "..."]
) -> Float[np.ndarray, "..."]:
    """d^slope / (d^slope + ed50^slope): 0 at no dose, 1/2 at ed50, towards 1 beyond."""
    with np.errstate(divide="ignore", over="ignore"):
        return 1 / (1 + np.exp(-slope * (np.log(dose) - np.log(ed50))))


def straight_line(shape: Float[np.ndarray, " n"], effect: Float[np.ndarray, " n"]) -> tuple[float, float]:
    """Bottom and height that bring `bottom + height * shape` nearest to the effects; height 0 where the shape is flat."""
    apart = shape - shape.mean()
    spread = float(apart @ apart)
    height = float(apart @ effect) / spread if spread > 0 else 0.0
    return float(effect.mean() - height * shape.mean()), height


def residuals(shape: Float[np.ndarray, " n"], effect: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """What the best straight line in the shape leaves of the effects."""
    bottom, height = straight_line(shape, effect)
    return bottom + height * shape - effect


def residual_squares(
    shapes: Float[np.ndarray, "shapes n"], effect: Float[np.ndarray, " n"]
) -> Float[np.ndarray, " shapes"]:
    """Sum of squares that the best straight line in each shape leaves."""
    apart, response = shapes - shapes.mean(axis=1, keepdims=True), effect - effect.mean()
    spread = (apart**2).sum(axis=1)
    explained = np.where(spread > 0, (apart @ response) ** 2 / np.where(spread > 0, spread, 1.0), 0.0)
    return response @ response - explained


def r_squared(residual: float, effect: Float[np.ndarray, " n"]) -> float:
    """1 - residual / total sum of squares."""
    return 1 - float(residual) / float(((effect - effect.mean()) ** 2).sum())


def is_flat(effect: Float[np.ndarray, " n"]) -> bool:
    """Whether the effects differ by no more than rounding."""
    return bool(np.ptp(effect) <= FLAT * np.abs(effect).max())


def dose_bounds(dose: Float[np.ndarray, " n"]) -> tuple[float, float]:
    """Logarithms of a tenth of the smallest dose above 0 and of ten times the largest."""
    return float(np.log(dose[dose > 0].min() / 10)), float(np.log(dose.max() * 10))


def checked_doses(
    doses: Numbers, effects: Numbers, parameters: int
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Doses and effects as arrays, with more different doses than the curve has parameters.

    Raises:
        InputError: see `hill_fit`.
    """
    dose, effect = finite_numbers(doses, "doses"), finite_numbers(effects, "effects")
    same_length(dose.size, "doses", effect.size, "effects")
    if dose.min() < 0:
        raise InputError(
            f"doses must be 0 or more, got {dose.min()}; a dose has no sign, fit the other direction apart."
        )
    if (different := np.unique(dose).size) <= parameters:
        raise InputError(
            f"A curve of {parameters} parameters needs at least {parameters + 1} different doses, got {different}; "
            f"measure more doses."
        )
    return dose, effect
