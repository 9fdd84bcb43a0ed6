"""Dose and response of an edit on one axis: where it works, where it harms, and the room between (Gaddum 1945; Rang and Dale).

What `audit.experiments.dose` measured, gathered for a figure: the target's curve and one for every stratum that must stay, the Hill
curve or bell of the mean, median effective and toxic doses, and the window between the dose at which the edit half-works and the
first dose at which a fifth of a stratum is lost. A window that ends before it starts is closed: whatever dose works, harms.

`dose_response` returns {"why"} where no dose was measured, else

    {"doses": [...], "curves": {stratum: {"text", "quantity", "value": [...], "low": [...], "high": [...]}},
     "random": {"doses": [...], "curves": {the same}},
     "hill": {"bottom", "top", "ed50", "slope", "r2", "curve": [...]} or None, "shape": "hill", "bell" or None, "isotonic_r2",
     "facts_fitted", "graded", "decline", "ed50": estimates,
     "td20", "index", "safety", "above_one": {stratum: estimate}, "worst": stratum or "",
     "window": {"from", "to", "open", "stratum", "sentence"} or None,
     "evidence": [ids]}

The target's curve is p(new answer), where it was read; every other stratum's is the share of its prompts that are right. Infinite
doses are written "inf": not reached by the largest.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from palimpsest.audit.artefacts.of_evidence import data_of, estimate_of, one_of
from palimpsest.audit.evidence import Evidence
from palimpsest.errors import InputError
from palimpsest.statistics import Estimate, HillFit, dose_fit, hill_fit, isotonic_fit

STRATA = {
    "target": "the fact that was edited",
    "paraphrases": "its paraphrases",
    "entailed": "what follows from it",
    "same_subject": "other facts of the subject",
    "neighbours": "the same relation of other subjects",
    "far": "unrelated facts",
}
MUST_MOVE = ("target", "paraphrases", "entailed")
QUANTITIES = {"p": "p(new answer)", "right": "share of prompts right", "log_odds": "log-odds"}


def dose_response(evidence: Sequence[Evidence]) -> dict[str, Any]:
    """Curves, fits, doses and window; see the module's text."""
    graded, index = one_of(evidence, "graded"), one_of(evidence, "therapeutic-index")
    fitted, decline = one_of(evidence, "graded-fit"), one_of(evidence, "graded-decline")
    held, indexed = data_of(graded), data_of(index)
    if not held.get("curves"):
        return {"why": "No dose was measured: the experiment `dose` has not run or found nothing."}
    doses, curves = _curves(held["curves"])
    random_doses, random = _curves(held.get("random") or {})
    return {
        "doses": doses,
        "curves": curves,
        "random": {"doses": random_doses, "curves": random},
        **_fits(doses, curves.get("target", {}).get("value", [])),
        "facts_fitted": estimate_of(fitted),
        "graded": estimate_of(graded),
        "decline": estimate_of(decline),
        "ed50": indexed.get("ED50"),
        "td20": indexed.get("TD20", {}),
        "index": indexed.get("index", {}),
        "safety": indexed.get("certain safety factor", {}),
        "above_one": indexed.get("P(TI > 1)", {}),
        "worst": indexed.get("worst", ""),
        "window": window(indexed.get("ED50"), indexed.get("TD20", {})),
        "evidence": [one.id for one in (graded, fitted, decline, index) if one is not None],
    }


def window(effective: Mapping[str, Any] | None, toxic: Mapping[str, Mapping[str, Any]]) -> dict[str, Any] | None:
    """From the median effective dose to the least median toxic one.

    Args:
        effective: `Estimate.to_json` of ED50, or None.
        toxic: stratum to that of its TD20.

    Returns:
        None where either was not measured.
    """
    if effective is None or not toxic:
        return None
    start = Estimate.from_json(effective).value
    ends = {stratum: Estimate.from_json(found).value for stratum, found in toxic.items()}
    stratum = min(ends, key=lambda name: ends[name])
    end = ends[stratum]
    harmed = STRATA.get(stratum, stratum)
    if math.isinf(start):
        sentence = "No window: at no dose does the edit half-work for half of the facts."
    elif start < end:
        until = "no stratum is harmed by the largest dose" if math.isinf(end) else f"dose {end:.3g} harms {harmed}"
        sentence = f"From dose {start:.3g} the edit half-works; {until}."
    else:
        sentence = f"No window: the edit half-works at dose {start:.3g}, and {harmed} are harmed from {end:.3g} on."
    return {
        "from": start if math.isfinite(start) else "inf",
        "to": end if math.isfinite(end) else "inf",
        "open": math.isfinite(start) and start < end,
        "stratum": stratum,
        "sentence": sentence,
    }


def _curves(held: Mapping[str, Any]) -> tuple[list[float], dict[str, dict[str, Any]]]:
    """Of each stratum the quantity to draw: what was to move by its probability, what was to stay by its right answers."""
    found: dict[str, dict[str, Any]] = {}
    for stratum, by_quantity in held.items():
        if stratum == "doses" or not isinstance(by_quantity, Mapping):
            continue
        wanted = ("p", "log_odds", "right") if stratum in MUST_MOVE else ("right", "p", "log_odds")
        quantity = next((name for name in wanted if name in by_quantity), None)
        if quantity is not None:
            found[stratum] = {
                "text": STRATA.get(stratum, stratum),
                "quantity": QUANTITIES[quantity],
                **by_quantity[quantity],
            }
    return list(held.get("doses", [])), found


def _fits(doses: Sequence[float], values: Sequence[float | None]) -> dict[str, Any]:
    """Hill's curve of the mean target, which of Hill and bell is nearer, and the steps that assume neither."""
    known = [(dose, value) for dose, value in zip(doses, values, strict=False) if value is not None]
    x, y = [dose for dose, _ in known], [value for _, value in known]
    try:
        hill = hill_fit(x, y)
        shape = "hill" if isinstance(dose_fit(x, y), HillFit) else "bell"
    except InputError:  # too few doses for a curve
        return {"hill": None, "shape": None, "isotonic_r2": None}
    if math.isnan(hill.r2):
        return {"hill": None, "shape": None, "isotonic_r2": None}
    numbers = {name: float(getattr(hill, name)) for name in ("bottom", "top", "ed50", "slope", "r2")}
    return {
        "hill": {**numbers, "curve": [float(value) for value in hill.at(list(doses))]},
        "shape": shape,
        "isotonic_r2": float(isotonic_fit(x, y).r2),
    }
