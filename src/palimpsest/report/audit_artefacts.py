"""Panels of the artefacts: MTMM, explanation graph, nomological network, level-evidence matrix.

Their plain data are what `palimpsest.audit.artefacts` made of the evidence; each module there says its shape. An artefact that was
not made is shown as not measured, with the reason it gives ("why").
"""

from collections.abc import Mapping, Sequence
from typing import Any

from palimpsest.report.audit_blocks import (
    Panel,
    cell,
    figure,
    grid,
    heading,
    matrix,
    record_words,
    sortable,
    words,
)
from palimpsest.report.audit_charts import bars
from palimpsest.report.audit_graph import Edge, graph
from palimpsest.report.audit_records import Plain, Records, estimate_of
from palimpsest.report.audit_view import STATUSES, why_not
from palimpsest.report.svg import number

STYLE_WORDS = {
    "solid": "solid: an intervention passed",
    "double": "double: two independent families did",
    "dashed": "dashed: observational, partial or undecided",
    "refuted": "crossed out: tested, and absent",
    "untested": "dotted: not tested",
}


def artefact(report: Plain, name: str) -> Plain:
    """An artefact's plain data; {} where the audit made none."""
    found = (report.get("artefacts") or {}).get(name)
    return found if isinstance(found, Mapping) else {}


def absence(report: Plain, name: str, *endpoints: str) -> str:
    """Why an artefact is not there: its own reason, else that of its endpoints."""
    return str(artefact(report, name).get("why") or why_not(report, name, *endpoints))


def mtmm(report: Plain, records: Records) -> Panel:
    """The multitrait-multimethod matrix in block form, below its diagonal."""
    found, blocks = artefact(report, "mtmm"), []
    variables = list(found.get("variables") or ())
    if variables:
        href = records.href(found.get("evidence"))
        names = [f"{one.get('trait')} · {one.get('method')}" for one in variables]
        rows = [
            (name, [_agreement(found["cells"][i][j], href) if j <= i else cell() for j in range(len(names))])
            for i, name in enumerate(names)
        ]
        blocks.append(
            matrix(
                "Traits by methods",
                [str(i + 1) for i in range(len(names))],
                [(f"{i + 1}  {name}", cells) for i, (name, cells) in enumerate(rows)],
            )
        )
        summary = found.get("summary") or {}
        kinds = (
            ("convergent", "same trait, other method"),
            ("method", "other trait, same method"),
            ("discriminant", "other, other"),
        )
        drawn = bars(
            "agreement by kind of pair",
            [{"name": said, **(summary.get(kind) or {})} for kind, said in kinds],
            axis="mean Spearman's rho",
        )
        blocks.append(
            figure(drawn, "Methods should agree about one trait more than one method agrees with itself about several.")
        )
        blocks.append(words(f"{_status_word(summary.get('status'))}: {summary.get('sentence', '')}", href))
    blocks += record_words(records, "convergence", "Agreement of families about the place")
    return Panel(
        "mtmm",
        "Traits by methods",
        "Spearman's rho between profiles over layers. On the diagonal, reliability. Hatched pairs agree by construction, because "
        "one method consumed what the other found, and do not count.",
        blocks,
        absence(report, "mtmm", "convergence"),
    )


def _agreement(one: Plain, href: str) -> dict[str, Any]:
    held = estimate_of(one.get("rho"))
    rho = number(one.get("rho")) if held is None else number(held.value)
    kind = str(one.get("kind", ""))
    says = f"{kind}{', circular: not counted' if one.get('circular') else ''}"
    if rho is None:
        return cell("—", title=f"{says}: not measured", kind="grey" if one.get("circular") else "")
    return cell(
        f"{rho:.2f}",
        href=href,
        share=None if one.get("circular") else rho,
        title=says,
        kind="grey" if one.get("circular") else "",
    )


def graph_panel(report: Plain, records: Records) -> Panel:
    """What feeds what, and how well each arrow stands."""
    found, blocks = artefact(report, "graph"), []
    if found.get("nodes"):
        text = {str(node["id"]): str(node.get("text") or node["id"]) for node in found["nodes"]}
        edges = [
            Edge(
                str(e["source"]),
                str(e["target"]),
                str(e.get("style", "untested")),
                _edge_words(e),
                _edge_href(e, records),
            )
            for e in found.get("edges") or ()
        ]
        drawn = graph(
            "explanation graph",
            text,
            edges,
        )
        blocks.append(figure(drawn, "; ".join(STYLE_WORDS.values()).capitalize() + "."))
        blocks += [words(str(sentence)) for sentence in found.get("sentences") or ()]
        blocks.append(
            grid(
                "Edges",
                ["from", "to", "drawn", "measured", "why"],
                [
                    [
                        text.get(str(e["source"]), e["source"]),
                        f"{text.get(str(e['target']), e['target'])}{f' ({label})' if (label := e.get('label')) else ''}",
                        e.get("style", ""),
                        sortable(e.get("estimate"), _edge_href(e, records)),
                        e.get("why", ""),
                    ]
                    for e in found.get("edges") or ()
                ],
            )
        )
    blocks += record_words(records, "false-edges", "Solid edges in the untrained model, sign turned")
    return Panel(
        "graph",
        "Explanation graph",
        "Does a chain of arrows that stand lead from the input to the answer? An untrained model must have none.",
        blocks,
        absence(report, "graph", "edge"),
    )


def _edge_words(edge: Plain) -> str:
    found = estimate_of(edge.get("estimate"))
    label = f" ({edge['label']})" if edge.get("label") else ""
    return f"{edge['source']} to {edge['target']}{label}: {edge.get('style')}, {found or 'not measured'}; {edge.get('why', '')}"


def _edge_href(edge: Plain, records: Records) -> str:
    return next((href for name in edge.get("evidence") or () if (href := records.href(name))), "")


def network(report: Plain, records: Records) -> Panel:
    """Predictions of every reading and what became of them, and the relations an account would link."""
    found = artefact(report, "network")
    blocks = [block for reading in found.get("readings") or () for block in _of_reading(reading, records)]
    if relations := list(found.get("relations") or ()):
        blocks += [heading("Relations between measurements, fact by fact"), _relations(relations, records)]
    return Panel(
        "network",
        "Nomological network",
        "What the claim says must be seen, fixed before anything was measured, and what was seen.",
        blocks,
        absence(report, "network"),
    )


def _of_reading(reading: Plain, records: Records) -> list[dict[str, Any]]:
    """The predictions of one reading, drawn and in a table."""
    blocks = [heading(str(reading.get("reading", "")))]
    counts = ", ".join(
        f"{reading.get(name, 0)} {name}" for name in ("predicted", "tested", "confirmed", "supported", "undecided")
    )
    blocks.append(
        words(f"{_status_word(reading.get('status'))}: {counts}, {reading.get('contradicted', 0)} contradicted.")
    )
    if reading.get("banner"):
        blocks.append(words(str(reading["banner"])))
    edges = list(reading.get("edges") or ())
    drawn = graph(
        f"predictions of {reading.get('reading')}",
        {_apart(n["id"], n.get("kind")): str(n.get("text") or n["id"]) for n in reading["nodes"]},
        [
            Edge(
                _apart(e["source"], "claim"),
                _apart(e["target"], "endpoint"),
                str(e.get("style", "untested")),
                f"{e.get('text')}: {e.get('outcome')}",
                _edge_href(e, records),
            )
            for e in edges
        ],
        row=58.0,
    )
    blocks.append(
        figure(
            drawn,
            "Solid: confirmed. Dashed: supported or undecided. Crossed out: contradicted. Dotted: not tested.",
        )
    )
    blocks.append(
        grid(
            f"Predictions of {reading.get('reading')}",
            ["prediction", "endpoint", "floor", "bar", "measured", "outcome", "rivals that deny it"],
            [
                [
                    e.get("text", ""),
                    e["target"],
                    e.get("floor", ""),
                    e.get("bar", ""),
                    sortable(e.get("estimate"), _edge_href(e, records)),
                    e.get("outcome", ""),
                    ", ".join(map(str, e.get("rivals") or ())),
                ]
                for e in edges
            ],
        )
    )
    return blocks


def _relations(relations: Sequence[Plain], records: Records) -> dict[str, Any]:
    """Correlations over facts that an account expects."""
    return grid(
        "Relations between measurements",
        ["between", "because", "expected", "Spearman's rho", "outcome"],
        [
            [
                " and ".join(map(str, one.get("between") or ())),
                one.get("text", ""),
                one.get("expected", ""),
                sortable(one.get("rho"), _edge_href(one, records)),
                f"{one.get('outcome', '')}{f': {why}' if (why := one.get('why')) else ''}",
            ]
            for one in relations
        ],
    )


def _apart(name: object, kind: object) -> str:
    """A node's id in the drawing: a reading and an endpoint may have one name, such as storage."""
    return f"{kind} {name}"


def levels(report: Plain, records: Records) -> Panel:
    """Which kind of method speaks to which kind of claim, and what it said."""
    found, blocks = artefact(report, "levels"), []
    names = [str(level) for level in found.get("levels") or ()]
    for reading, rows in (found.get("readings") or {}).items():
        blocks.append(heading(str(reading)))
        blocks.append(
            matrix(
                f"Levels of evidence for {reading}",
                names,
                [
                    (str(row.get("method", "")), [_level(one, records) for one in row.get("cells") or ()])
                    for row in rows
                ],
            )
        )
    if blocks:
        blocks.append(
            words(
                "✓ passes, ◑ partial, ≈ weak, ✗ fails, · measured but asked for by no rule, ∅ cannot speak to it, — not run."
            )
        )
    return Panel(
        "levels",
        "Levels and evidence",
        "Restoring a state shows that it is enough, removing it that it is needed, and neither what it stands for.",
        blocks,
        absence(report, "levels"),
    )


def _level(one: Plain, records: Records) -> dict[str, Any]:
    ends: Sequence[Plain] = list(one.get("endpoints") or ())
    says = ", ".join(f"{e.get('endpoint')} {str(e.get('status', '')).lower().replace('_', ' ')}" for e in ends)
    status = str(one.get("status", ""))
    held: list[Any] = []
    for e in ends:
        named = e.get("evidence") or []
        held += named if isinstance(named, list) else [named]
    href = next((href for name in held if (href := records.href(name))), "")
    kind = STATUSES[status][0] if status in ("PASS", "PARTIAL", "WEAK", "FAIL") else ""
    return cell(
        one.get("symbol", ""),
        href=href,
        kind=kind,
        title=f"{one.get('level')}: {says or status.lower().replace('_', ' ')}",
    )


def _status_word(status: object) -> str:
    return STATUSES.get(str(status), STATUSES["NOT_TESTED"])[3].capitalize()
