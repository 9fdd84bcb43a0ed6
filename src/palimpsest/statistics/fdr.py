"""Many tests at once, when some false alarms may be lived with: Benjamini and Hochberg's adjustment.

    benjamini_hochberg([0.01, 0.04, 0.03])     # [0.03, 0.04, 0.04]

Keeping the tests with an adjusted p of at most q keeps the expected *share* of false ones among those kept at q or below. `holm`
promises more, that none is false, and keeps fewer. Verdicts use Holm; maps of many cells, which are looked at and not concluded
from, use this.
"""

from palimpsest.statistics.checks import Numbers, within_0_and_1


def benjamini_hochberg(p_values: Numbers) -> list[float]:
    """Adjusted p-values, in the order given.

    With p_(1) <= ... <= p_(m) in order of size,

        adjusted_(k) = min(1, min over j >= k of (m / j) p_(j)).

    It holds for tests that are independent or rise together (Benjamini and Yekutieli 2001).

    Args:
        p_values: (m,) one a test, each in [0, 1]; none gives none.

    Raises:
        InputError: a p-value is not a number from 0 to 1.

    Source: Benjamini and Hochberg 1995, *Journal of the Royal Statistical Society B* 57, 289-300.
    """
    if not len(p_values):
        return []
    p = within_0_and_1(p_values, "p_values", "give p-values, not test statistics")
    adjusted = [1.0] * p.size
    smallest = 1.0
    order = p.argsort(kind="stable")
    for rank in range(p.size, 0, -1):
        place = int(order[rank - 1])
        smallest = min(smallest, p.size / rank * float(p[place]))
        adjusted[place] = smallest
    return adjusted
