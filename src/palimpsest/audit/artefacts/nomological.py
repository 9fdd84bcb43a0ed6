"""The nomological network: what the claim says must be seen, and what was seen (Cronbach and Meehl 1955).

    claim --predicts--> endpoint        endpoint --should rise with--> endpoint

A claim with no prediction that could fail says nothing. The network counts, for every reading, its frozen predictions: predicted
k, tested t, confirmed c, contradicted x, with Wilson's interval of c / t, for predictions are few and of different kinds. PASS asks
six tests, a share whose interval starts at a half, and no contradiction; two contradictions let a rival speak: the one that
predicted most of them. Beside the claim's own predictions stand relations between measurements that a true account would link,
fact by fact, such as tracing and editing (Hase et al. 2023 found none).

`network` returns

    {"readings": [{
        "reading", "text",
        "nodes": [{"id", "text", "kind": "claim" or "endpoint"}],
        "edges": [{"source", "target", "prediction", "text", "criterion", "floor", "bar", "outcome", "style", "estimate",
                   "evidence": [ids], "rivals": [names]}],
        "predicted", "tested", "confirmed", "supported", "undecided", "contradicted", "untested",
        "share": estimate or None, "status", "banner", "absorbed": {rival: contradictions it predicted}}],
     "relations": [{"between": [endpoint, endpoint], "text", "expected": "+", "-" or "0", "rho": estimate or None, "outcome",
                    "evidence": [ids], "why"}]}

An outcome is "confirmed" (passed), "supported" (above the floor), "undecided", "contradicted" or "not tested"; a style is one of
the explanation graph's.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from palimpsest.audit.artefacts.of_evidence import by_fact, estimate_of, one_of, shown
from palimpsest.audit.evidence import Evidence
from palimpsest.audit.report_data import PredictionResult, ReadingReport
from palimpsest.statistics import Estimate, of_records, proportion, spearman

STYLES = {"confirmed": "solid", "supported": "dashed", "undecided": "dashed", "contradicted": "refuted"}
ENOUGH_TESTS, HALF, RIVAL_SPEAKS = 6, 0.5, 2
NEGLIGIBLE = 0.3  # a correlation whose interval lies within this of 0 counts as none
FEWEST_FACTS = 8
ED50 = "therapeutic-index/ED50"  # of each fact, in the data of that endpoint
# two endpoints, the sign an account of storage expects, and why
RELATIONS = (
    ("restoration", "lesion-interchange", "+", "what restores a fact is what its removal takes away"),
    ("restoration", "edit-advantage", "+", "where tracing points, editing works (Hase et al. 2023 found no relation)"),
    ("restoration", ED50, "-", "the more of a fact is restored, the less of an edit changes it"),
    ("readout", "restoration", "+", "where the answer is readable in the weights, restoring the place restores it"),
    ("readout", ED50, "-", "where the answer is readable in the weights, less of an edit changes it"),
    ("lesion-mean", "lesion-weights", "+", "removing the output and removing the key's slot hurt the same facts"),
)


def network(evidence: Sequence[Evidence], readings: Sequence[ReadingReport]) -> dict[str, Any]:
    """Predictions and relations with what became of them; see the module's text."""
    return {
        "readings": [_of_reading(evidence, reading) for reading in readings],
        "relations": [_relation(evidence, *relation) for relation in RELATIONS],
    }


def density(tested: int, confirmed: int, contradicted: int) -> tuple[Estimate | None, str]:
    """The share of tested predictions that were confirmed, and the status of the network.

    PASS: at least six tested, the share's interval starts at a half or more, none contradicted. FAIL: two or more contradicted.
    PARTIAL: none contradicted and some confirmed. WEAK: else, where anything was tested.
    """
    if not tested:
        return None, "NOT_TESTED"
    share = proportion(confirmed, tested)
    if contradicted >= RIVAL_SPEAKS:
        return share, "FAIL"
    if contradicted or not confirmed:
        return share, "WEAK"
    return share, "PASS" if tested >= ENOUGH_TESTS and share.low >= HALF else "PARTIAL"


def _of_reading(evidence: Sequence[Evidence], reading: ReadingReport) -> dict[str, Any]:
    predictions = reading.predictions
    outcomes = Counter(one.outcome for one in predictions)
    tested = len(predictions) - outcomes["not tested"]
    share, status = density(tested, outcomes["confirmed"], outcomes["contradicted"])
    absorbed = Counter(rival for one in predictions if one.outcome == "contradicted" for rival in one.rivals)
    endpoints = list(dict.fromkeys(one.endpoint for one in predictions))
    return {
        "reading": reading.reading,
        "text": reading.text,
        "nodes": [
            {"id": reading.reading, "text": reading.reading, "kind": "claim"},
            *({"id": name, "text": name, "kind": "endpoint"} for name in endpoints),
        ],
        "edges": [_edge(evidence, reading.reading, one) for one in predictions],
        "predicted": len(predictions),
        "tested": tested,
        "confirmed": outcomes["confirmed"],
        "supported": outcomes["supported"],
        "undecided": outcomes["undecided"],
        "contradicted": outcomes["contradicted"],
        "untested": outcomes["not tested"],
        "share": shown(share),
        "status": status,
        "banner": _banner(outcomes["contradicted"], absorbed),
        "absorbed": dict(absorbed),
    }


def _edge(evidence: Sequence[Evidence], reading: str, one: PredictionResult) -> dict[str, Any]:
    held = {record.id: record for record in evidence}
    found = next((held[name] for name in one.evidence if name in held), None)
    return {
        "source": reading,
        "target": one.endpoint,
        "prediction": one.id,
        "text": one.text,
        "criterion": one.criterion,
        "floor": one.floor,
        "bar": one.bar,
        "outcome": one.outcome,
        "style": STYLES.get(one.outcome, "untested"),
        "estimate": estimate_of(found),
        "evidence": list(one.evidence),
        "rivals": list(one.rivals),
    }


def _banner(contradicted: int, absorbed: Counter[str]) -> str:
    if contradicted < RIVAL_SPEAKS:
        return ""
    if not absorbed:
        return f"{contradicted} predictions are contradicted, and no rival predicted that."
    rival, count = absorbed.most_common(1)[0]
    return f"The network supports a rival: {rival} predicted {count} of {contradicted} contradictions."


def _relation(evidence: Sequence[Evidence], first: str, second: str, expected: str, text: str) -> dict[str, Any]:
    """Spearman over the facts that both endpoints measured."""
    named = [name.partition("/") for name in (first, second)]
    records = [one_of(evidence, endpoint) for endpoint, _, _ in named]
    values = [by_fact(record, field or "facts") for record, (_, _, field) in zip(records, named, strict=True)]
    common = sorted(set(values[0]) & set(values[1]))
    found = {
        "between": [first, second],
        "text": text,
        "expected": expected,
        "rho": None,
        "outcome": "not tested",
        "evidence": [record.id for record in records if record is not None],
        "why": "",
    }
    if len(common) < FEWEST_FACTS:
        missing = [name for name, held in zip((first, second), values, strict=True) if not held]
        why = f"no values by fact of {' and '.join(missing)}" if missing else f"only {len(common)} facts have both"
        return {**found, "why": f"{why}; {FEWEST_FACTS} are needed"}
    pairs = np.array([[values[0][name], values[1][name]] for name in common])

    estimate = of_records(
        lambda drawn: spearman(*pairs[drawn].T), len(pairs), None, name="rho", resamples=1000, unit="Spearman's rho"
    )
    return {**found, "rho": shown(estimate), "outcome": _outcome(estimate, expected)}


def _outcome(rho: Estimate, expected: str) -> str:
    """Confirmed where the interval has the expected sign; contradicted where it excludes all but the negligible of it."""
    if not rho.is_known:
        return "undecided"
    if expected == "0":
        none = rho.low > -NEGLIGIBLE and rho.high < NEGLIGIBLE
        return "confirmed" if none else "contradicted" if rho.excludes(0) else "undecided"
    low, high = (rho.low, rho.high) if expected == "+" else (-rho.high, -rho.low)
    if low > 0:
        return "confirmed"
    return "contradicted" if high < NEGLIGIBLE else "undecided"
