"""One number from many columns, with the maximum kept honest.

A fact may show at any of hundreds of columns: layers, heads, wordings. To look at the column where it shows most is to take a
maximum, and a maximum over noise is large too. Westfall and Young's remedy (1993, max-T) is to take the same maximum where
there is nothing to find:

    z_ij = (score_ij - mean of controls at column j) / sd of controls at column j       every column in one unit
    m_i  = max over j of z_ij                                                           one number a pair
    AUC  = P(m_edited > m_control) + P(m_edited = m_control) / 2                        the residue AUC

A pair that has more columns has a larger maximum by chance alone, so an edited pair and a control are compared over the columns
that both have. 0.5 says that an edited fact's old answer shows no more than the same answer does at subjects that never had it,
over all places at once; 1 that it always shows more. Below 0.5 it shows *less* than that: it was pushed down further than where
it never stood, and the hole is itself a trace.

A control must not help to set the mean and spread it is judged by, or it would look smaller than an edited pair that is exactly
like it. Subjects are therefore dealt into ten folds, and every pair, edited or control, is standardised by the controls of the
other folds. Columns where those controls number fewer than `LEAST` are not used for that fold.

Where no control shows an answer at all ("among the first 5": never), they have no spread, and a pair that does show it is
further out than any: it gets the z that one value has which alone differs from n equal ones, n / sqrt(n + 1) with the sign of
the difference. A column in which no pair differs from the others is not used.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from palimpsest.erase.residue.pair import Pair
from palimpsest.errors import InputError

FOLDS, LEAST = 10, 5
ROUNDING = 1e-9  # of a column's size: values that differ by less are equal


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
        own = folds == fold
        # equal values leave rounding noise of the size of the mean's last digits
        flat = usable & (spread <= ROUNDING * np.abs(mean))
        apart = scores[own] - mean
        alone = np.where(np.abs(apart) <= ROUNDING * np.abs(mean), 0.0, np.sign(apart) * count / np.sqrt(count + 1))
        z[own] = np.where(flat, np.where(np.isnan(apart), np.nan, alone), apart / np.where(flat, np.nan, spread))
    lowest, highest = np.fmin.reduce(scores, axis=0), np.fmax.reduce(scores, axis=0)
    z[:, highest - lowest <= ROUNDING * np.abs(highest)] = np.nan
    return z


def maxima(z: Float[np.ndarray, "pairs columns"]) -> Float[np.ndarray, "pairs"]:
    """The largest z of each pair; NaN for a pair that could be read nowhere."""
    found = np.where(np.isnan(z), -np.inf, z).max(axis=1, initial=-np.inf)
    return np.where(np.isinf(found), np.nan, found)


def won(
    own: Float[np.ndarray, "some columns"], controls: Float[np.ndarray, "others columns"]
) -> Float[np.ndarray, "some others"]:
    """[m > m'] + [m = m'] / 2 of each pair and each control, both maxima of z over the columns that both have; NaN where none is.

    The mean over controls is a number a fact, so that two methods can be compared fact by fact; its mean over facts is the AUC
    (DeLong et al. 1988).
    """
    found = np.full((len(own), len(controls)), np.nan)
    for mine, rows in columns_alike(own):
        for theirs, others in columns_alike(controls):
            if (both := mine & theirs).any():
                m, other = own[rows][:, both].max(1)[:, None], controls[others][:, both].max(1)[None, :]
                found[np.ix_(rows, others)] = (m > other) + (m == other) / 2
    return found


def columns_alike(
    z: Float[np.ndarray, "pairs columns"],
) -> list[tuple[Bool[np.ndarray, "columns"], Int[np.ndarray, "some"]]]:
    """Which columns there are, and the pairs that have exactly those."""
    kinds, of = np.unique(~np.isnan(z), axis=0, return_inverse=True)
    return [(kind, np.flatnonzero(of.ravel() == i)) for i, kind in enumerate(kinds)]
