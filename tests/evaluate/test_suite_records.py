"""Every suite on a real small model: records of every kind are asked, and without an edit nothing has changed."""

import math
from collections.abc import Sequence
from pathlib import Path

import pytest

import palimpsest as pal
from palimpsest.errors import InputError
from palimpsest.evaluate.answering import answer
from palimpsest.evaluate.fitting import require_fitting
from palimpsest.evaluate.suite import Suite, suite_of
from palimpsest.evaluate.suites.pararel import ParaRel
from palimpsest.evaluate.suites.text import passages
from palimpsest.facts import Case, read_cases, shipped_text
from palimpsest.model import Model

SUITES = (
    "zsre",
    "knowedit",
    "ripple",
    "mquake",
    "pararel",
    "symmetry",
    "synonymy",
    "blimp",
    "text",
    "strata",
    "coverage",
)
UNCHANGED = ("kept", "specificity", "locality")  # 1 where nothing changed
SAME = ("gain", "rise")  # 0


@pytest.fixture(scope="module")
def world() -> Model:
    return pal.load("world", check=False)


def check_unedited(model: Model, suite: Suite, cases: Sequence[Case]) -> dict[str, float]:
    """The mean of each metric; metrics that compare with the unedited model are those of no change."""
    answers = answer(model, [ask for case in cases for ask in suite.asks(case)])
    found: dict[str, list[float]] = {}
    for case in cases:
        values = suite.measure(case, answers, answers)
        assert set(values) == set(suite.metrics)
        for name, value in values.items():
            if value is None:
                continue
            assert math.isfinite(value)
            found.setdefault(name, []).append(value)
            if suite.metrics[name].needs_before:
                assert value == (0.0 if suite.metrics[name].unit else 1.0)
            elif not suite.metrics[name].unit and "perplexity" not in name:
                assert 0 <= value <= 1
    return {name: sum(values) / len(values) for name, values in found.items()}


def test_every_suite_has_names_of_its_own() -> None:
    names = [name for suite in SUITES for name in suite_of(suite).metrics]
    assert len(set(names)) == len(names)
    assert all(name.startswith(suite) for suite in SUITES for name in suite_of(suite).metrics)
    assert suite_of("+".join(SUITES)).metrics.keys() == set(names)


def test_text_and_pairs_on_a_model(world: Model) -> None:
    found = check_unedited(world, suite_of("text"), passages(shipped_text(), words=40)[:5])
    assert found["text_nll"] > 0
    pairs = [Case(f"blimp/x/{i}", text=f"{good}\n{good} {good}") for i, good in enumerate(["one two", "three four"])]
    assert check_unedited(world, suite_of("blimp"), pairs)["blimp_right"] == 1.0  # more words are less likely


def test_the_shipped_facts_on_a_model(world: Model) -> None:
    facts = [case for case in read_cases("shipped") if case.fact.relation == "capital"][:3]
    for name in ("strata", "coverage", "symmetry"):
        check_unedited(world, suite_of(name), facts)
    check_unedited(world, ParaRel.over(facts), facts)


@pytest.mark.parametrize(
    ("suite", "name"),
    [
        ("zsre", "zsre/zsre_mend_eval.json"),
        ("knowedit", "knowedit/wiki_counterfact_train.json"),
        ("mquake", "mquake/MQuAKE-CF.json"),
        ("pararel", "pararel/facts/P17.jsonl"),
        ("blimp", "blimp/passive_2.jsonl"),
    ],
)
def test_real_records_on_a_model(world: Model, records: Path, suite: str, name: str) -> None:
    found = check_unedited(world, suite_of(suite), read_cases(records / name, limit=2))
    assert found


def test_wrong_records_are_told_by_name(records: Path) -> None:
    cases = read_cases(records / "zsre" / "zsre_mend_eval.json", limit=2)
    for suite in ("knowedit", "ripple", "mquake", "symmetry", "synonymy"):
        with pytest.raises(
            InputError, match=f"None of the 2 cases .* which the suite '{suite}' needs; this looks like zsRE"
        ):
            require_fitting(cases.cases, suite_of(suite))
    with pytest.raises(InputError, match="this looks like MQuAKE: use --suite mquake"):
        require_fitting(read_cases(records / "mquake" / "MQuAKE-CF.json", limit=2).cases, suite_of("zsre"), "mquake")
