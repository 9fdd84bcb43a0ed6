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

Whom is compared with whom by what, so that nothing but the scores decides:

    by whom        A control must not help to set the mean and the sd by which it is judged, or it would look smaller than an edited
                   pair that is exactly like it; and two pairs must be judged by the same ones, or equal scores would not be equal.
                   Subjects are dealt into ten folds. A pair of fold a and a control of fold b are standardised by the controls
                   of all other folds (`LEAST` of them at a column, or it is not used).
    over what      A pair that has more columns has a larger maximum by chance: the two are compared over the columns both have.
    no spread      Where no control shows an answer at all ("among the first 5": never) there is no sd, and a pair that does show it
                   is further out than any. Its z is that of one value which alone differs from n equal ones, n / sqrt(n + 1) with
                   the sign of the difference. A column in which no pair differs from the others is not used.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

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


@dataclass(frozen=True, eq=False)
class Table:
    """Scores with the controls that set the standard, and the folds.

    Attributes:
        scores: of every pair at every column; NaN where there is none.
        controls: which pairs set the standard.
        folds: of every pair.

    Raises:
        InputError: the controls are too few or of too few subjects to set a standard.
    """

    scores: Float[np.ndarray, "pairs columns"]
    controls: Bool[np.ndarray, "pairs"]
    folds: Int[np.ndarray, "pairs"]

    def __post_init__(self) -> None:
        if self.controls.sum() <= LEAST or len(np.unique(self.folds[self.controls])) < 3:
            raise InputError(
                f"Standardising needs more than {LEAST} controls of at least three subjects, got {int(self.controls.sum())}; "
                f"give more facts or more controls."
            )
        lowest, highest = np.fmin.reduce(self.scores, axis=0), np.fmax.reduce(self.scores, axis=0)
        alike = highest - lowest <= ROUNDING * np.abs(highest)
        object.__setattr__(self, "scores", np.where(alike, np.nan, self.scores))

    def z(self) -> Float[np.ndarray, "pairs columns"]:
        """z of every pair by the controls of other folds; NaN where a score or its standard is missing."""
        found = np.full_like(self.scores, np.nan)
        for fold in np.unique(self.folds).tolist():
            own = self.folds == fold
            found[own] = self._standard(fold).z(self.scores[own])
        return found

    def won(
        self, rows: Int[np.ndarray, "some"], among: Bool[np.ndarray, "columns"]
    ) -> Float[np.ndarray, "some controls"]:
        """[m > m'] + [m = m'] / 2 of some pairs and each control, over the columns that both have; NaN where none is.

        Only columns `among` count.

        The mean over controls is a number a pair, so that two methods can be compared fact by fact; its mean over facts is the
        AUC (DeLong et al. 1988).
        """
        others = np.flatnonzero(self.controls)
        found = np.full((len(rows), len(others)), np.nan)
        for mine, theirs, own, control in self._by_folds(rows, others, among):
            for kind, some in columns_alike(own):
                for other_kind, few in columns_alike(control):
                    if (both := kind & other_kind).any():
                        m, n = own[some][:, both].max(1)[:, None], control[few][:, both].max(1)[None, :]
                        found[np.ix_(mine[some], theirs[few])] = (m > n) + (m == n) / 2
        return found

    def reached(
        self, rows: Int[np.ndarray, "some"], among: Bool[np.ndarray, "columns"]
    ) -> tuple[Float[np.ndarray, "some columns"], Int[np.ndarray, "some"]]:
        """How many controls of other folds have a maximum of at least z_ij, and how many were asked.

        A pair is asked at those of its columns that at least half of these controls have (NaN elsewhere), and compared with the
        controls that have all of them, so that every maximum is over the same columns.
        """
        others = np.flatnonzero(self.controls)
        has = ~np.isnan(self.scores)
        count, asked = np.full((len(rows), self.scores.shape[1]), np.nan), np.zeros(len(rows), dtype=int)
        for mine, theirs, own, control in self._by_folds(rows, others, among, same=False):
            elsewhere = others[self.folds[others] != self.folds[rows[mine[0]]]]
            common = among & (has[elsewhere].mean(0) >= 0.5)
            for kind, some in columns_alike(own):
                used = kind & common
                full = ~np.isnan(control[:, used]).any(axis=1) if used.any() else np.zeros(len(theirs), dtype=bool)
                if not full.any():
                    continue
                largest = np.sort(control[full][:, used].max(1))
                above = len(largest) - np.searchsorted(largest, own[some][:, used], side="left")
                at = np.ix_(mine[some], np.flatnonzero(used))
                count[at] = np.nan_to_num(count[at]) + above
                asked[mine[some]] += len(largest)
        return count, asked

    def _by_folds(
        self,
        rows: Int[np.ndarray, "some"],
        others: Int[np.ndarray, "controls"],
        among: Bool[np.ndarray, "columns"],
        *,
        same: bool = True,
    ) -> Iterator[
        tuple[
            Int[np.ndarray, "mine"],
            Int[np.ndarray, "theirs"],
            Float[np.ndarray, "mine columns"],
            Float[np.ndarray, "theirs columns"],
        ]
    ]:
        """For each fold of `rows` and of `others`: who is in them, and z of both by the controls of neither."""
        for a in np.unique(self.folds[rows]).tolist():
            mine = np.flatnonzero(self.folds[rows] == a)
            for b in np.unique(self.folds[others]).tolist():
                if a != b or same:
                    theirs, standard = np.flatnonzero(self.folds[others] == b), self._standard(a, b)
                    own, control = standard.z(self.scores[rows[mine]]), standard.z(self.scores[others[theirs]])
                    yield mine, theirs, np.where(among, own, np.nan), np.where(among, control, np.nan)

    def _standard(self, *without: int) -> "_Standard":
        key = frozenset(without)
        if key not in self._standards:
            self._standards[key] = _Standard.of(self.scores[self.controls & ~np.isin(self.folds, list(key))])
        return self._standards[key]

    @cached_property
    def _standards(self) -> dict[frozenset[int], "_Standard"]:
        return {}


@dataclass(frozen=True)
class _Standard:
    """Mean and spread of some controls at each column; NaN where they are too few."""

    mean: Float[np.ndarray, "columns"]
    spread: Float[np.ndarray, "columns"]
    count: Int[np.ndarray, "columns"]

    @classmethod
    def of(cls, scores: Float[np.ndarray, "controls columns"]) -> "_Standard":
        count = (~np.isnan(scores)).sum(0)
        usable = count >= LEAST
        mean, spread = np.full(count.shape, np.nan), np.full(count.shape, np.nan)
        mean[usable] = np.nanmean(scores[:, usable], axis=0)
        spread[usable] = np.nanstd(scores[:, usable], axis=0, ddof=1)
        return cls(mean, spread, count)

    def z(self, scores: Float[np.ndarray, "rows columns"]) -> Float[np.ndarray, "rows columns"]:
        # equal values leave rounding noise of the size of the mean's last digits
        noise = ROUNDING * np.abs(self.mean)
        flat = self.spread <= noise
        apart = scores - self.mean
        alone = np.where(np.abs(apart) <= noise, 0.0, np.sign(apart) * self.count / np.sqrt(self.count + 1))
        return np.where(flat & ~np.isnan(apart), alone, apart / np.where(flat, np.nan, self.spread))


def maxima(z: Float[np.ndarray, "pairs columns"]) -> Float[np.ndarray, "pairs"]:
    """The largest z of each pair; NaN for a pair that could be read nowhere."""
    found = np.where(np.isnan(z), -np.inf, z).max(axis=1, initial=-np.inf)
    return np.where(np.isinf(found), np.nan, found)


def columns_alike(
    z: Float[np.ndarray, "pairs columns"],
) -> list[tuple[Bool[np.ndarray, "columns"], Int[np.ndarray, "some"]]]:
    """Which columns there are, and the pairs that have exactly those."""
    has = ~np.isnan(z)
    if len(has) and (has == has[0]).all():
        return [(has[0], np.arange(len(has)))]
    kinds, of = np.unique(has, axis=0, return_inverse=True)
    return [(kind, np.flatnonzero(of.ravel() == i)) for i, kind in enumerate(kinds)]
