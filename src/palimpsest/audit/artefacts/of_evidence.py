"""How artefacts look evidence up, and the plain form of an estimate: what all of them share.

Only what counts is shown: where one endpoint has several records, those of the confirmation facts come before others, and the one
about everything before those about a part.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from palimpsest.audit.evidence import Evidence
from palimpsest.runs.json_text import plain
from palimpsest.statistics import Estimate

LAST_OF_ALL = 1e9
SPLIT_ORDER = {"confirmation": 0, "all": 1, "discovery": 2}


def all_of(evidence: Sequence[Evidence], endpoint: str) -> list[Evidence]:
    """Every record of an endpoint, the one to show first."""
    found = [one for one in evidence if one.endpoint == endpoint]
    return sorted(found, key=lambda one: (SPLIT_ORDER[one.split], bool(one.about)))


def one_of(evidence: Sequence[Evidence], endpoint: str, about: str | None = None) -> Evidence | None:
    """The record of an endpoint to show; None where there is none. With `about`, only one about that."""
    return next((one for one in all_of(evidence, endpoint) if about is None or one.about == about), None)


def data_of(found: Evidence | None) -> dict[str, Any]:
    """Its data as plain JSON; empty where there is no record."""
    return {} if found is None else dict(plain(found.data))


def shown(estimate: Estimate | None) -> dict[str, Any] | None:
    """Plain data of an estimate; None where it is not known."""
    return None if estimate is None or estimate.value != estimate.value else estimate.to_json()


def estimate_of(found: Evidence | None) -> dict[str, Any] | None:
    """Plain data of a record's estimate; None where there is no record."""
    return None if found is None else shown(found.estimate)


def control_of(found: Evidence | None, kind: str) -> Estimate | None:
    """The estimate of one of a record's nulls."""
    return None if found is None else next((one.estimate for one in found.controls if one.kind == kind), None)


def by_fact(found: Evidence | None, field: str = "facts") -> dict[str, float]:
    """Fact to value at the place.

    The data hold them under "facts", a number each or one a layer, or, under another name, in the rows {"id", ...} of "doses". A
    dose that was never reached ranks behind all others.
    """
    held = data_of(found)
    if field == "facts":
        pairs = list(given.items()) if isinstance(given := held.get("facts"), Mapping) else []
        at = _place_in_profile(found, held)
        pairs = [(name, value[at] if isinstance(value, list) and at is not None else value) for name, value in pairs]
    else:
        pairs = [(row["id"], row.get(field)) for row in held.get("doses") or () if isinstance(row, Mapping)]
    values = {str(name): LAST_OF_ALL if value in ("inf", float("inf")) else value for name, value in pairs}
    return {name: float(value) for name, value in values.items() if isinstance(value, int | float) and value == value}


def _place_in_profile(found: Evidence | None, held: Mapping[str, Any]) -> int | None:
    """Which entry of the profiles the estimate itself is: the layer of the place; None where no profile has it."""
    profiles = held.get("profiles") or {}
    for profile in profiles.values() if isinstance(profiles, Mapping) else ():
        values = profile.get("value") if isinstance(profile, Mapping) else None
        if found is not None and isinstance(values, list) and found.estimate.value in values:
            return values.index(found.estimate.value)
    return None
