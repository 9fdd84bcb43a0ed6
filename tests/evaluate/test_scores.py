"""`Scores`: summary, table and frame of records, whatever is missing among them."""

import json
from typing import Any

import pytest

from palimpsest.evaluate import Scores
from palimpsest.evaluate.suites.counterfact import METRICS

NAMES = (*METRICS, "nll_new", "nll_true")


def measured(i: int, *, post: bool = True, **without: None) -> dict[str, Any]:
    """A record whose metrics are easy to add up."""
    pre: dict[str, Any] = dict.fromkeys(NAMES, 0.0) | {"ns": 1.0, "es": float(i % 2)} | without
    after: dict[str, Any] = dict.fromkeys(NAMES, 0.5) | {"es": 1.0} | without
    return {
        "id": f"f{i}", "relation": f"r{i % 3}", "subject": f"s{i}", "eligible": i % 2 == 0, "pre": pre,
    } | ({"post": after} if post else {})  # fmt: skip


FAILED = {"id": "bad", "error": "The fact bad has no target_new."}
SCORES = Scores((*(measured(i) for i in range(6)), FAILED), {"suite": "counterfact"})


def test_means_and_differences() -> None:
    for metric, when, value in (("es", "pre", 0.5), ("es", "post", 1.0), ("ns", "pre", 1.0), ("pm", "post", 0.5)):
        found = SCORES.estimate(metric, when)
        assert found is not None
        assert found.value == pytest.approx(value)
        assert (found.n, found.clusters) == (6, 3)
        assert found.low <= found.value <= found.high
    difference = SCORES.difference("es")
    assert difference is not None
    assert difference.value == pytest.approx(0.5)


def test_summary_is_plain_data_with_counts_and_directions() -> None:
    summary = json.loads(json.dumps(SCORES.summary()))
    assert (summary["n"], summary["failed"], summary["eligible"]) == (6, 1, 3)
    assert set(summary["pre"]) == set(summary["post"]) == {*METRICS, "s"}
    assert set(summary["difference"]) == set(METRICS)
    assert summary["post"]["s"]["value"] == pytest.approx(3 / (1 + 2 + 2))
    assert summary["higher_is_better"]["ns"] is True
    assert summary["settings"] == {"suite": "counterfact"}


def test_table_has_a_row_for_each_metric_that_is_there() -> None:
    rows = SCORES.table()
    assert [row["metric"] for row in rows] == ["ES", "EM", "PS", "PM", "NS", "NM", "S"]
    assert rows[0]["before"].startswith("0.5")
    assert "[" in rows[0]["after"]
    assert rows[-1]["difference"] == ""
    bare = Scores((measured(0, post=False, ps=None, pm=None),), {})
    assert [row["metric"] for row in bare.table()] == ["ES", "EM", "NS", "NM"]
    assert all(row["after"] == row["difference"] == "" for row in bare.table())


def test_only_before() -> None:
    summary = Scores(tuple(measured(i, post=False) for i in range(3)), {}).summary()
    assert "post" not in summary
    assert "difference" not in summary
    assert summary["pre"]["ns"]["value"] == 1.0


def test_metrics_are_means_over_the_facts_that_have_them() -> None:
    scores = Scores((measured(0), measured(1, ps=None), measured(2, ps=None)), {})
    found = scores.estimate("ps")
    assert found is not None
    assert found.n == 1
    assert Scores((measured(1, ps=None),), {}).estimate("ps") is None
    assert Scores((measured(1, ps=None),), {}).estimate("s") is None


def test_nothing_measured() -> None:
    scores = Scores((FAILED,), {})
    assert scores.measured == []
    assert scores.table() == []
    summary = scores.summary()
    assert (summary["n"], summary["failed"]) == (0, 1)
    assert set(summary["pre"].values()) == {None}


def test_frame() -> None:
    pytest.importorskip("pandas")
    frame = SCORES.to_pandas()
    assert len(frame) == 12
    assert set(frame.columns) == {"id", "relation", "subject", "eligible", "when", *NAMES}
    assert frame[frame["when"] == "post"]["es"].mean() == 1.0
    assert frame[frame["when"] == "pre"]["es"].mean() == 0.5
    assert len(Scores((FAILED,), {}).to_pandas()) == 0


@pytest.mark.parametrize("endless", [float("inf"), "inf"])
def test_an_infinite_number_is_counted_and_in_no_mean(endless: float | str) -> None:
    broken = measured(6)
    broken["post"] = broken["post"] | {"em": endless, "pm": None}
    scores = Scores((*SCORES.records, broken), {"suite": "counterfact"})
    found = scores.estimate("em")
    assert found is not None
    assert (found.value, found.n) == (pytest.approx(0.5), 6)
    difference = scores.difference("em")
    assert difference is not None
    assert difference.n == 6
    assert scores.summary()["infinite"] == {"post": {"em": 1}}
    assert "infinite" not in SCORES.summary()
