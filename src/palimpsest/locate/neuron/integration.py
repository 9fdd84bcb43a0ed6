"""Sums that stand for the integral of a gradient along a straight path, and where such a sum goes wrong.

A rule gives points a_j in [0, 1] and weights w_j. Along the path the score P(a) and its slope P'(a) are both known at every
point, so the error of the sum of slopes is known too, not only as a whole but between any two neighbouring points:

    sum_j w_j P'(a_j) - (P(1) - P(0)) = sum over gaps [ (w_j P'(a_j) + w_{j+1} P'(a_{j+1})) / 2 - (P(a_{j+1}) - P(a_j)) ]

with P(0) and P(1) as the outermost neighbours. A step (as where a network changes its mind) sits in one gap and shows there.
The midpoint rule is refined by cutting the intervals beside the worst gaps in three, which keeps their midpoints.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

Points = tuple[Float[np.ndarray, "steps"], Float[np.ndarray, "steps"]]


def _gauss_legendre(steps: int) -> Points:
    at, weight = np.polynomial.legendre.leggauss(steps)
    return (at + 1) / 2, weight / 2


def _equal(at: Float[np.ndarray, "steps"]) -> Points:
    return at, np.full(len(at), 1 / len(at))


RULES: dict[str, Callable[[int], Points]] = {
    "midpoint": lambda m: _equal((np.arange(m) + 0.5) / m),
    "gauss-legendre": _gauss_legendre,
    "left": lambda m: _equal(np.arange(m) / m),
    "inclusive": lambda m: _equal(np.linspace(0, 1, m)),
}
"""Points and weights by name. "left" is the sum of Dai et al. 2022, "inclusive" that of EleutherAI's code."""

REFINABLE = ("midpoint",)


@dataclass(frozen=True, eq=False)
class Path:
    """What was seen along a path, in order of the points.

    Attributes:
        at, weight: a_j and w_j.
        score, slope: P(a_j) and P'(a_j).
        start, end: P(0) and P(1).
    """

    at: Float[np.ndarray, "points"]
    weight: Float[np.ndarray, "points"]
    score: Float[np.ndarray, "points"]
    slope: Float[np.ndarray, "points"]
    start: float
    end: float

    @property
    def gaps(self) -> Float[np.ndarray, "gaps"]:
        """Error between neighbouring points, the ends included; they add up to the error of the sum."""
        half = self.weight * self.slope / 2
        return np.append(0, half) + np.append(half, 0) - np.diff([self.start, *self.score, self.end])

    @property
    def error(self) -> float:
        """Sum of the slopes minus P(1) - P(0)."""
        return float((self.weight * self.slope).sum() - (self.end - self.start))

    def to_split(self, allowed: float) -> list[int]:
        """Intervals beside the worst gaps, so many that the other gaps' errors add up to at most `allowed`."""
        size = np.abs(self.gaps)
        order = np.argsort(-size, kind="stable")
        left = size.sum() - np.cumsum(size[order])
        worst = order[: int((left > allowed).sum()) + 1]
        return sorted({i for gap in worst.tolist() for i in (gap - 1, gap) if 0 <= i < len(self.at)})

    def split(self, cut: list[int], score: Float[np.ndarray, "cut 2"], slope: Float[np.ndarray, "cut 2"]) -> "Path":
        """The path with the intervals `cut` in three; `score` and `slope` are those at the outer two new midpoints."""
        third = self.weight[cut] / 3
        weight = self.weight.copy()
        weight[cut] = third
        at = np.concatenate([self.at, self.at[cut] - third, self.at[cut] + third])
        order = np.argsort(at, kind="stable")
        return Path(
            at[order],
            np.concatenate([weight, third, third])[order],
            np.concatenate([self.score, *score.T])[order],
            np.concatenate([self.slope, *slope.T])[order],
            self.start,
            self.end,
        )
