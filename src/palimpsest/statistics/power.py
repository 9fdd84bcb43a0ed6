"""How many records a comparison needs before it can see a difference of a given size.

    n_needed(0.4)                                       # 503 records, for a paired difference of 0.05
    n_needed(after - before, clusters=relations)        # more, where records of a relation go together

"Not significant" from fewer records than this says little: the difference may be there and the run too small to see it.
"""

from math import ceil
from statistics import NormalDist

import numpy as np

from palimpsest.errors import InputError, SettingError
from palimpsest.statistics.bootstrap import design_effect
from palimpsest.statistics.checks import Numbers, finite_numbers
from palimpsest.statistics.hierarchy import Labels


def n_needed(
    differences: float | Numbers,
    difference: float = 0.05,
    *,
    clusters: Labels | None = None,
    power: float = 0.8,
    level: float = 0.05,
) -> int:
    """Paired records for which a two-sided test at `level` finds a true mean difference with probability `power`.

        n = deff ((z_(1 - level/2) + z_power) sd / difference)^2,   rounded up, at least 2

    with sd the standard deviation of the differences of single records, z normal quantiles, and deff the design effect of
    the clusters, 1 or more: what records of one relation share, they do not say twice. More records must then come in more
    clusters of the same size, not as more records of the same ones.

    Args:
        differences: sd itself, or the (n,) differences of a first run, of which sd is taken.
        difference: the smallest mean difference worth finding, in the unit of the differences, above 0.
        clusters: of the first run's records, as in `cluster_bootstrap`; where there is one outer cluster, the inner ones.
        power: probability of finding it.
        level: probability of "finding" one that is not there.

    Raises:
        InputError: the spread is negative or not a number, there are fewer than two differences, or labels do not match.
        SettingError: difference is not above 0, or power or level is not strictly between 0 and 1.

    Source: Cohen 1988, chapter 2 (paired means, normal approximation); Kish 1965, section 8.2 (design effect).
    """
    if not 0 < difference < float("inf"):
        raise SettingError(
            f"difference must be a number above 0, got {difference}; name the smallest one that matters."
        )
    for name, value in (("power", power), ("level", level)):
        if not 0 < value < 1:
            raise SettingError(f"{name} must lie strictly between 0 and 1, got {value}; 0.8 and 0.05 are customary.")
    inflation = 1.0
    if isinstance(differences, int | float):
        spread = float(differences)
        if clusters is not None:
            raise InputError(
                "The design effect of clusters needs the differences themselves; give them, not their spread."
            )
        if not 0 <= spread < float("inf"):
            raise InputError(
                f"The standard deviation must be a number of 0 or more, got {spread}; give that of differences."
            )
    else:
        values = finite_numbers(differences, "differences")
        if values.size < 2:
            raise InputError(
                "A spread needs at least two differences, got 1; give the differences of a longer first run."
            )
        spread = float(values.std(ddof=1))
        inflation = 1.0 if clusters is None else _inflation(values, clusters)
    quantile = NormalDist().inv_cdf
    standardised = (quantile(1 - level / 2) + quantile(power)) * spread / difference
    return max(2, ceil(inflation * standardised**2 - 1e-9))


def _inflation(values: np.ndarray, clusters: Labels) -> float:
    """The design effect, at least 1; of the inner clusters where all records share the outer one."""
    labels = list(clusters)
    if labels and isinstance(labels[0], tuple) and len({outer for outer, _ in labels}) == 1:
        labels = [inner for _, inner in labels]
    effect = design_effect(values, labels)
    return max(1.0, effect) if effect == effect else 1.0
