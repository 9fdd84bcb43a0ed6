"""Artefacts: evidence gathered into the figures and tables of a page; nothing is measured here.

    artefacts(evidence, readings)["graph"]["queries"]["storage"]     # 'dashed'

Each module holds one artefact and documents the plain data it returns. What was not measured is there, empty, and says so: an
artefact is never left out because it would look bad.
"""

from collections.abc import Sequence
from typing import Any

from palimpsest.audit.artefacts.dissociation import dissociation
from palimpsest.audit.artefacts.dose_response import dose_response
from palimpsest.audit.artefacts.explanation_graph import graph
from palimpsest.audit.artefacts.level_evidence import levels
from palimpsest.audit.artefacts.mtmm import mtmm
from palimpsest.audit.artefacts.nomological import network
from palimpsest.audit.artefacts.storage import storage
from palimpsest.audit.evidence import Evidence
from palimpsest.audit.report_data import ReadingReport

__all__ = ["artefacts", "dissociation", "dose_response", "graph", "levels", "mtmm", "network", "storage"]


def artefacts(evidence: Sequence[Evidence], readings: Sequence[ReadingReport] = ()) -> dict[str, Any]:
    """Every artefact by name, as plain data.

    Args:
        evidence: all of an audit's.
        readings: what the rules said; the network and the level-evidence matrix show each reading apart.
    """
    return {
        "network": network(evidence, readings),
        "dissociation": dissociation(evidence),
        "dose": dose_response(evidence),
        "mtmm": mtmm(evidence),
        "levels": levels(evidence, readings),
        "graph": graph(evidence),
        "storage": storage(evidence),
    }
