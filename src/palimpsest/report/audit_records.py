"""Evidence on a page: every record gets an anchor, and every number that is shown elsewhere leads to it.

    records = Records(report["evidence"])
    records.anchor("lesion/lesion-mean")       # 'e-lesion-lesion-mean'
    records.of("lesion-mean")                  # the records of an endpoint

A record is what `Evidence.to_json` wrote. What is missing from one is shown as missing; nothing is filled in.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from palimpsest.audit.evidence import NULLS
from palimpsest.report.svg import number
from palimpsest.statistics import Estimate

Plain = Mapping[str, Any]


def slug(text: str) -> str:
    """Letters, digits and dashes only, for an anchor."""
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-").lower() or "record"


def estimate_of(record: object) -> Estimate | None:
    """The estimate that plain data holds; None where it holds none."""
    if isinstance(record, Mapping) and {"value", "low", "high", "n", "clusters"} <= set(record):
        known = {k: v for k, v in record.items() if k in Estimate.__dataclass_fields__}
        return Estimate.from_json(known)
    return None


def in_words(record: object) -> str:
    """An estimate with its n; a unit that is itself a difference, such as "0.1 - error", stands in brackets. "" for none.

    >>> in_words(Estimate(0.06, 0.01, 0.09, 88, 11, unit="0.1 - error").to_json())
    '0.060 [0.010, 0.090] (0.1 - error) (n=88, 11 clusters)'
    """
    found = estimate_of(record)
    if found is None or not found.unit[:1].isdigit():
        return "" if found is None else str(found)
    return str(found).replace(f" {found.unit}", f" ({found.unit})", 1)


def written(record: object) -> str:
    """An estimate without its n, such as '0.31 [0.26, 0.36] logits'; "" where there is none."""
    return in_words(record).rpartition(" (n=")[0]


def bare(record: object) -> str:
    """The value alone, with as many digits as its interval carries."""
    return written(record).partition(" ")[0]


def interval(record: object) -> str:
    """The interval in words, such as '0.26 to 0.36, 95 %'."""
    found = estimate_of(record)
    if found is None or not found.is_known:
        return "no interval"
    ends = re.search(r"\[([^,\]]+), ([^,\]]+)\]", str(found))
    return f"{ends[1]} to {ends[2]}, {found.level * 100:g} %" if ends else "no interval"


class Records:
    """The evidence of a report, with the anchor of each record."""

    def __init__(self, evidence: Iterable[Plain]) -> None:
        self.all: list[Plain] = list(evidence)
        self._names = _distinct(self.all)
        self._anchors: dict[str, str] = {}
        for record, name in zip(self.all, self._names, strict=True):
            self._anchors.setdefault(str(record.get("id", "")), name)

    def anchor(self, name: object) -> str:
        """The anchor of a record by its id, or "" where there is none of this id."""
        return self._anchors.get(str(name), "")

    def href(self, name: object) -> str:
        """A link to a record by its id or by its endpoint, or ""."""
        anchor = self.anchor(name)
        if not anchor and (found := self.of(str(name))):
            anchor = self.anchor(found[0].get("id"))
        return f"#{anchor}" if anchor else ""

    def about(self, name: object) -> str:
        """What a record is about, by its id; "" where it is about the whole."""
        return next((str(one.get("about") or "") for one in self.all if one.get("id") == name), "")

    def of(self, endpoint: str) -> list[Plain]:
        """Records of an endpoint, the one about the whole first."""
        found = [record for record in self.all if record.get("endpoint") == endpoint]
        return sorted(found, key=lambda record: bool(record.get("about")))

    def first(self, endpoint: str) -> Plain | None:
        """The record of an endpoint, or None."""
        return next(iter(self.of(endpoint)), None)

    def table(self) -> list[dict[str, Any]]:
        """One line a record, for the table at the end of the page."""
        return [_line(record, name) for record, name in zip(self.all, self._names, strict=True)]


def _distinct(records: Sequence[Plain]) -> list[str]:
    """Anchors in order; equal ones are numbered."""
    seen: dict[str, int] = {}
    names = []
    for record in records:
        name = f"e-{slug(str(record.get('id', '')))}"
        seen[name] = seen.get(name, 0) + 1
        names.append(name if seen[name] == 1 else f"{name}-{seen[name]}")
    return names


def _line(record: Plain, anchor: str) -> dict[str, Any]:
    found = estimate_of(record.get("estimate"))
    p = number(record.get("p"))
    return {
        "anchor": anchor,
        "id": record.get("id", ""),
        "criteria": ", ".join(record.get("criteria") or ()) or "none",
        "estimate": written(record.get("estimate")) or "unknown",
        "value": "" if found is None or number(found.value) is None else f"{found.value:.6g}",
        "n": "" if found is None else found.n,
        "clusters": "" if found is None else found.clusters,
        "method": "" if found is None else found.method,
        "controls": [control_line(one) for one in record.get("controls") or ()],
        "contrast": written(record.get("contrast")),
        "p": "" if p is None else f"{p:.4f}",
        "kind": " · ".join(str(record[k]) for k in ("family", "mode", "split", "level") if record.get(k)),
        "depends_on": [str(one) for one in record.get("depends_on") or ()],
        "note": record.get("note", ""),
    }


def control_line(control: Plain) -> dict[str, Any]:
    """A null in words."""
    kind = str(control.get("kind", ""))
    return {
        "kind": kind,
        "meaning": NULLS.get(kind, ""),
        "estimate": written(control.get("estimate")),
        "note": control.get("note", ""),
        "sane": control.get("sane", True),
        "provenance": control.get("provenance", "independent"),
    }


def highest_null(record: Plain) -> Estimate | None:
    """The null that lies highest: what an effect has to beat; a control of the claim's author does not count."""
    found = [
        estimate
        for control in record.get("controls") or ()
        if control.get("provenance", "independent") != "claim-author"
        and (estimate := estimate_of(control.get("estimate"))) is not None
        and number(estimate.value) is not None
    ]
    return max(found, key=lambda estimate: estimate.value, default=None)
