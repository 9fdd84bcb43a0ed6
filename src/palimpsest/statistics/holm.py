"""Many tests at once: p-values that stay honest however many rows a table has.

    holm([0.01, 0.04, 0.03])     # [0.03, 0.06, 0.06]

Of twenty true null hypotheses one is "significant at 0.05" by chance. After Holm's adjustment the chance that *any* true null
hypothesis of the table gets an adjusted p of at most 0.05 is at most 0.05, whatever the tests have to do with each other.
"""

from palimpsest.statistics.checks import Numbers, within_0_and_1


def holm(p_values: Numbers) -> list[float]:
    """Adjusted p-values, in the order given.

    With p_(1) <= ... <= p_(m) in order of size,

        adjusted_(k) = min(1, max over j <= k of (m - j + 1) p_(j)).

    Args:
        p_values: (m,) one a test of the table, each in [0, 1]; none gives none.

    Raises:
        InputError: a p-value is not a number from 0 to 1.

    Source: Holm 1979, *Scandinavian Journal of Statistics* 6, 65-70.
    """
    if not len(p_values):
        return []
    p = within_0_and_1(p_values, "p_values", "give p-values, not test statistics")
    adjusted = [1.0] * p.size
    largest = 0.0
    for rank, place in enumerate(p.argsort(kind="stable")):
        largest = max(largest, (p.size - rank) * float(p[place]))
        adjusted[int(place)] = min(1.0, largest)
    return adjusted
