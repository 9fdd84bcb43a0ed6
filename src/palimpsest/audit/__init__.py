"""Audits: what may be claimed of a model, criterion by criterion, with the experiment behind each.

    report = audit(model, claim="rome-2022", size="standard", out="audit/")
    print(report.summary())

A claim is a file with frozen predictions (`claim`), rules are data (`rules`), experiments measure endpoints with their nulls
(`experiment`, `experiments/`), and verdicts are a pure function of evidence and rules (`scoring`).
"""

from palimpsest.audit.audit import audit, plan_audit

__all__ = ["audit", "plan_audit"]
