"""The explanation graph: which parts feed which, and how well each arrow stands (a causal sufficiency graph).

    subject -> S-mlp -> S-state -> F-state -> output        W_S -> output (storage)

An arrow is drawn by what its evidence says, never by the story:

    solid      an intervention passed: its interval starts at 0.05 of the total effect, above its nulls, as `experiments.edges` says
    double     two independent families of evidence did
    dashed     observational, partial or undecided
    refuted    tested, and reliably below 0.05
    untested   nobody has looked

Two records of one family, or of which one consumed the other's output, are one. The *storage* edge asks for more than an effect:
the weights themselves were intervened on, and the instrument is known to see planted storage where it is (sensitivity, M4). An
untrained model has no facts and must have no solid edge; however many it has are printed beside the graph.

`graph` returns

    {"nodes": [{"id", "text"}],
     "edges": [{"source", "target", "label", "style", "estimate": estimate or None, "evidence": [ids], "why"}],
     "queries": {"solid_path": whether solid or double edges lead from input to output, "path": [node ids],
                 "storage": style of the storage edge, "storage_solid", "false_edges": count or None},
     "sentences": [...]}

It reads evidence of the endpoint "edge", whose `about` is "A->B" or "A->B (label)", the evidence named in `ALSO`, and
"false-edges", minus the number of edges that were solid in an untrained model.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from palimpsest.audit.artefacts.of_evidence import all_of, one_of, shown
from palimpsest.audit.evidence import Evidence
from palimpsest.audit.experiments.edges import SOLID
from palimpsest.statistics import Estimate

SENSITIVE = 0.70  # AUROC on planted places from which on an instrument counts as able to see storage
INPUT, OUTPUT, WEIGHTS = "subject", "output", "W_S"
NODES = {
    INPUT: "tokens of the subject",
    WEIGHTS: "weights at the place",
    "S-mlp": "MLP at the last subject token",
    "S-attn": "attention at the last subject token",
    "S-state": "state at the last subject token",
    "F-attn": "attention at the last token",
    "F-mlp": "MLP at the last token",
    "F-state": "state at the last token",
    OUTPUT: "the answer",
    "other answers": "answers to other relations of the subject",
}
# the edges of the account, shown as untested where nobody has looked: (source, target, label)
ACCOUNT = (
    (INPUT, "S-mlp", ""),
    (INPUT, "S-state", ""),
    ("S-mlp", "S-state", ""),
    ("S-state", "F-state", "attention"),
    ("F-state", OUTPUT, ""),
    ("S-mlp", OUTPUT, ""),
    (WEIGHTS, OUTPUT, "storage"),
    ("S-mlp", "other answers", "bottleneck"),
)
STORAGE = (WEIGHTS, OUTPUT)
# endpoints that are evidence of edges too; what a trace restores had been lost by noise on the subject, so it speaks to both
ALSO: Mapping[str, tuple[tuple[str, str], ...]] = {
    "restoration": ((INPUT, "S-mlp"), ("S-mlp", OUTPUT)),
    "restoration-state": ((INPUT, "S-state"), ("S-state", OUTPUT)),
    "lesion-interchange": (("S-mlp", OUTPUT),),
    "lesion-mean": (("S-mlp", OUTPUT),),
    "transplant-state": (("S-state", OUTPUT),),
    "lesion-weights": (STORAGE,),
    "test-sigma": (("S-mlp", "other answers"),),
}
_ABOUT = re.compile(r"^\s*(?P<source>.+?)\s*->\s*(?P<target>.+?)\s*(?:\((?P<label>[^()]*)\))?\s*$")


@dataclass(frozen=True)
class Found:
    """One edge: where from, where to, what it is called, and its records."""

    source: str
    target: str
    label: str
    records: tuple[Evidence, ...]


def graph(evidence: Sequence[Evidence]) -> dict[str, Any]:
    """Nodes, edges with their styles, and what the graph answers; see the module's text."""
    sensitivity = one_of(evidence, "sensitivity")
    edges = [_drawn(edge, sensitivity) for edge in edges_of(evidence)]
    names = list(dict.fromkeys(name for edge in edges for name in (edge["source"], edge["target"])))
    order = {name: place for place, name in enumerate(NODES)}
    path = solid_path(edges)
    storage = next(
        (edge["style"] for edge in edges if (edge["source"], edge["target"]) == STORAGE),
        "untested",
    )
    false = one_of(evidence, "false-edges")
    queries = {
        "solid_path": bool(path),
        "path": path,
        "storage": storage,
        "storage_solid": storage in ("solid", "double"),
        "false_edges": None if false is None or not false.estimate.is_known else round(-false.estimate.value),
    }
    return {
        "nodes": [
            {"id": name, "text": NODES.get(name, name)}
            for name in sorted(names, key=lambda name: order.get(name, len(order)))
        ],
        "edges": edges,
        "queries": queries,
        "sentences": _sentences(queries),
    }


def edges_of(evidence: Sequence[Evidence]) -> list[Found]:
    """The account's edges and those that were measured beside, each with all its records."""
    records: dict[tuple[str, str], list[Evidence]] = {(source, target): [] for source, target, _ in ACCOUNT}
    labels = {(source, target): label for source, target, label in ACCOUNT}
    for one in all_of(evidence, "edge"):
        if (match := _ABOUT.match(one.about)) is not None:
            ends = (match["source"], match["target"])
            records.setdefault(ends, []).append(one)
            labels[ends] = match["label"] or labels.get(ends, "")
    for endpoint, edges in ALSO.items():
        for ends in edges:
            records.setdefault(ends, []).extend(all_of(evidence, endpoint)[:1])
    return [Found(*ends, labels.get(ends, ""), tuple(held)) for ends, held in records.items()]


def style_of(records: Sequence[Evidence]) -> tuple[str, str]:
    """How an edge is drawn, and why, from its records.

    Records of the discovery facts count for nothing, for its edges were chosen there.
    """
    counted = [one for one in records if one.split != "discovery" and one.estimate.is_known]
    if not counted:
        return "untested", "not measured"
    passed = [one for one in counted if one.mode == "interventional" and stands(one)]
    if passed:
        families = independent_families(passed)
        if len(families) > 1:
            return "double", f"interventions of {len(families)} independent families pass: {', '.join(families)}"
        return "solid", "an intervention passes its bar and its nulls"
    interventions = [one for one in counted if one.mode == "interventional"]
    if interventions and all(one.estimate.high < SOLID for one in interventions):
        return "refuted", f"tested, and below {SOLID} of the total effect"
    if not interventions:
        return "dashed", "observational evidence only"
    return "dashed", "the effect or its distance from its nulls is not settled"


def stands(one: Evidence) -> bool:
    """Whether a record's interval starts where edges count, above all its nulls, none of which misbehaves.

    An edge of a state has no null in the other layers, for a state holds what came before it; its record says whether it stands.
    """
    nulls = [control for control in one.controls if control.provenance != "claim-author"]
    if "solid" in one.data:
        return bool(one.data["solid"]) and all(control.sane for control in nulls)
    apart = all(one.estimate.low > control.estimate.value for control in nulls if control.estimate.is_known)
    if one.contrast is not None and one.contrast.is_known:
        apart = one.contrast.low > 0
    return one.estimate.low >= SOLID and apart and all(control.sane for control in nulls)


def independent_families(records: Sequence[Evidence]) -> list[str]:
    """Families of the records, one record a family, none of which consumed another's output."""
    kept: list[Evidence] = []
    for one in records:
        linked = any(one.id in other.depends_on or other.id in one.depends_on for other in kept)
        if not linked and one.family not in [other.family for other in kept]:
            kept.append(one)
    return [one.family for one in kept]


def solid_path(edges: Sequence[dict[str, Any]]) -> list[str]:
    """The shortest way from input to output over solid and double edges; empty where there is none."""
    ways = [[INPUT]]
    seen = {INPUT}
    while ways:
        way = ways.pop(0)
        if way[-1] == OUTPUT:
            return way
        for edge in edges:
            if edge["source"] == way[-1] and edge["style"] in ("solid", "double") and edge["target"] not in seen:
                seen.add(edge["target"])
                ways.append([*way, edge["target"]])
    return []


def _drawn(edge: Found, sensitivity: Evidence | None) -> dict[str, Any]:
    style, why = style_of(edge.records)
    if (edge.source, edge.target) == STORAGE and style in ("solid", "double"):
        seen = None if sensitivity is None else sensitivity.estimate
        if seen is None or not seen.is_known or seen.low < SENSITIVE:
            style, why = "dashed", f"{why}, but the instrument is not known to see planted storage"
    shown_first = max(edge.records, key=lambda one: (one.endpoint == "edge", one.estimate.is_known), default=None)
    estimate: Estimate | None = None if shown_first is None else shown_first.estimate
    return {
        "source": edge.source,
        "target": edge.target,
        "label": edge.label,
        "style": style,
        "estimate": shown(estimate),
        "evidence": [one.id for one in edge.records],
        "why": why,
    }


def _sentences(queries: dict[str, Any]) -> list[str]:
    path = " to ".join(NODES.get(name, name) for name in queries["path"])
    false = queries["false_edges"]
    asks = " To be solid it takes an intervention on weights that passes, by an instrument known to see storage."
    return [
        f"Solid edges lead from input to output: {path}."
        if path
        else "No path of solid edges leads from input to output.",
        f"The storage edge is {queries['storage']}.{asks if queries['storage'] in ('dashed', 'untested') else ''}",
        "No untrained model was asked for edges."
        if false is None
        else f"In an untrained model {false} edge{'' if false == 1 else 's'} came out solid; none should.",
    ]
