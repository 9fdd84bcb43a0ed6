"""Panels that weigh one account against another: the dissociation matrix, and storage against an entity bottleneck.

Their plain data are what `palimpsest.audit.artefacts.dissociation` and `.storage` made of the evidence.
"""

import math
from collections.abc import Mapping
from typing import Any

from palimpsest.report.audit_artefacts import absence, artefact
from palimpsest.report.audit_blocks import (
    Panel,
    estimate_cell,
    figure,
    grid,
    heading,
    largest_of,
    matrix,
    record_words,
    sortable,
    stack,
    words,
)
from palimpsest.report.audit_charts import Mark, bars, strip
from palimpsest.report.audit_records import Plain, Records, estimate_of
from palimpsest.report.svg import number

TESTS = {
    "sigma": "T1: other relations lost / the fact lost",
    "sigma-subspace": "T2: the same, by what the relation reads",
    "turn": "T3: keys turn with the order of words",
    "transplant": "T5: attributes move together",
    "tau": "T5: attributes move together",
    "rise": "T6: readable after the place, not before",
    "beta": "T7: bleed follows read-out overlap",
}
STORE, ENTITY = 0.3, 0.7  # of sigma_sub: below the one a store, above the other an entity code
READABLE = 0.1  # log-odds that a fact must lose itself to speak for an account, as in the experiment


def dissociation(report: Plain, records: Records) -> Panel:
    """What each intervention does to each task, and whether two of them come apart."""
    found, blocks = artefact(report, "dissociation"), []
    rows, columns, cells = (list(found.get(name) or ()) for name in ("rows", "columns", "cells"))
    measured = [line for line in cells if any(one.get("estimate") for one in line)]
    if measured:
        largest = largest_of(one.get("estimate") for line in cells for one in line)
        shown = [
            (
                str(row.get("text", "")) + (f" ({row['unit']})" if row.get("unit") else ""),
                [_cell(one, largest, records) for one in line],
            )
            for row, line in zip(rows, cells, strict=True)
        ]
        blocks.append(matrix("Interventions by tasks", [str(one.get("text", "")) for one in columns], shown))
        specific = [
            [
                str(rows[i].get("text", "")),
                "—" if (v := number(one.get("value"))) is None else f"{round(v, 2) + 0.0:.2f}",
            ]
            for i, one in enumerate(found.get("specificity") or ())
        ]
        blocks.append(
            grid(
                "Specificity by intervention",
                ["intervention", "change of the target over the mean change of the others"],
                specific,
            )
        )
    double = found.get("double") or {}
    if double.get("evidence") or blocks:
        blocks += [
            heading("Double dissociation"),
            words(str(double.get("sentence", "")), records.href(double.get("evidence"))),
        ]
        conditions = [
            [str(one.get("text", "")), sortable(one.get("estimate")), "yes" if one.get("holds") else "no"]
            for one in double.get("conditions") or ()
        ]
        if conditions:
            note = (records.first("double-dissociation") or {}).get("note", "")
            blocks.append(
                words(
                    f"D_A|b is the share of task b that is lost under A, DD how much more each loses under its own. {note}"
                )
            )
            blocks.append(grid("Conditions of the double dissociation", ["condition", "measured", "holds"], conditions))
    return Panel(
        "dissociation",
        "Dissociation matrix",
        "One intervention that hurts one task and spares another may only show that the second is easier; two that each hurt what "
        "the other spares cannot be explained so. The little interval in each cell is on one scale for all; — is not measured.",
        blocks,
        absence(report, "dissociation", "double-dissociation"),
    )


def _cell(one: Plain, largest: float, records: Records) -> dict[str, Any]:
    shown = estimate_cell(one.get("estimate"), largest, href=records.href(one.get("evidence")))
    before = number(one.get("before"))
    return shown if before is None else {**shown, "under": f"{shown['under']}; {before:.2f} before"}


def storage(report: Plain, records: Records) -> Panel:
    """The likelihood ratio test by test, the ratio of each fact, and the share of facts that speak for each account."""
    found, blocks = artefact(report, "storage"), []
    data: Mapping[str, Any] = found.get("data") or {}
    total, tests = estimate_of(found.get("estimate")), data.get("log10_likelihood_ratio") or {}
    if total is not None:
        href = records.href("storage")
        blocks.append(
            words(
                f"log10 of the likelihood ratio storage : entity bottleneck, with its range over leaving one test out: {total}. "
                f"{_weight(total.value)}",
                href,
            )
        )
    if tests:
        blocks += _tests(found.get("estimate"), data, tests)
    if estimate_of(found.get("subspace")) is not None:
        blocks.append(
            words(
                f"The interval rule, without organisms: {estimate_of(found['subspace'])}.",
                records.href("sigma-subspace"),
            )
        )
    sigmas, every = _by_fact(records)
    drawn = strip(
        "sigma of each fact",
        sigmas,
        (0.0, 1.5),
        (Mark(STORE, "store below"), Mark(ENTITY, "entity above")),
        "other relations lost over the fact lost, by what its relation reads; beyond 1.5 at the edge",
    )
    if drawn:
        blocks.append(
            figure(
                drawn,
                f"One dot a fact: {len(sigmas)} of {every} facts lose at least {READABLE} log-odds themselves.",
            )
        )
    accounts = {
        str(name): value for name, share in (data.get("accounts") or {}).items() if (value := number(share)) is not None
    }
    if sum(accounts.values()) > 0:
        blocks.append(stack("Share of facts that speak for each account", list(accounts.items())))
    blocks += record_words(records, "storage-or-entity", "Whether the instrument tells storage from entity processing")
    return Panel(
        "storage",
        "Storage, or an entity bottleneck?",
        "In a prompt whose subject comes first, the state at the subject's last token cannot depend on the relation. So storage "
        "there can only mean directions that one relation reads and others do not.",
        blocks,
        absence(report, "storage", "sigma-subspace"),
    )


def _tests(total: object, data: Plain, tests: Plain) -> list[dict[str, Any]]:
    """The likelihood ratio test by test, drawn and in a table."""
    rows = [
        {"name": f"{_test(name).partition(':')[0]} {name}" if name in TESTS else name, "value": value}
        for name, value in tests.items()
    ]
    rows.append({"name": "all together", **(total if isinstance(total, Mapping) else {})})
    drawn = bars(
        "log10 likelihood ratio by test",
        rows,
        include=(-1.0, 0.0, 1.0),
        axis="log10 likelihood ratio; right is storage",
    )
    drawn_tests = figure(
        drawn,
        "Each test by itself, and their product; left speaks for an entity bottleneck, right for storage.",
    )
    without, auroc, values = (data.get(name) or {} for name in ("without", "auroc_on_organisms", "tests"))
    table = grid(
        "Tests of storage",
        ["test", "measured", "log10 likelihood ratio", "all without it", "AUROC on organisms"],
        [
            [
                _test(name),
                sortable(values.get(name)),
                _number(value),
                _number(without.get(name)),
                sortable(auroc[name]) if estimate_of(auroc.get(name)) is not None else _number(auroc.get(name)),
            ]
            for name, value in tests.items()
        ],
    )
    return [drawn_tests, table]


def _by_fact(records: Records) -> tuple[list[float], int]:
    """sigma_sub of each fact that loses enough itself to be divided by, and of how many facts."""
    held = ((records.first("sigma-subspace") or {}).get("data") or {}).get("facts") or {}
    pairs = [
        (number(pair[0]), number(pair[1]))
        for pair in held.values()
        if isinstance(pair, list | tuple) and len(pair) == 2
    ]
    known = [(above, under) for above, under in pairs if above is not None and under is not None]
    return [above / under for above, under in known if under >= READABLE], len(known)


def _test(name: str) -> str:
    return TESTS.get(name, name)


def _weight(value: float) -> str:
    """What a ratio of this size says (10 and 3 are the bars of the rules)."""
    if math.isnan(value):
        return "It could not be computed."
    if abs(value) < math.log10(3):
        return "Between 1/3 and 3 the accounts cannot be told apart."
    return (
        f"It speaks for {'storage' if value > 0 else 'an entity bottleneck'}{', strongly' if abs(value) >= 1 else ''}."
    )


def _number(value: object) -> dict[str, Any] | str:
    found = number(value)
    return "" if found is None else {"text": f"{found:.2f}", "sort": found, "class": "n"}
