"""All panels of the audit's page, in their order."""

from palimpsest.report.audit_accounts import dissociation, storage
from palimpsest.report.audit_artefacts import graph_panel, levels, mtmm, network
from palimpsest.report.audit_blocks import Panel
from palimpsest.report.audit_dose import dose
from palimpsest.report.audit_measured import maps, planted, residual
from palimpsest.report.audit_records import Plain, Records

PANELS = (maps, dissociation, dose, mtmm, planted, storage, residual, graph_panel, network, levels)


def panels(report: Plain, records: Records) -> list[Panel]:
    """One panel for each part, whether it was measured or not."""
    return [make(report, records) for make in PANELS]
