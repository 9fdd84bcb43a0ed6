"""The level-evidence matrix: which kind of method speaks to which kind of claim, and what it said.

Removing a thing shows that it is needed, putting it back that it is enough; neither shows what it stands for. So every endpoint has
one place in the matrix, fixed here: restoring a state is evidence of *sufficiency*, though it is often quoted for necessity;
removing it, of *necessity*; reading it, of *representation*; cutting paths by layer, of the *algorithm*; how errors and doses
behave, of the *computation*; interventions on weights, of *storage*. A method that cannot speak to a level in principle is not the
same as one that was not run.

`levels` returns

    {"levels": [names],
     "readings": {reading: [{"method",
                             "cells": [{"level", "status", "symbol", "endpoints": [{"endpoint", "status", "evidence"}]}]}]}}

A status is that of the reading's rules, the worst of the cell's endpoints that were measured: PASS, PARTIAL, WEAK or FAIL; else
NOT_RUN, or NOT_APPLICABLE. Endpoints that no rule of the reading asks for have no status and are listed as MEASURED, which counts
as nothing.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from palimpsest.audit.artefacts.explanation_graph import style_of
from palimpsest.audit.artefacts.of_evidence import all_of
from palimpsest.audit.evidence import Evidence
from palimpsest.audit.report_data import ReadingReport

LEVELS = ("necessity", "sufficiency", "representational", "algorithmic", "computational", "storage")
# two halves of the endpoint "edge", told apart by what the edge is about
PATHS, KNOCKOUT = "edge:restored", "edge:attention"
# method to level to its endpoints; a level that is not named cannot be reached by the method
METHODS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "causal tracing": {"sufficiency": ("restoration", "restoration-state", "magnitude", "swap-survives")},
    "lesion": {
        "necessity": ("lesion-interchange", "lesion-mean", "lesion-resample", "minimality"),
        "computational": ("task-ratio", "double-dissociation"),
    },
    "removal from weights": {"necessity": ("lesion-weights",), "storage": ("lesion-weights",)},
    "rank-one edit": {
        "sufficiency": ("edit-advantage", "edit-success", "edit-free", "edit-robustness"),
        "computational": (
            "graded",
            "graded-fit",
            "graded-decline",
            "therapeutic-index",
            "selectivity-same-subject",
            "selectivity-near",
        ),
        "storage": ("rivals",),
    },
    "transplant": {"sufficiency": ("transplant",), "representational": ("transplant",)},
    "read-out of weights": {"representational": ("readout", "readout-rank"), "storage": ("readout",)},
    "restoring along edges": {"sufficiency": (PATHS,), "algorithmic": (PATHS,)},
    "knockout of attention": {"necessity": (KNOCKOUT,), "algorithmic": (KNOCKOUT,)},
    "storage tests": {"representational": ("sigma-subspace",), "storage": ("storage",)},
    "planted organisms": {"storage": ("sensitivity", "sensitivity-slope", "calibration")},
    "several methods": {"representational": ("convergence",)},
}
SYMBOLS = {
    "PASS": "✓",
    "PARTIAL": "◑",
    "WEAK": "≈",
    "FAIL": "✗",
    "NOT_APPLICABLE": "∅",
    "NOT_RUN": "—",
    "MEASURED": "·",
}
WORST_FIRST = ("FAIL", "WEAK", "PARTIAL", "PASS")
OF_STYLE = {"solid": "PASS", "double": "PASS", "dashed": "WEAK", "refuted": "FAIL"}


def levels(evidence: Sequence[Evidence], readings: Sequence[ReadingReport]) -> dict[str, Any]:
    """The matrix of every reading; see the module's text."""
    return {
        "levels": list(LEVELS),
        "readings": {reading.reading: _matrix(evidence, statuses(reading)) for reading in readings},
    }


def statuses(reading: ReadingReport) -> dict[str, str]:
    """Evidence id to the worst status that the reading's rules give it."""
    found: dict[str, str] = {}
    for criterion in reading.criteria.values():
        for one in criterion.endpoints:
            status = str(one.status)
            if one.evidence is not None and status in WORST_FIRST:
                found[one.evidence] = _worst([status, *([found[one.evidence]] if one.evidence in found else [])])
    return found


def _matrix(evidence: Sequence[Evidence], status_of: Mapping[str, str]) -> list[dict[str, Any]]:
    return [
        {"method": method, "cells": [_cell(evidence, status_of, level, of_level.get(level)) for level in LEVELS]}
        for method, of_level in METHODS.items()
    ]


def _cell(
    evidence: Sequence[Evidence], status_of: Mapping[str, str], level: str, endpoints: tuple[str, ...] | None
) -> dict[str, Any]:
    if endpoints is None:
        return {"level": level, "status": "NOT_APPLICABLE", "symbol": SYMBOLS["NOT_APPLICABLE"], "endpoints": []}
    listed = [
        {"endpoint": endpoint, "status": _status(one, status_of), "evidence": one.id}
        for named in endpoints
        for endpoint in [named.partition(":")[0]]
        for one in all_of(evidence, endpoint)
        if one.split != "discovery" and (endpoint == named or (named == KNOCKOUT) == ("(attention)" in one.about))
    ]
    known = [one["status"] for one in listed if one["status"] in WORST_FIRST]
    status = _worst(known) if known else "MEASURED" if listed else "NOT_RUN"
    return {"level": level, "status": status, "symbol": SYMBOLS[status], "endpoints": listed}


def _status(one: Evidence, status_of: Mapping[str, str]) -> str:
    """By the rules; an edge of the explanation graph by its style."""
    if one.endpoint == "edge":
        return OF_STYLE.get(style_of([one])[0], "MEASURED")
    return status_of.get(one.id, "MEASURED")


def _worst(found: Sequence[str]) -> str:
    return min(found, key=WORST_FIRST.index)
