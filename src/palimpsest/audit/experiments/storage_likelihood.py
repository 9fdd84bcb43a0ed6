"""How likely what the tests of `storage` found is under either account, from models in which the account is known.

    log10 LR = sum over tests of log10 p(x | storage) - log10 p(x | entity)

Each test's value was measured in organisms whose facts were planted in one MLP (storage), and in organisms where a new name of a
known entity was (entity), in the same layers, for some tests change with depth alone (`audit/data/storage.json`, made by
experiments/storage_calibration.py). A further model's value follows a Student t density about either mean. With few organisms these
are wide, and the ratio stays near 1: then the tests do not decide, and `told_apart` says so.
"""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from scipy import stats

from palimpsest.audit.evidence import Control
from palimpsest.statistics import Estimate

TESTS = ("sigma", "sigma-subspace", "turn", "rise")  # those whose likelihoods are multiplied
TELLS = 0.85  # AUROC of the tests on organisms below which they are no test


@cache
def calibration() -> Mapping[str, Any]:
    """The tests' values in organisms; empty where the file is not shipped."""
    path = files("palimpsest.audit").joinpath("data/storage.json")
    return json.loads(path.read_text("utf-8")) if path.is_file() else {}


def likelihood(tests: Mapping[str, Estimate], card: Mapping[str, Any]) -> dict[str, float]:
    """log10 likelihood ratio storage : entity of each test that was measured and calibrated.

        log10 t(x; mean of storage) - log10 t(x; mean of entity),    scale^2 = s^2 (1 + 1 / n) + (standard error of x)^2

    with s pooled over both kinds of organisms and n_1 + n_2 - 2 degrees of freedom: the predictive density of a further model.
    """
    found: dict[str, float] = {}
    for name in TESTS:
        sides = card.get("tests", {}).get(name)
        if name not in tests or not tests[name].is_known or sides is None:
            continue
        samples = [np.array(sides[side], dtype=np.float64) for side in ("storage", "entity")]
        free = sum(len(one) for one in samples) - 2
        if min(len(one) for one in samples) < 2:
            continue
        pooled = sum(((one - one.mean()) ** 2).sum() for one in samples) / free
        error = tests[name].width / (2 * stats.norm.ppf(0.975))
        store, entity = (
            stats.t.logpdf(tests[name].value, free, one.mean(), np.sqrt(pooled * (1 + 1 / len(one)) + error**2))
            for one in samples
        )
        found[name] = float((store - entity) / np.log(10))
    return found


def told_apart(card: Mapping[str, Any], tests: Sequence[str]) -> Control:
    """Null N8: how well the best of some tests tells organisms of both kinds apart."""
    best = max((card["auroc"].get(name) or 0.5 for name in tests), default=0.5)
    n = sum(len(of) for of in card["organisms"].values())
    area = Estimate.exact(best, n, 2, method="AUROC of the best of the tests", unit="AUROC")
    return Control("N8", area, f"organisms of both kinds told apart; {TELLS} or more is wanted", best >= TELLS)
