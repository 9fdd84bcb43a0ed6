"""The multitrait-multimethod matrix: do methods agree about one trait more than one method agrees with itself about several?

    convergent MH    same trait, other method       facts by tracing against facts by lesion
    method     HM    other trait, same method       facts by tracing against syntax by tracing
    discriminant HH  other trait, other method
    related          two families of facts, by any method: a claim about facts expects them to agree, so they count as neither

Each trait (facts of two families, syntax, copying) is measured by each method as a profile over layers, and every two profiles are
compared by Spearman's rho. A method that finds the same layers whatever is asked has a high HM: it "finds important layers", not
the place of facts. Campbell and Fiske 1959 ask that MH exceed nothing, HM and HH, in this order of difficulty. Pairs in which one
method consumed the other's output agree by construction; they are shown grey and not counted.

`mtmm` returns {"why"} where no profiles were measured, else

    {"variables": [{"trait", "method", "reliability": number or None}],
     "cells": [[{"rho": number or None, "kind": "reliability", "convergent", "method", "discriminant" or "related", "circular"}]],
     "summary": {"convergent", "method", "discriminant", "related": estimate or None, "status", "sentence"},
     "evidence": id}

The means over pairs have intervals that draw pairs of methods (convergent, discriminant) or methods (method). PASS: the interval of
MH lies above that of HM and starts at 0.5 or more. PARTIAL: above it, and above 0. FAIL: below it. WEAK: they overlap. Layers are
no sample, so these intervals say how far the methods differ, not what other facts would show.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from palimpsest.audit.artefacts.of_evidence import data_of, one_of, shown
from palimpsest.audit.evidence import Evidence
from palimpsest.statistics import Estimate, cluster_bootstrap, spearman

KINDS = ("convergent", "method", "discriminant", "related")
OF_FACTS = "facts"  # how the names of traits begin that are families of facts
STRONG = 0.5


def mtmm(evidence: Sequence[Evidence]) -> dict[str, Any]:
    """The matrix and what it says; see the module's text."""
    found = one_of(evidence, "convergence")
    held = data_of(found).get("mtmm") or {}
    profiles: Mapping[str, Mapping[str, Sequence[Any]]] = held.get("profiles") or {}
    traits = [name for name in held.get("traits") or list(profiles) if name in profiles]
    methods = list(held.get("methods") or dict.fromkeys(method for trait in traits for method in profiles[trait]))
    variables = [(trait, method) for trait in traits for method in methods if method in profiles[trait]]
    if found is None or len(variables) < 2:
        return {
            "why": "No profiles of several traits by several methods were measured: the experiment `convergence` has none."
        }
    reliability = held.get("reliability") or {}
    circular = {frozenset(pair) for pair in held.get("circular") or ()}
    kept = {one: (reliability.get(one[0]) or {}).get(one[1]) for one in variables}
    cells = [[_cell(a, b, profiles, kept, circular) for b in variables] for a in variables]
    return {
        "variables": [
            {"trait": trait, "method": method, "reliability": kept[trait, method]} for trait, method in variables
        ],
        "cells": cells,
        "summary": _summary(variables, cells),
        "evidence": found.id,
    }


def kind_of(a: tuple[str, str], b: tuple[str, str]) -> str:
    """What the agreement of two variables (trait, method) is evidence of."""
    if a == b:
        return "reliability"
    if a[0] == b[0]:
        return "convergent"
    if a[0].startswith(OF_FACTS) and b[0].startswith(OF_FACTS):
        return "related"
    return "method" if a[1] == b[1] else "discriminant"


def _cell(
    a: tuple[str, str],
    b: tuple[str, str],
    profiles: Mapping[str, Mapping[str, Sequence[Any]]],
    reliability: Mapping[tuple[str, str], Any],
    circular: set[frozenset[str]],
) -> dict[str, Any]:
    rho = reliability[a] if a == b else agreement(profiles[a[0]][a[1]], profiles[b[0]][b[1]])
    return {"rho": rho, "kind": kind_of(a, b), "circular": a != b and frozenset((a[1], b[1])) in circular}


def agreement(one: Sequence[Any], other: Sequence[Any]) -> float | None:
    """Spearman's rho over the layers that both have; None below three of them, or where either does not vary."""
    both = [(x, y) for x, y in zip(one, other, strict=False) if x is not None and y is not None]
    if len(both) < 3:
        return None
    rho = spearman([x for x, _ in both], [y for _, y in both])
    return None if rho != rho else rho


def _summary(variables: Sequence[tuple[str, str]], cells: Sequence[Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    counted: dict[str, list[tuple[float, str]]] = {kind: [] for kind in KINDS}
    for i, a in enumerate(variables):
        for j in range(i):
            cell = cells[i][j]
            if cell["rho"] is not None and not cell["circular"]:
                counted[cell["kind"]].append((cell["rho"], " and ".join(sorted({a[1], variables[j][1]}))))
    means = {
        kind: cluster_bootstrap([rho for rho, _ in pairs], [methods for _, methods in pairs], unit="Spearman's rho")
        if pairs
        else None
        for kind, pairs in counted.items()
    }
    status, sentence = _verdict(means["convergent"], means["method"])
    return {**{kind: shown(mean) for kind, mean in means.items()}, "status": status, "sentence": sentence}


def _verdict(convergent: Estimate | None, method: Estimate | None) -> tuple[str, str]:
    if convergent is None or method is None or not (convergent.is_known and method.is_known):
        return "NOT_TESTED", "Two methods on two traits, none of whose outputs the other consumed, were not measured."
    says = f"methods agree about one trait at {convergent.value:.2f}, one method across traits at {method.value:.2f}"
    if convergent.high < method.low:
        return "FAIL", f"Methods find the same layers whatever is asked: {says}."
    if convergent.low <= method.high:
        return "WEAK", f"Agreement about a trait cannot be told from what methods bring along: {says}."
    if convergent.low >= STRONG:
        return "PASS", f"Methods agree about the trait beyond what they bring along: {says}."
    status = "PARTIAL" if convergent.low > 0 else "WEAK"
    return status, f"Methods agree about the trait more than across traits, but not strongly: {says}."
