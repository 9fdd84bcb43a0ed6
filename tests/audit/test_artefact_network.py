"""The nomological network: its counts, its rule of density, and what is read of predictions and evidence."""

import math

import numpy as np
import pytest
from artefact_cases import FACTS, prediction, reading, record

from palimpsest.audit.artefacts import network
from palimpsest.audit.artefacts.nomological import density


def test_network_counts_and_density():
    found = network(
        [record("endpoint-a", 0.3)],
        [
            reading(
                [
                    prediction("a", "confirmed", evidence=("test/endpoint-a",)),
                    prediction("b", "supported"),
                    prediction("c", "contradicted", ("bottleneck",)),
                    prediction("d", "contradicted", ("bottleneck", "distributed")),
                    prediction("e", "not tested"),
                ]
            )
        ],
    )["readings"][0]
    assert [found[name] for name in ("predicted", "tested", "confirmed", "contradicted", "untested")] == [5, 4, 1, 2, 1]
    assert found["share"]["value"] == 0.25
    assert found["status"] == "FAIL"
    assert found["banner"] == "The network supports a rival: bottleneck predicted 2 of 2 contradictions."
    assert [one["style"] for one in found["edges"]] == ["solid", "dashed", "refuted", "refuted", "untested"]
    assert found["edges"][0]["estimate"]["low"] == 0.3
    assert {node["id"] for node in found["nodes"]} >= {"mediates", "endpoint-a"}


@pytest.mark.parametrize(
    ("tested", "confirmed", "contradicted", "status"),
    [
        (0, 0, 0, "NOT_TESTED"),
        (8, 8, 0, "PASS"),
        (5, 5, 0, "PARTIAL"),
        (8, 5, 0, "PARTIAL"),
        (8, 7, 1, "WEAK"),
        (8, 0, 0, "WEAK"),
        (8, 6, 2, "FAIL"),
    ],
)
def test_density_rule(tested, confirmed, contradicted, status):
    assert density(tested, confirmed, contradicted)[1] == status


def test_relations_are_measured_fact_by_fact():
    rng = np.random.default_rng(0)
    share = rng.uniform(size=12)
    facts = dict(zip(FACTS, share, strict=True))
    profiles = {"last subject token": {"layers": [0, 2], "value": [0.1, 0.55], "low": [0, 0], "high": [1, 1]}}
    restored = record(
        "restoration",
        0.5,
        0.6,
        data={"facts": {name: [0.0, value] for name, value in facts.items()}, "profiles": profiles},
    )
    lost = record("lesion-interchange", 0.2, data={"facts": {name: value**2 for name, value in facts.items()}})
    doses = [{"id": name, "ED50": math.inf if value < 0.2 else 1 - value} for name, value in facts.items()]
    works = record("therapeutic-index", 1.0, data={"doses": doses})
    by = {tuple(one["between"]): one for one in network([restored, lost, works], [])["relations"]}
    assert by["restoration", "lesion-interchange"]["rho"]["value"] == 1.0
    assert by["restoration", "lesion-interchange"]["outcome"] == "confirmed"
    assert by["restoration", "therapeutic-index/ED50"]["rho"]["value"] < -0.9
    assert by["restoration", "therapeutic-index/ED50"]["outcome"] == "confirmed"
    missing = by["restoration", "edit-advantage"]
    assert (missing["outcome"], missing["rho"]) == ("not tested", None)
    assert "no values by fact of edit-advantage" in missing["why"]
    turned = record("lesion-interchange", 0.2, data={"facts": {name: -value for name, value in facts.items()}})
    assert network([restored, turned], [])["relations"][0]["outcome"] == "contradicted"
