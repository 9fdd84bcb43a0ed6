"""One number from many columns, with the maximum kept honest.

A fact may show at any of hundreds of columns: layers, heads, wordings. To look at the column where it shows most is to take a
maximum, and a maximum over noise is large too. Westfall and Young's remedy (1993, max-T) is to take the same maximum where
there is nothing to find:

    z_ij = (score_ij - mean of controls at column j) / sd of controls at column j       every column in one unit
    m_i  = max over j of z_ij                                                           one number a pair
    AUC  = P(m_edited > m_control) + P(m_edited = m_control) / 2                        the residue AUC

0.5 says that an edited fact's old answer shows no more than the same answer does at subjects that never had it, over all places
at once; 1 that it always shows more. Below 0.5 it shows *less* than that: it was pushed down further than where it never stood,
and the hole is itself a trace.

A control must not help to set the mean and spread it is judged by, or it would look smaller than an edited pair that is exactly
like it. Subjects are therefore dealt into ten folds, and every pair, edited or control, is standardised by the controls of the
other folds. Columns where those controls number fewer than `LEAST`, or do not differ, are not used for that fold.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from palimpsest.erase.residue.pair import Pair
from palimpsest.errors import InputError

FOLDS, LEAST = 10, 5


def folds_of(pairs: Sequence[Pair], seed: int = 0) -> Int[np.ndarray, "pairs"]:
    """The fold of each pair: pairs about one subject share it, subjects are dealt in a drawn order."""
    subjects = sorted({pair.fact.subject for pair in pairs})
    order = np.random.default_rng(seed).permutation(len(subjects))
    fold = {subjects[i]: place % FOLDS for place, i in enumerate(order)}
    return np.array([fold[pair.fact.subject] for pair in pairs])


def standardised(
    scores: Float[np.ndarray, "pairs columns"], controls: Bool[np.ndarray, "pairs"], folds: Int[np.ndarray, "pairs"]
) -> Float[np.ndarray, "pairs columns"]:
    """z of every pair, by the controls of other folds; NaN where a score or its standard is missing.

    Args:
        scores: of every pair at every column.
        controls: which pairs set the standard.
        folds: of every pair.

    Raises:
        InputError: the controls are too few or of too few subjects to set a standard.
    """
    if controls.sum() <= LEAST or len(np.unique(folds[controls])) < 2:
        raise InputError(
            f"Standardising needs more than {LEAST} controls of at least two subjects, got {int(controls.sum())}; "
            f"give more facts or more controls."
        )
    z = np.full_like(scores, np.nan)
    for fold in np.unique(folds):
        standard = scores[controls & (folds != fold)]
        count = (~np.isnan(standard)).sum(0)
        usable = count >= LEAST
        mean, spread = np.full(count.shape, np.nan), np.full(count.shape, np.nan)
        some = standard[:, usable]
        mean[usable] = np.nanmean(some, axis=0)
        spread[usable] = np.nanstd(some, axis=0, ddof=1)
        # equal values leave rounding noise of the size of the mean's last digits
        spread[spread <= 1e-9 * np.abs(mean)] = np.nan
        own = folds == fold
        z[own] = (scores[own] - mean) / spread
    return z


def maxima(z: Float[np.ndarray, "pairs columns"]) -> Float[np.ndarray, "pairs"]:
    """The largest z of each pair; NaN for a pair that could be read nowhere."""
    found = np.where(np.isnan(z), -np.inf, z).max(axis=1, initial=-np.inf)
    return np.where(np.isinf(found), np.nan, found)


def shares_below(own: Float[np.ndarray, "some"], controls: Float[np.ndarray, "others"]) -> Float[np.ndarray, "some"]:
    """For each edited pair the share of controls whose maximum is smaller, ties half: their mean is the AUC (DeLong et al. 1988).

    A number a fact, so that two methods can be compared fact by fact.
    """
    ordered = np.sort(controls[~np.isnan(controls)])
    below = np.searchsorted(ordered, own, side="left") + np.searchsorted(ordered, own, side="right")
    return np.where(np.isnan(own), np.nan, below / (2 * len(ordered)) if len(ordered) else np.nan)
