"""Evidence of one endpoint, made by hand, and what the shipped rules say of it and the shipped claim."""

from palimpsest.audit.claim import Claim, Scope, read_claim
from palimpsest.audit.evidence import Control, Evidence
from palimpsest.audit.report_data import ReadingReport, Status
from palimpsest.audit.rules import Rules, read_rules
from palimpsest.audit.scoring import score
from palimpsest.statistics import Estimate

RULES = read_rules("mv27-formal")
CLAIM = read_claim("rome-2022")
READINGS = [reading.id for reading in CLAIM.readings]
TESTED = Scope(models=("world",), relations=12, templates=4, languages=("English",), n_facts=40)
BARS = {bar.endpoint: bar for parts in RULES.parts.values() for part in parts for bar in part.of}


def evidence(
    endpoint: str, low: float, high: float, *, about: str = "", controls: tuple[Control, ...] | None = None, **given
):
    """One record of an endpoint, with the controls that rules ask for."""
    if controls is None:
        controls = tuple(Control(kind, Estimate(0.0, -0.01, 0.01, 40, 10)) for kind in ("N1", "N6"))
    estimate = Estimate((low + high) / 2, low, high, given.pop("n", 40), 10)
    given = {"family": "causal", "mode": "interventional", **given}
    return Evidence(
        RULES.endpoints[endpoint].experiment, endpoint, (), estimate=estimate, controls=controls, about=about, **given
    )


def passing(endpoint: str, **given) -> Evidence:
    return evidence(endpoint, BARS[endpoint].bar, BARS[endpoint].bar + 1.0, **given)


def failing(endpoint: str, **given) -> Evidence:
    return evidence(endpoint, BARS[endpoint].fails - 2.0, BARS[endpoint].fails - 1.0, **given)


def scored(
    *records: Evidence, reading: str = "mediation", rules: Rules = RULES, claim: Claim = CLAIM, **given
) -> ReadingReport:
    gates = given.pop("gates", {"G4 split": ""})
    return score(claim, reading, records, rules, weights="w" * 64, gates=gates, tested=given.pop("tested", TESTED))


def status(criterion: str, *records: Evidence, **given) -> Status:
    return scored(*records, **given).criteria[criterion].status
