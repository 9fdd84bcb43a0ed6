"""Editing at every layer: each endpoint's arithmetic, on rows made by hand."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from oracles.edit_rows import concluded, setting_of
from palimpsest.audit.experiments import edit_layers


def layers_row(name: str, p_new: Sequence[float], **changed: Any) -> dict[str, Any]:
    n = len(p_new)
    return {
        "id": name,
        "layers": list(range(n)),
        "before": [0.0, 0.9],
        "p_new": list(p_new),
        "p_old": [1 - p for p in p_new],
        "random_new": [0.0] * n,
        "random_old": [0.9] * n,
        "norm": [1.0] * n,
        "lesions": None,
        **changed,
    }


def test_edit_advantage_is_success_at_the_place_less_the_median_elsewhere() -> None:
    made = [layers_row(name, (0.1, 0.9, 0.2, 0.3)) for name in ("f0", "f2", "f4")]
    made += [layers_row("f6", (0.9, 0.9, 0.9, 0.3))]
    found = concluded("edit-layers", made, setting_of())
    advantage = found["edit-advantage"]
    assert advantage.estimate.value == pytest.approx((1 + 1 + 1 + 0) / 4)
    assert [control.kind for control in advantage.controls] == ["N1", "N3"]
    assert advantage.controls[0].estimate.value == pytest.approx(0.25)
    assert advantage.controls[1].estimate.value == 0
    assert advantage.p == pytest.approx(
        2 / 16
    )  # three clusters of four differ: two of the sixteen sign patterns reach the sum
    medians = np.array([0.2, 0.2, 0.2, 0.9]) * 2 - 1
    assert found["edit-advantage-probability"].estimate.value == pytest.approx(np.mean(0.8 - medians))
    by_fact = dict(zip(("f0", "f2", "f4", "f6"), 0.8 - medians, strict=True))  # what is ranked against tracing
    assert advantage.data["facts"] == pytest.approx(by_fact)
    assert found["edit-percentile"].estimate.value == 1
    assert advantage.data["success"] == [0.25, 1.0, 0.25, 0.0]


def test_an_edit_that_works_everywhere_has_no_advantage_and_only_rivals() -> None:
    made = [layers_row(f"f{i}", (0.95, 0.96, 0.97, 0.96)) for i in range(8)]
    found = concluded("edit-layers", made, setting_of())
    assert found["edit-advantage"].estimate.value == found["edit-advantage"].estimate.high == 0
    assert found["rivals"].estimate.value == found["rivals"].estimate.high == 0
    assert found["edit-percentile"].estimate.value == pytest.approx((1 + 0.5) / 3)


def test_rivals_that_are_neither_shown_nor_excluded_widen_the_interval() -> None:
    sure = [layers_row(f"f{i}", (0.1, 0.9, 0.1, 0.9)) for i in range(8)]
    found = concluded("edit-layers", sure, setting_of())["rivals"].estimate
    assert (found.low, found.value, found.high) == pytest.approx((2 / 3, 2 / 3, 2 / 3))
    torn = [layers_row(f"f{i}", (0.1, 0.5, 0.1, 0.9 if i % 4 < 2 else 0.05)) for i in range(8)]
    found = concluded("edit-layers", torn, setting_of())["rivals"].estimate
    assert found.low == pytest.approx(2 / 3)
    assert found.value < found.high or found.value > found.low
    assert found.high == 1


def test_one_measured_layer_has_none_to_be_compared_with() -> None:
    made = [layers_row("f0", (0.9,)), layers_row("f2", (0.9,))]
    assert concluded("edit-layers", made, setting_of((0,), 0)) == {}


def test_minimality_counts_the_members_whose_absence_is_felt() -> None:
    def lesions(whole: float, without: Sequence[float]) -> dict[str, Any]:
        return {
            "1": {"layers": [0, 1, 2], "whole": whole, "without": list(without)},
            **{str(l): {"layers": [l, l + 1], "whole": 1.0, "without": [1.0, 1.0 - 0.1 * l]} for l in (0, 2, 3)},
        }

    made = [
        layers_row(f"f{i}", (0.1, 0.9, 0.1, 0.1), lesions=lesions(2.0, (1.0 + i / 50, 1.5, 2.0 - (i // 2 - 1.5) / 10)))
        for i in range(8)
    ]
    found = concluded("edit-layers", made, setting_of(window=3))["minimality"]
    # the first two members are felt in every fact, the third as often one way as the other
    assert found.estimate.low == pytest.approx(2 / 3)
    assert found.estimate.high == 1
    assert found.controls[0].estimate.value == pytest.approx((0 + 1 / 2 + 1 / 2) / 3)
    assert found.data["members"] == [0, 1, 2]
    assert found.data["drops"][1]["value"] == pytest.approx(0.5)


def test_percentile_ranks_split_ties() -> None:
    assert edit_layers.percentile(np.array([0.1, 0.5, 0.5, 0.9]), 1) == pytest.approx((1 + 0.5) / 3)
