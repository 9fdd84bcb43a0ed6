"""Records in clusters in clusters, put in an order that depends on nothing but their contents, and resampled.

Facts about one relation are alike, and prompts about one subject more so; treating them as independent makes intervals
too narrow. So whole clusters are drawn with replacement (Davison and Hinkley 1997, section 3.8).

A record is a row of numbers. It carries a label: either one cluster, or a tuple (outer, inner) such as (relation,
subject). Rows are sorted inside their inner cluster, inner clusters by their rows inside their outer cluster, and outer
clusters by theirs. Labels only say what belongs together. A resampling therefore cannot depend on the order in which
records arrive, nor on how clusters are called, nor on a hash seed.
"""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from jaxtyping import Float, Int, Shaped

from palimpsest.errors import InputError, SettingError
from palimpsest.statistics.checks import refuse_not_finite, same_length

Labels: TypeAlias = Sequence[Any] | Shaped[np.ndarray, "_"]
Within: TypeAlias = Literal["resample", "keep"]

# Multiplicities are drawn so many resamples at a time that no block holds more numbers than this (32 MB).
_BLOCK_ENTRIES = 4_000_000


@dataclass(frozen=True)
class Hierarchy:
    """Records in canonical order, with the two levels that are drawn.

    Args:
        rows: (n, columns) the records, in canonical order.
        inner_sizes: for each outer cluster, how many records each of its inner clusters holds.
        drawn: what is drawn at the outer level, in words for `Estimate.method`.
        clusters: how many outer clusters the labels name (1 where a lower level had to be drawn instead).
    """

    rows: Float[np.ndarray, "n columns"]
    inner_sizes: tuple[tuple[int, ...], ...]
    drawn: str
    clusters: int

    @property
    def n(self) -> int:
        """How many records there are."""
        return int(self.rows.shape[0])

    def outer_sums(self, rows: Float[np.ndarray, "n columns"]) -> Float[np.ndarray, "outer columns"]:
        """`rows`, in canonical order, summed over each outer cluster."""
        sizes = [sum(inner) for inner in self.inner_sizes]
        return np.add.reduceat(rows, np.cumsum([0, *sizes[:-1]]), axis=0)

    def inner_sums(self, rows: Float[np.ndarray, "n columns"]) -> Float[np.ndarray, "inner columns"]:
        """`rows`, in canonical order, summed over each inner cluster, all outer clusters one after another."""
        sizes = [size for inner in self.inner_sizes for size in inner]
        return np.add.reduceat(rows, np.cumsum([0, *sizes[:-1]]), axis=0)

    def resampled_sums(
        self, rows: Float[np.ndarray, "n columns"], resamples: int, seed: int
    ) -> Float[np.ndarray, "resamples columns"]:
        """Column sums of every resample, without building one: sum over clusters of (times drawn) x (sum of its rows).

        Args:
            rows: (n, columns) in canonical order.
            resamples: how many.
            seed: of numpy's default generator.
        """
        sums = self.inner_sums(rows)
        return np.concatenate([times @ sums for times in self._times_drawn(resamples, seed)])

    def resampled_rows(self, resamples: int, seed: int) -> Iterator[Float[np.ndarray, "drawn columns"]]:
        """The rows of each resample in turn, drawn as in `resampled_sums`; for statistics that are not sums."""
        sizes = np.array([size for inner in self.inner_sizes for size in inner])
        for block in self._times_drawn(resamples, seed):
            for times in block:
                yield np.repeat(self.rows, np.repeat(times.astype(np.int64), sizes), axis=0)

    def record_times(self, resamples: int, seed: int) -> Iterator[Float[np.ndarray, "block n"]]:
        """How often each record enters each resample, drawn as in `resampled_sums`, in blocks of resamples."""
        sizes = np.array([size for inner in self.inner_sizes for size in inner])
        for times in self._times_drawn(resamples, seed):
            yield np.repeat(times, sizes, axis=1)

    def _times_drawn(self, resamples: int, seed: int) -> Iterator[Float[np.ndarray, "block inner"]]:
        """How often each inner cluster enters each resample, in blocks of resamples.

        K outer clusters are drawn with replacement from K: times ~ Multinomial(K, 1/K). An outer cluster of M inner
        clusters drawn t times draws M of them with replacement t times over: times ~ Multinomial(t M, 1/M).
        """
        if resamples < 1:
            raise SettingError(f"resamples must be 1 or more, got {resamples}; 2000 is customary.")
        generator = np.random.default_rng(seed)
        outer = len(self.inner_sizes)
        counts = [len(inner) for inner in self.inner_sizes]
        starts = np.cumsum([0, *counts])
        block = max(1, _BLOCK_ENTRIES // int(starts[-1]))
        for first in range(0, resamples, block):
            size = min(block, resamples - first)
            outer_times = _multinomial(generator, np.full(size, outer), outer)
            times = np.empty((size, starts[-1]))
            for index, count in enumerate(counts):
                drawn = outer_times[:, index]
                times[:, starts[index] : starts[index + 1]] = (
                    drawn[:, None] if count == 1 else _multinomial(generator, drawn * count, count)
                )
            yield times


def _multinomial(
    generator: np.random.Generator, draws: Int[np.ndarray, "block"], categories: int
) -> Int[np.ndarray, "block categories"]:
    """Row by row, how often each of equally likely categories comes up in so many draws.

    Counting single draws is more than twice as fast as numpy's `multinomial`, which goes category by category.
    """
    row = np.repeat(np.arange(draws.size), draws)
    drawn = generator.integers(0, categories, size=row.size)
    return np.bincount(row * categories + drawn, minlength=draws.size * categories).reshape(draws.size, categories)


def arrange(
    rows: Float[np.ndarray, "n columns"],
    clusters: Labels | None,
    within: Within = "resample",
    *,
    fall_back: bool = True,
) -> Hierarchy:
    """Records and their labels as a `Hierarchy`.

    Where all records share one outer cluster there is nothing to draw at that level, so the next one down is drawn:
    inner clusters if there are several, else single records. `Hierarchy.drawn` says so.

    Args:
        rows: (n, columns) finite numbers, one row a record.
        clusters: n labels, or n tuples (outer, inner), or None when every record stands alone.
        within: "resample" draws inner clusters inside each drawn outer cluster; "keep" keeps all of them.
        fall_back: whether a single outer cluster gives way to the next level down, as said above.

    Raises:
        InputError: lengths differ, a number is not finite, a label is NaN, unhashable, or a tuple not of length 2, or
            plain labels and tuples are mixed.
        SettingError: `within` is neither "resample" nor "keep".
    """
    if within not in ("resample", "keep"):
        raise SettingError(f"within must be 'resample' or 'keep', got {within!r}; choose one of the two.")
    refuse_not_finite(rows, "values")
    pairs = _pairs(clusters, rows.shape[0])
    tree: dict[Hashable, dict[Hashable, list[tuple[float, ...]]]] = {}
    for (outer, inner), row in zip(pairs, (rows + 0.0).tolist(), strict=True):  # + 0.0 makes one zero of -0.0 and 0.0
        tree.setdefault(outer, {}).setdefault(inner, []).append(tuple(row))
    outers = sorted(tuple(sorted(tuple(sorted(records)) for records in inners.values())) for inners in tree.values())
    nested = any(inner is not None for _, inner in pairs)
    drawn = "outer and inner clusters" if nested and within == "resample" else "clusters"
    if clusters is None:
        drawn = "records"
    elif len(outers) == 1 and len(outers[0]) > 1 and fall_back:
        outers = [(inner,) for inner in outers[0]]
        drawn = "inner clusters, for there is only one outer cluster"
    elif len(outers) == 1 and fall_back:
        outers = [((row,),) for row in outers[0][0]]
        drawn = "records, for there is only one cluster"
    elif within == "keep":
        outers = [(tuple(row for inner in inners for row in inner),) for inners in outers]
    ordered = np.array([row for inners in outers for inner in inners for row in inner], dtype=np.float64)
    sizes = tuple(tuple(len(inner) for inner in inners) for inners in outers)
    return Hierarchy(rows=ordered, inner_sizes=sizes, drawn=drawn, clusters=len(tree))


def _pairs(clusters: Labels | None, n: int) -> list[tuple[Hashable, Hashable]]:
    """One (outer, inner) a record; inner is None where labels are plain."""
    if clusters is None:
        return [(index, None) for index in range(n)]
    if isinstance(clusters, str):
        raise InputError(f"clusters must be one label a record, got the text {clusters!r}; pass a list of labels.")
    labels = clusters.tolist() if isinstance(clusters, np.ndarray) else list(clusters)
    same_length(n, "values", len(labels), "clusters")
    if labels and isinstance(labels[0], list):
        labels = [tuple(label) if isinstance(label, list) else label for label in labels]
    tuples = sum(isinstance(label, tuple) for label in labels)
    if tuples not in (0, n):
        raise InputError(
            f"clusters must all be plain labels or all be tuples (outer, inner), got {tuples} tuples among {n}; "
            f"choose one form."
        )
    pairs: list[tuple[Hashable, Hashable]] = []
    for position, label in enumerate(labels):
        if tuples and len(label) != 2:
            raise InputError(
                f"A nested cluster label must be a tuple (outer, inner), got {label!r} at position {position}; "
                f"join further levels into one of the two."
            )
        for part in label if tuples else (label,):
            if isinstance(part, float) and part != part:
                raise InputError(f"A cluster label must not be NaN, got one at position {position}; name its cluster.")
            try:
                hash(part)
            except TypeError as error:
                raise InputError(
                    f"A cluster label must be hashable, such as text or a number, got {part!r} at position {position}; "
                    f"use its name."
                ) from error
        # the wrapping tuple tells an inner label that is None from "no inner label"
        pairs.append((label[0], (label[1],)) if tuples else (label, None))
    return pairs
