"""Comparing runs: every number by hand, what is refused, and what is counted."""

import json
import random
from pathlib import Path

import numpy as np
import pytest

from palimpsest.errors import InputError, RecordError, SettingError
from palimpsest.evaluate import Scores
from palimpsest.evaluate.compare import Comparison, compare
from palimpsest.runs import Plan, Run
from palimpsest.statistics import holm, n_needed, paired_difference, sign_flip_p
from palimpsest.statistics.harmonic import harmonic_difference

PARTS = ("es", "em", "ps", "pm", "ns", "nm")


def record(number: int, shift: float, *, relations: int = 8) -> dict[str, object]:
    """Numbers of one fact; `shift` moves the efficacy of the edit."""
    chance = random.Random(number)
    pre = {name: round(chance.random(), 3) for name in PARTS} | {"nll_new": 3.0, "nll_true": 1.0}
    post = pre | {"es": min(1.0, pre["es"] + shift), "em": pre["em"] + shift + 0.01 * (number % 3)}
    relation = f"r{number % relations}"
    return {
        "id": f"f{number}",
        "relation": relation,
        "subject": f"s{number}",
        "eligible": True,
        "pre": pre,
        "post": post,
    }


def scores(numbers: range, shift: float, **settings: object) -> Scores:
    records = tuple(record(number, shift) for number in numbers)
    return Scores(records, {"suite": "counterfact", "method": "rome", "weights": "w"} | settings)


def in_folder(folder: Path, made: Scores) -> Path:
    """The run as evaluate leaves it."""
    plan = Plan([one["id"] for one in made.records], made.settings)
    with Run(folder, plan) as run:
        for one in made.records:
            run.record(one["id"], {name: value for name, value in one.items() if name != "id"})
        run.finish(made.summary())
    return folder


def test_every_number_of_a_metric_is_the_statistic_s() -> None:
    a, b = scores(range(40), 0.3), scores(range(40), 0.1, method="memit")
    found = compare(a, b)
    left, right = ([r["post"]["em"] for r in side.records] for side in (a, b))
    clusters = [(r["relation"], r["subject"]) for r in a.records]
    em = found["em"]
    assert (em.a, em.b) == pytest.approx((np.mean(left), np.mean(right)))
    assert em.difference == paired_difference(left, right, clusters)
    gaps = [x - y for x, y in zip(left, right, strict=True)]
    assert em.p == sign_flip_p(gaps, clusters, permutations=9999)
    assert found["es"].needed == n_needed(
        [r["post"]["es"] - q["post"]["es"] for r, q in zip(a.records, b.records, strict=True)], clusters=clusters
    )
    tested = [contrast for contrast in found.contrasts if contrast.p is not None]
    assert [contrast.adjusted for contrast in tested] == holm([contrast.p for contrast in tested])
    assert len(tested) >= 6


def test_a_harmonic_mean_has_an_interval_and_no_p() -> None:
    a, b = scores(range(40), 0.3), scores(range(40), 0.1)
    s = compare(a, b)["s"]
    columns = [[[r["post"][part] for r in side.records] for part in ("es", "ps", "ns")] for side in (a, b)]
    clusters = [(r["relation"], r["subject"]) for r in a.records]
    assert s.difference == harmonic_difference(columns[0], columns[1], clusters)
    assert s.difference.value == pytest.approx(s.a - s.b)
    assert (s.p, s.adjusted, s.needed) == (None, None, None)


def test_which_is_better() -> None:
    found = compare(scores(range(40), 0.3), scores(range(40), 0.1))
    assert found.better("em") == "a"
    assert found.better("ns") is None  # nothing differs
    assert found["ns"].p == 1.0
    assert found["ns"].needed is None
    assert compare(scores(range(40), 0.1), scores(range(40), 0.3)).better("em") == "b"


def test_folders_and_results_in_memory_compare_alike(tmp_path: Path) -> None:
    a, b = scores(range(20), 0.3), scores(range(20), 0.1, method="memit")
    stored = compare(in_folder(tmp_path / "a", a), in_folder(tmp_path / "b", b))
    memory = compare(a, b)
    assert [c.to_json() for c in stored.contrasts] == [c.to_json() for c in memory.contrasts]
    assert stored.settings == {"method": ("rome", "memit")}
    assert (stored.a, memory.b) == (str(tmp_path / "a"), "b (memit)")


def test_only_shared_records_count_and_the_others_are_named() -> None:
    a, b = scores(range(30), 0.3), scores(range(5, 33), 0.1)
    broken = Scores((*b.records[:-1], {"id": "f32", "error": "broke"}, {"id": "f0", "error": "broke"}), b.settings)
    found = compare(a, broken)
    assert (found.n, found["em"].difference.n) == (25, 25)
    assert found.only_a == ("f1", "f2", "f3", "f4")
    assert found.only_b == ("f30", "f31")
    assert found.failed_b == ("f32", "f0")
    notes = " ".join(found.notes())
    assert "4 only in A and not compared: f1, f2, f3, f4." in notes
    assert "2 failed in B and not compared: f32, f0." in notes
    kept = [r for r in a.records if r["id"] in {f"f{i}" for i in range(5, 30)}]
    assert found["em"].a == pytest.approx(np.mean([r["post"]["em"] for r in kept]))


def test_a_value_that_one_run_lacks_is_left_out_and_counted() -> None:
    a, b = scores(range(20), 0.3), scores(range(20), 0.1)
    b.records[0]["post"]["em"] = None
    b.records[1]["post"]["em"] = "inf"
    found = compare(a, b)
    assert (found["em"].difference.n, found["em"].left_out) == (18, 2)
    assert found["es"].difference.n == 20


def test_a_run_without_an_edit_is_compared_by_what_it_measured() -> None:
    plain = Scores(
        tuple({k: v for k, v in record(i, 0).items() if k != "post"} for i in range(20)), scores(range(1), 0).settings
    )
    found = compare(scores(range(20), 0.3), plain)
    assert found["em"].difference.value == pytest.approx(0.3 + np.mean([0.01 * (i % 3) for i in range(20)]))
    # but in a run with edits, a record that was never edited says nothing of one
    half = scores(range(20), 0.3)
    del half.records[0]["post"]
    assert compare(half, plain)["em"].difference.n == 19


def test_few_relations_are_said() -> None:
    def few(shift: float, count: int) -> Scores:
        made = scores(range(20), shift)
        return Scores(tuple(record(i, shift, relations=count) for i in range(20)), made.settings)

    found = compare(few(0.3, 3), few(0.1, 3))
    assert found["em"].p == 2 / 2**3
    assert any("With 3 relations no p can be below 0.25" in note for note in found.notes())
    one = compare(few(0.3, 1), few(0.1, 1))
    assert one["em"].p is not None
    assert one["em"].p < 0.01
    assert any("one relation" in note for note in one.notes())


def test_other_suites_and_other_facts_are_refused() -> None:
    a = scores(range(10), 0.3)
    with pytest.raises(SettingError, match="measured by the suite 'counterfact' and b .rome. by 'locality'"):
        compare(a, Scores(a.records, dict(a.settings) | {"suite": "locality"}))
    with pytest.raises(InputError, match="share no measured record"):
        compare(a, scores(range(20, 30), 0.3))
    others = scores(range(10), 0.3)
    others.records[4]["subject"] = "else"
    with pytest.raises(InputError, match="were run on different facts: the record 'f4' is not the same"):
        compare(a, others)
    reworded = scores(range(10), 0.3)  # the same ids, another prompt: the same unedited model answers otherwise
    reworded.records[7]["pre"] = dict(reworded.records[7]["pre"], nll_new=2.0)
    with pytest.raises(InputError, match="the record 'f7' is not the same"):
        compare(a, reworded)
    compare(a, Scores(reworded.records, dict(a.settings) | {"weights": "another model"}))
    named, again = (Scores(side.records, dict(a.settings) | {"facts": "sha256:1"}) for side in (a, reworded))
    compare(named, again)  # of one file: only rounding, which may change a whole text, can have changed a number


def test_folders_that_are_no_finished_runs(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="holds no run: plan.json is not there"):
        compare(tmp_path, tmp_path)
    with Run(tmp_path / "half", Plan(["a"], {"suite": "counterfact"})):
        pass
    with pytest.raises(RecordError, match="holds no finished run"):
        compare(tmp_path / "half", tmp_path / "half")
    with Run(tmp_path / "other", Plan(["a"], {"layers": [1]})) as run:
        run.map(lambda item: {"effect": 1})
        run.finish({"effect": 1})
    with pytest.raises(InputError, match="names no suite; compare folders that evaluate wrote"):
        compare(tmp_path / "other", tmp_path / "other")


def test_it_saves_and_prints(tmp_path: Path) -> None:
    found = compare(scores(range(40), 0.3), scores(range(40), 0.1))
    assert isinstance(found, Comparison)
    found.save(tmp_path / "comparison.json")
    stored = json.loads((tmp_path / "comparison.json").read_bytes())
    assert stored["contrasts"]["em"]["better"] == "a"
    assert stored["contrasts"]["em"]["difference"]["n"] == 40
    row = {row["metric"]: row for row in found.table()}["em (up)"]
    assert row["better"] == "A"
    assert row["pairs"] == "40"
    assert set(row) == {"metric", "A", "B", "A - B", "p", "p (Holm)", "pairs", "n for 0.05", "better"}
    with pytest.raises(SettingError, match="share no metric 'none'"):
        found["none"]
