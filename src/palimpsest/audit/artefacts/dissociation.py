"""The dissociation matrix: what each intervention does to each task, and whether two of them come apart (Shallice 1988).

    specificity    D_ii / mean_j D_ij        double dissociation    (D_A|a - D_B|a) - (D_A|b - D_B|b)

One intervention that hurts one task and spares another may only show that the second is easier. Two interventions that each hurt
what the other spares cannot be explained so; the contrast asks for both at once, with both simple effects above 0.10 and both
spared ones shown to be negligible. There is no half of it.

Rows are interventions, columns what was asked. Rows have different units, named in each: a lesion is a share of the total effect,
an edit is read at dose 1 as p(new answer) where it was to move and as the share of right answers where it was not. A cell that
nobody measured says so.

`dissociation` returns

    {"rows": [{"id", "text", "unit"}], "columns": [{"id", "text"}],
     "cells": [[{"estimate": estimate or None, "before": number or None, "evidence": id or "", "why"}]],
     "specificity": [{"row", "value": number or None}],
     "double": {"estimate", "met": True, False or None, "evidence": id or "", "conditions": [{"text", "estimate", "holds"}],
                "sentence"}}

`before` is what an edit's cell was at dose 0. Beside the records named below it reads the cells {"row", "column", "estimate"} and
the conditions {"text", "estimate", "holds"} in the data of `double-dissociation`.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from palimpsest.audit.artefacts.dose_response import STRATA
from palimpsest.audit.artefacts.of_evidence import all_of, control_of, data_of, estimate_of, one_of, shown
from palimpsest.audit.evidence import Evidence
from palimpsest.statistics import Estimate

SHARE = "share of the total effect"
AT_ONE = "p(new answer), or share of right answers, at dose 1"
TARGET, WHOLE = "target", 1.0
ROWS = {
    "lesion": ("lesion at the place, by interchange", SHARE),
    "lesion-mean": ("lesion at the place, by the mean", SHARE),
    "elsewhere": ("the same lesion in the other layers", SHARE),
    "attention": ("attention from the last to the subject's token cut", SHARE),
    "edit": ("rank-one edit at the place", AT_ONE),
    "random": ("edit by a random value of equal norm", AT_ONE),
}
COLUMNS = {**STRATA, "agreement": "number agreement", "copying": "copying"}
BAND = ("value", "low", "high")
MUST_MOVE = (TARGET, "paraphrases", "entailed")


@dataclass(frozen=True)
class Cell:
    """One measured cell."""

    row: str
    column: str
    estimate: Mapping[str, Any] | None
    evidence: str
    before: float | None = None


def dissociation(evidence: Sequence[Evidence]) -> dict[str, Any]:
    """The matrix, how specific its rows are, and the contrast; see the module's text."""
    held = {(cell.row, cell.column): cell for cell in _cells(evidence)}
    rows = [*ROWS, *dict.fromkeys(row for row, _ in held if row not in ROWS)]
    columns = [*COLUMNS, *dict.fromkeys(column for _, column in held if column not in COLUMNS)]
    cells = [[_shown(held.get((row, column))) for column in columns] for row in rows]
    return {
        "rows": [
            {"id": row, "text": text, "unit": unit} for row in rows for text, unit in [ROWS.get(row, (row, SHARE))]
        ],
        "columns": [{"id": column, "text": COLUMNS.get(column, column)} for column in columns],
        "cells": cells,
        "specificity": [
            {"row": row, "value": specificity(dict(zip(columns, line, strict=True)))}
            for row, line in zip(rows, cells, strict=True)
        ],
        "double": _double(all_of(evidence, "double-dissociation")),
    }


def specificity(line: Mapping[str, Mapping[str, Any]]) -> float | None:
    """The target's change over the mean size of the others' in one row; None where either is missing or nothing else changed.

    What follows from the fact and its paraphrases are meant to change with it and are left out of the others.
    """
    changes = {name: change for name, cell in line.items() if (change := _change(cell)) is not None}
    own = changes.get(TARGET)
    others = [abs(change) for name, change in changes.items() if name not in MUST_MOVE]
    if own is None or not others or not sum(others):
        return None
    return own / (sum(others) / len(others))


def _change(cell: Mapping[str, Any]) -> float | None:
    """How far a cell moved: the effect itself, or for an edit the distance from dose 0."""
    estimate = cell["estimate"]
    if estimate is None or not isinstance(estimate["value"], int | float):
        return None
    return float(estimate["value"]) if cell["before"] is None else float(estimate["value"]) - cell["before"]


def _cells(evidence: Sequence[Evidence]) -> Iterator[Cell]:
    interchange, mean = one_of(evidence, "lesion-interchange"), one_of(evidence, "lesion-mean")
    for row, found in (("lesion", interchange), ("lesion-mean", mean)):
        if found is not None:
            yield Cell(row, TARGET, estimate_of(found), found.id)
    elsewhere = interchange or mean
    if elsewhere is not None and (null := control_of(elsewhere, "N1")) is not None:
        yield Cell("elsewhere", TARGET, shown(null), elsewhere.id)
    for one in all_of(evidence, "task-ratio"):
        control = data_of(one).get("control")
        if one.about and isinstance(control, Mapping):
            yield Cell("lesion", one.about, control, one.id)
    for one in all_of(evidence, "edge"):
        if "(attention)" in one.about:
            yield Cell("attention", TARGET, estimate_of(one), one.id)
    yield from _of_edit(one_of(evidence, "graded"))
    for double in all_of(evidence, "double-dissociation"):
        for cell in data_of(double).get("cells") or ():
            yield Cell(str(cell["row"]), str(cell["column"]), cell["estimate"], double.id)


def _of_edit(graded: Evidence | None) -> Iterator[Cell]:
    """Levels at dose 1, read off the curves."""
    held = data_of(graded)
    for row, name in (("edit", "curves"), ("random", "random")):
        curves = held.get(name) or {}
        doses = list(curves.get("doses") or ())
        if graded is None or WHOLE not in doses:
            continue
        at = doses.index(WHOLE)
        for stratum in STRATA:
            band = (curves.get(stratum) or {}).get("p" if stratum in MUST_MOVE else "right")
            if band and band["value"][at] is not None:
                value, low, high = (math.nan if band[end][at] is None else float(band[end][at]) for end in BAND)
                n, clusters = graded.estimate.n, graded.estimate.clusters
                estimate = Estimate(value, low, high, n=n, clusters=clusters, method="read at dose 1")
                yield Cell(row, stratum, shown(estimate), graded.id, band["value"][0])


def _shown(cell: Cell | None) -> dict[str, Any]:
    if cell is None or cell.estimate is None:
        return {
            "estimate": None,
            "before": None,
            "evidence": "" if cell is None else cell.evidence,
            "why": "not measured",
        }
    return {"estimate": dict(cell.estimate), "before": cell.before, "evidence": cell.evidence, "why": ""}


def _double(records: Sequence[Evidence]) -> dict[str, Any]:
    """The first record, which is that of the largest contrast; the others are named."""
    if not records:
        return {
            "estimate": None,
            "met": None,
            "evidence": "",
            "conditions": [],
            "sentence": "The double dissociation was not measured: it takes two interventions and two tasks.",
        }
    found, held = records[0], data_of(records[0])
    met = held["met"] if isinstance(held.get("met"), bool) else None
    verdict = {True: "is met", False: "is not met", None: "was measured without a verdict on its conditions"}[met]
    of = f" of facts and {found.about}" if found.about else ""
    rest = f" It is the largest of {len(records)} contrasts." if len(records) > 1 else ""
    return {
        "estimate": estimate_of(found),
        "met": met,
        "evidence": found.id,
        "conditions": [dict(one) for one in held.get("conditions") or ()],
        "sentence": f"The double dissociation{of} {verdict}: contrast {found.estimate}.{rest}",
    }
