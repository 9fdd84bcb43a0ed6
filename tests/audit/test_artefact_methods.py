"""Several methods on several traits: what agrees where it should and what agrees everywhere."""

import numpy as np
from artefact_cases import record

from palimpsest.audit.artefacts import mtmm
from palimpsest.audit.evidence import Evidence


def _profiles(agree: bool) -> dict:
    """Two traits by three methods: profiles follow the trait, or the method."""
    rng = np.random.default_rng(0)
    base = {name: rng.normal(size=10) for name in ("facts", "syntax", "one", "two", "three")}
    return {
        trait: {
            method: list(base[trait if agree else method] + 0.05 * rng.normal(size=10))
            for method in ("one", "two", "three")
        }
        for trait in ("facts", "syntax")
    }


def convergence(profiles: dict, **more) -> Evidence:
    return record("convergence", 0.3, data={"mtmm": {"profiles": profiles, **more}})


def test_methods_that_agree_about_traits_pass_and_those_that_find_the_same_everywhere_fail():
    good = mtmm([convergence(_profiles(agree=True), reliability={"facts": {"one": 0.9}})])
    assert good["summary"]["status"] == "PASS"
    assert good["summary"]["convergent"]["value"] > 0.9
    assert good["variables"][0] == {"trait": "facts", "method": "one", "reliability": 0.9}
    assert good["cells"][0][0] == {"rho": 0.9, "kind": "reliability", "circular": False}
    kinds = [cell["kind"] for cell in good["cells"][0]]
    assert kinds == ["reliability", *["convergent"] * 2, "method", *["discriminant"] * 2]
    assert mtmm([convergence(_profiles(agree=False))])["summary"]["status"] == "FAIL"


def test_circular_pairs_are_grey_and_do_not_count():
    profiles = _profiles(agree=True)
    found = mtmm([convergence(profiles, circular=[["one", "two"]])])
    assert found["cells"][0][1]["circular"]
    assert not found["cells"][0][2]["circular"]
    assert found["summary"]["convergent"]["n"] == 4
    every = [["one", "two"], ["one", "three"], ["two", "three"]]
    assert mtmm([convergence(profiles, circular=every)])["summary"]["status"] == "NOT_TESTED"


def test_two_families_of_facts_may_agree():
    profiles = _profiles(agree=True)
    both = {"facts A": profiles["facts"], "facts B": profiles["facts"], "syntax": profiles["syntax"]}
    found = mtmm([convergence(both)])
    assert found["cells"][0][3]["kind"] == "related"
    assert found["summary"]["related"]["n"] == 9
    assert found["summary"]["method"]["n"] == 6
    assert found["summary"]["status"] == "PASS"


def test_profiles_with_holes():
    profiles = {"facts": {"one": [1, 2, 3, None], "two": [None, None, 1, 2]}, "syntax": {"one": [1, 1, 1, 1]}}
    found = mtmm([convergence(profiles)])
    assert [cell["rho"] for cell in found["cells"][0]] == [None, None, None]
    assert found["summary"]["status"] == "NOT_TESTED"
