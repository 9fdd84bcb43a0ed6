"""Organisms drawn with replacement, and inside each one the subjects of its facts: the resamples of every interval here.

    profile of organism o      m_o(l) = mean over its facts of s_{f,l}
    a resample                 O organisms drawn from the O there are; for each of them as many subjects as it has, drawn
                               from its own, and the mean over the facts of these

Facts of one subject go together. Organisms of one base share its weights, though no name and no fact that they plant: the interval
is for other organisms made from these bases, and says nothing about other bases.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from palimpsest.statistics import Estimate, proportion
from palimpsest.statistics.bootstrap import resamples_text
from palimpsest.statistics.checks import tail_rank
from palimpsest.world.certificate.instrument import Evidence

LEVEL = 0.95


def profile(evidence: Evidence) -> Float[np.ndarray, " layers"]:
    """The mean over facts."""
    return evidence.scores.mean(axis=0)


def drawn_profiles(
    evidence: Evidence, resamples: int, generator: np.random.Generator
) -> Float[np.ndarray, "resamples layers"]:
    """Means over facts, with subjects drawn anew each time."""
    names = [subject for _, _, subject in evidence.facts]
    subjects = sorted(set(names))
    number = np.array([subjects.index(name) for name in names])
    times = generator.multinomial(len(subjects), np.full(len(subjects), 1 / len(subjects)), size=resamples)
    weights = times[:, number].astype(np.float64)
    return weights @ evidence.scores / weights.sum(axis=1, keepdims=True)


def drawn_organisms(
    evidence: Sequence[Evidence], resamples: int, generator: np.random.Generator
) -> tuple[Int[np.ndarray, "resamples organisms"], Float[np.ndarray, "resamples organisms layers"]]:
    """(which organism stands in each place of each resample, its profile there)."""
    bank = np.stack([drawn_profiles(one, resamples, generator) for one in evidence])
    which = generator.integers(0, len(evidence), size=(resamples, len(evidence)))
    # each organism that is drawn twice has other facts the second time
    row = generator.integers(0, resamples, size=which.shape)
    return which, bank[which, row]


def interval(
    value: float, drawn: Float[np.ndarray, " resamples"], evidence: Sequence[Evidence], name: str, seed: int
) -> Estimate:
    """The percentile interval, widened where needed to hold the value."""
    defined = np.sort(drawn[~np.isnan(drawn)])
    low = high = float("nan")
    if defined.size and not np.isnan(value):
        rank = max(1, tail_rank(LEVEL, drawn.size) * defined.size // drawn.size)
        low, high = min(float(defined[rank - 1]), value), max(float(defined[-rank]), value)
    counted = resamples_text(drawn.size, drawn.size - defined.size)
    method = f"{name}, percentile bootstrap of organisms and of subjects inside, {counted}, seed {seed}"
    n = sum(len(one.facts) for one in evidence)
    return Estimate(value, low, high, n, len(evidence), LEVEL, method)


def share(estimate: Estimate) -> Estimate:
    """The same; where every organism is right, or none is, at least as wide as the interval of a proportion.

    For hit rates, and for areas, which are 1 where the planted layer comes before all others in every organism: resamples of
    organisms that are all right know nothing of one that is not.
    """
    if estimate.value not in (0.0, 1.0):
        return estimate
    found = proportion(round(estimate.value * estimate.clusters), estimate.clusters, level=LEVEL)
    low, high = min(estimate.low, found.low), max(estimate.high, found.high)
    method = f"{estimate.method}; widened to the {found.method} over organisms"
    return Estimate(estimate.value, low, high, estimate.n, estimate.clusters, LEVEL, method)
