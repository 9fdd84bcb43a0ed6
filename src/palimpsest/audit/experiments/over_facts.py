"""Numbers that rows hold of facts, as columns, and the clusters that every interval resamples.

    clusters_of(["f1", "f2"], facts)                     # [("capital", "France"), ("capital", "Spain")]
    column(rows, lambda row: row["p"])                   # array of one number a row, None as NaN

Facts of one relation resemble each other, and facts of one subject more so: an interval draws relations, and subjects within them.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from palimpsest.facts import Fact


def clusters_of(names: Iterable[str], facts: Mapping[str, Fact]) -> list[tuple[str, str]]:
    """Relation and subject of each of these facts."""
    return [(facts[name].relation, facts[name].subject) for name in names]


def cluster_by_name(names: Iterable[str], facts: Mapping[str, Fact]) -> dict[str, tuple[str, str]]:
    """The same by fact."""
    return {name: (facts[name].relation, facts[name].subject) for name in names}


def clusters_of_rows(rows: Sequence[Mapping[str, Any]], facts: Mapping[str, Fact]) -> list[tuple[str, str]]:
    """The same of the fact of each row."""
    return clusters_of((row["id"] for row in rows), facts)


def column(
    rows: Sequence[Mapping[str, Any]], of: Callable[[Mapping[str, Any]], Any]
) -> Float[np.ndarray, "rows *more"]:
    """One number (or list of numbers) a row; None, as NaN is stored, becomes NaN again."""
    return np.array([of(row) for row in rows], dtype=float)
