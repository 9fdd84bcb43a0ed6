"""Storage or bottleneck: what `audit.experiments.storage` found, gathered for one panel.

`storage` returns {"why"} where nothing was measured, else

    {"estimate", "subspace": estimate or None, "data": the plain data of the endpoint `storage`, "evidence": [ids]}

`estimate` is log10 of the likelihood ratio storage : entity bottleneck; its ends are the range over leaving one test out.
"""

from collections.abc import Sequence
from typing import Any

from palimpsest.audit.artefacts.of_evidence import data_of, estimate_of, one_of
from palimpsest.audit.evidence import Evidence


def storage(evidence: Sequence[Evidence]) -> dict[str, Any]:
    """The likelihood ratio and the interval rule; see the module's text."""
    found, subspace = one_of(evidence, "storage"), one_of(evidence, "sigma-subspace")
    if found is None and subspace is None:
        return {
            "why": "Storage and bottleneck were not told apart: the experiment `storage` has not run or found nothing."
        }
    return {
        "estimate": estimate_of(found),
        "subspace": estimate_of(subspace),
        "data": data_of(found) if found is not None else data_of(subspace),
        "evidence": [one.id for one in (found, subspace) if one is not None],
    }
