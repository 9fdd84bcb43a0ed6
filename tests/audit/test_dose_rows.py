"""Doses: each endpoint's arithmetic, on rows made by hand."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from oracles.edit_rows import concluded, setting_of
from palimpsest.audit.experiments import dose
from palimpsest.audit.experiments.edit_reading import (
    TARGET,
)
from palimpsest.errors import SettingError


def doses_row(name: str, p: Sequence[float], **changed: Any) -> dict[str, Any]:
    """A fact whose new answer has these probabilities over all doses; strata lose nothing unless told."""
    log_odds = [math.log(one / (1 - one)) for one in p]
    n = len(dose.DOSES)

    def curve(moved: float, kept: Sequence[float] | None = None) -> dict[str, Any]:
        return {
            "n": 3,
            "log_odds": [0.0] * n,
            "p": [0.5] * n,
            "right": [1.0] * n,
            "moved": [moved * d for d in dose.DOSES],
            "kept": list(kept or [1.0] * n),
        }

    target = {**curve(4.0), "p": list(p), "log_odds": log_odds}
    strata = {TARGET: target, "same_subject": curve(1.0), "neighbours": curve(2.0), **changed.pop("strata", {})}
    flat = {"n": 1, **{what: [0.1] * len(dose.RANDOM_DOSES) for what in ("log_odds", "p", "right", "moved", "kept")}}
    random = dict.fromkeys(strata, flat)
    return {
        "id": name,
        "layer": 1,
        "norm": 1.0,
        "doses": list(dose.DOSES),
        "strata": strata,
        "random_doses": list(dose.RANDOM_DOSES),
        "random": random,
        **changed,
    }


def losing(from_dose: float) -> dict[str, Any]:
    """A stratum that keeps everything up to a dose, and loses 0.4 a unit of dose beyond it."""
    n = len(dose.DOSES)
    kept = [1 - min(1.0, max(0.0, 0.4 * (d - from_dose))) for d in dose.DOSES]
    return {"n": 3, "log_odds": [0.0] * n, "p": kept, "right": [1.0] * n, "moved": list(dose.DOSES), "kept": kept}


def hill(d: float, ed50: float = 0.5, slope: float = 4) -> float:
    return 0.001 + 0.95 * d**slope / (d**slope + ed50**slope)


def test_a_hill_curve_is_graded_fitted_and_does_not_decline() -> None:
    made = [doses_row(f"f{i}", [hill(d) for d in dose.DOSES]) for i in range(6)]
    found = concluded("dose", made, setting_of())
    assert found["graded"].estimate.value == pytest.approx(1)
    assert found["graded-fit"].estimate.value == 1
    assert found["graded-fit"].data["hill"][0]["ed50"] == pytest.approx(0.5, rel=1e-3)
    assert found["graded-fit"].data["bell"] == []
    assert found["graded-decline"].estimate.value == pytest.approx(0.05)
    assert "6 of 6" in found["graded-decline"].note  # the peak is the largest dose
    assert found["graded"].controls[0].estimate.value == 0


def test_a_rise_and_fall_declines_by_what_it_loses_at_twice_the_peak() -> None:
    bell = [0.9 - 0.8 * abs(d - 1) / 2 for d in dose.DOSES]  # 0.9 at 1, 0.5 at 2
    found = concluded("dose", [doses_row(f"f{i}", bell) for i in range(6)], setting_of())
    assert found["graded-decline"].estimate.value == pytest.approx(0.05 - 0.4)
    assert found["graded-decline"].note == ""
    smooth = [hill(d) * (1 - hill(d, 2.0)) for d in dose.DOSES]
    found = concluded("dose", [doses_row(f"f{i}", smooth) for i in range(6)], setting_of())
    assert found["graded-fit"].data["bell"] == [f"f{i}" for i in range(6)]
    assert found["graded-fit"].estimate.value == 1  # up to the peak it is a Hill curve
    assert found["graded-fit"].data["isotonic r2"][0] < 0.95
    assert found["graded"].estimate.value == pytest.approx(1)  # up to the peak it rises


def test_an_answer_that_only_falls_is_not_graded() -> None:
    falls = [0.5 - d / 10 for d in dose.DOSES]
    found = concluded("dose", [doses_row(f"f{i}", falls) for i in range(6)], setting_of())
    assert found["graded"].estimate.value == 0
    assert found["graded-fit"].estimate.value == 0
    assert found["graded-fit"].data["hill"][0] == {"id": "f0"}


def test_selectivity_is_a_ratio_of_sums_at_dose_1() -> None:
    made = [doses_row(f"f{i}", [hill(d) for d in dose.DOSES]) for i in range(6)]
    found = concluded("dose", made, setting_of())
    assert found["selectivity-same-subject"].estimate.value == pytest.approx(4)
    assert found["selectivity-near"].estimate.value == pytest.approx(2)
    assert found["selectivity-near"].controls[0].estimate.value == pytest.approx(1)
    assert found["selectivity-near"].data["by stratum"]["same_subject"]["value"] == pytest.approx(4)


def test_a_stratum_that_nothing_moves_is_infinitely_spared_and_one_that_is_lacking_is_said() -> None:
    still = {**losing(9), "moved": [0.0] * len(dose.DOSES)}
    made = [doses_row(f"f{i}", [hill(d) for d in dose.DOSES], strata={"neighbours": still}) for i in range(4)]
    found = concluded("dose", made, setting_of())["selectivity-near"]
    assert found.estimate.value == math.inf
    del made[0]["strata"]["same_subject"]
    assert "1 of 4" in concluded("dose", made, setting_of())["selectivity-same-subject"].note


def test_selectivity_needs_dose_1() -> None:
    row = {**doses_row("f0", [hill(d) for d in dose.DOSES]), "doses": [2 * d for d in dose.DOSES if d != 0.5] + [9.0]}
    with pytest.raises(SettingError, match="dose 1"):
        concluded("dose", [row], setting_of())


def test_the_therapeutic_index_is_toxic_over_effective_dose_of_the_worst_stratum() -> None:
    p = [min(0.95, 0.001 + d) for d in dose.DOSES]  # reaches one half at 0.499
    strata = {"same_subject": losing(0.5), "neighbours": losing(1.5)}  # lose a fifth at 1.0 and 2.0
    found = concluded("dose", [doses_row(f"f{i}", p, strata=strata) for i in range(6)], setting_of())[
        "therapeutic-index"
    ]
    assert found.estimate.value == pytest.approx(1.0 / 0.499, rel=1e-6)
    assert found.data["worst"] == "same_subject"
    assert found.data["index"]["neighbours"]["value"] == pytest.approx(2.0 / 0.499, rel=1e-6)
    assert found.data["ED50"]["value"] == pytest.approx(0.499)
    assert found.data["TD20"]["neighbours"]["value"] == pytest.approx(2.0)
    assert found.data["P(TI > 1)"]["same_subject"]["value"] == 1
    assert found.controls[0].estimate.value == 0


def test_doses_that_are_never_reached_are_censored_not_left_out() -> None:
    p = [min(0.95, 0.001 + d) for d in dose.DOSES]
    strata = {"same_subject": losing(9), "neighbours": losing(9)}
    never_harms = [doses_row(f"f{i}", p, strata=strata) for i in range(6)]
    found = concluded("dose", never_harms, setting_of())["therapeutic-index"]
    assert found.estimate.value == pytest.approx(3 / 0.499, rel=1e-6)  # at least
    assert found.data["TD20"]["neighbours"]["value"] == "inf" or math.isinf(found.data["TD20"]["neighbours"]["value"])
    assert "6 of 6 toxic doses above 3" in found.estimate.method
    never_works = [doses_row(f"f{i}", [0.01] * len(dose.DOSES), strata=strata) for i in range(4)]
    found = concluded(
        "dose", [*never_harms[:3], *[{**row, "id": f"f{4 + i}"} for i, row in enumerate(never_works)]], setting_of()
    )["therapeutic-index"]
    assert found.estimate.value == 0  # four of seven facts never reach half effect: the median does not either
    assert "4 of 7 facts never reach half effect" in found.note


def test_where_a_curve_reaches_a_level() -> None:
    assert dose.reached_at([0, 1, 2], [0.0, 0.4, 0.8], 0.6) == (1.5, True)
    assert dose.reached_at([0, 1, 2], [0.7, 0.4, 0.8], 0.6) == (0.0, True)
    assert dose.reached_at([0, 1, 2], [0.0, 0.4, 0.5], 0.6) == (math.inf, False)
    assert dose.decline([0, 1, 2], [0.0, 0.9, 0.4]) == pytest.approx((0.5, False))
    assert dose.decline([0, 1, 2], [0.0, 0.3, 0.4]) == (0.0, True)
    assert dose.middle(np.array([1.0, math.inf, 2.0])) == 2
    assert dose.middle(np.array([1.0, math.inf, 2.0, math.inf])) == 2
    assert dose.middle(np.array([1.0, math.inf, math.inf])) == math.inf
