"""Templates and Consistency: each endpoint's arithmetic on rows made by hand."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from map_rows import LAYERS, a_map, facts_of, one, setting_of
from scipy import stats

from palimpsest.audit.experiment import chosen_experiments
from palimpsest.audit.experiments.consistency import by_relation, sign_agreement, spare_spread, together
from palimpsest.audit.experiments.roles import effects_of
from palimpsest.audit.experiments.templates import PROMPT, order_of, ratios_of_means, wordings_of, worst_ratio
from palimpsest.audit.setting import SUBJECT
from palimpsest.facts import Fact

# ---- templates --------------------------------------------------------------------------------------------------------


def test_wordings_are_the_prompt_paraphrases_that_name_the_subject_and_the_other_order() -> None:
    fact = Fact(
        "France",
        "{} is governed from",
        paraphrases=(
            "France is governed from",  # the prompt itself
            "The hexagon is governed from",  # does not name the subject
            "France was a kingdom. France is ruled from",
            "France has its capital in",
            "France is led from",
            "The seat of government of France is",
        ),
    )
    found = wordings_of(fact)
    assert [each.text for each in found.values()] == [
        "France is governed from",
        "France was a kingdom. France is ruled from",
        "France has its capital in",
        "The seat of government of France is",
    ]
    assert list(found) == ["prompt", "wording 1", "wording 2", "other order"]
    assert found["wording 1"].prompt == "France was a kingdom. {} is ruled from"
    assert order_of(found["wording 1"]) == "subject first"
    assert order_of(found["other order"]) == "relation first"
    assert list(wordings_of(replace(fact, paraphrases=()))) == ["prompt"]
    assert order_of(Fact("France", "The capital of {} is the city of")) == "relation first"
    assert order_of(Fact("Louvre", "We went to Paris. The {} stands in")) == "subject first"


def templates_row(name: str, shares: dict[str, list[float]], *, unknown: tuple[str, ...] = ()) -> dict[str, Any]:
    about = {"text": "t", "order": "subject first"}
    return {
        "id": name,
        "wordings": {
            wording: about | a_map(effects, 2.0, known=wording not in unknown) for wording, effects in shares.items()
        },
    }


def test_templates_are_compared_by_eta_icc_and_worst_ratio() -> None:
    facts = facts_of("a", "a", "b", "b")
    draw = np.random.default_rng(0)
    names = (PROMPT, "wording 1", "other order")
    level = {PROMPT: 1.0, "wording 1": 0.8, "other order": 0.5}
    effects = {name: level[name] + 0.1 * draw.random((4, 3)) for name in names}
    rows = [templates_row(f"f{i}", {name: effects[name][i].tolist() for name in names}) for i in range(4)]
    rows[0]["wordings"]["wording 2"] = {"text": "t", "order": "subject first", "error": "The subject has no token."}
    found = chosen_experiments(["templates"])["templates"].conclude(
        setting_of(tuple(facts)), facts, {"templates": rows}
    )
    shares = np.stack([effects[name][:, 1] / 2 for name in names])
    between = 4 * ((shares.mean(axis=1) - shares.mean()) ** 2).sum()
    eta = one(found, "template-eta")
    whole = ((shares - shares.mean()) ** 2).sum()
    within = (whole - between) / (12 - 3)
    assert eta.data["eta2"]["value"] == pytest.approx(between / whole)
    assert eta.estimate.value == pytest.approx(-(between - 2 * within) / (whole + within))
    assert eta.estimate.low <= eta.estimate.value <= eta.estimate.high <= 0
    assert eta.data["welch_p"] < 0.001
    assert "12 of 13 wordings" in eta.note
    robust = one(found, "template-robustness")
    ratios = {name: effects[name][:, 1].sum() / effects[PROMPT][:, 1].sum() for name in names[1:]}
    assert robust.data["ratios"] == pytest.approx(ratios)
    assert robust.estimate.value == pytest.approx(min(ratios.values()))
    depths = np.stack([np.array(LAYERS)[effects[name].argmax(axis=1)] for name in names], axis=1) / 5
    grand, k, n = depths.mean(), 3, 4
    rows_ms = k * ((depths.mean(axis=1) - grand) ** 2).sum() / (n - 1)
    columns_ms = n * ((depths.mean(axis=0) - grand) ** 2).sum() / (k - 1)
    rest = depths - depths.mean(axis=1, keepdims=True) - depths.mean(axis=0) + grand
    error_ms = (rest**2).sum() / ((n - 1) * (k - 1))
    icc = (rows_ms - error_ms) / (rows_ms + (k - 1) * error_ms + k * (columns_ms - error_ms) / n)
    assert one(found, "template-icc").estimate.value == pytest.approx(icc)


def test_wordings_the_model_does_not_answer_do_not_count() -> None:
    facts = facts_of("a", "a", "b")
    shares = {PROMPT: [0, 1.0, 0], "wording 1": [0, 0.5, 0], "other order": [1.0, 0, 0]}
    rows = [templates_row(name, shares, unknown=("other order",)) for name in facts]
    found = chosen_experiments(["templates"])["templates"].conclude(
        setting_of(tuple(facts)), facts, {"templates": rows}
    )
    assert list(one(found, "template-eta").data["share_by_wording"]) == [PROMPT, "wording 1"]
    assert np.isnan(one(found, "template-robustness").estimate.value)  # a worst of one is no worst
    only = [templates_row(name, {PROMPT: [0, 1.0, 0]}) for name in facts]
    assert (
        chosen_experiments(["templates"])["templates"].conclude(setting_of(tuple(facts)), facts, {"templates": only})
        == []
    )


def test_a_ratio_to_nothing_is_unknown() -> None:
    assert ratios_of_means(np.array([1.0, 2, 2, 2, 1, 4, 2, 2])) == [0.5, 0.25]
    assert worst_ratio(np.array([1.0, 2, 2, 2, 1, 4, 2, 2])) == 0.25
    assert np.isnan(worst_ratio(np.array([1.0, 2, 2, 2, 1, 4, -2, 2])))


# ---- consistency ------------------------------------------------------------------------------------------------------


def test_the_prediction_interval_is_dersimonian_and_laird_on_ratios() -> None:
    facts = facts_of(*"aaabbbcccc")
    draw = np.random.default_rng(1)
    te = 1 + draw.random(10)
    here = te * np.repeat([0.2, 0.5, 0.8], [3, 3, 4]) + 0.05 * draw.normal(size=10)
    rows = [{"id": f"f{i}", "mlp": a_map([0, here[i], 0], te[i])} for i in range(10)]
    found = one(
        chosen_experiments(["consistency"])["consistency"].conclude(
            setting_of(tuple(facts)), facts, {"tracing": rows, "lesion": []}
        ),
        "consistency",
    )
    of = np.repeat([0, 1, 2], [3, 3, 4])
    y = np.array([here[of == r].sum() / te[of == r].sum() for r in range(3)])
    residual = sum(((here - y[of] * te)[of == r] ** 2).sum() for r in range(3)) / (10 - 3)
    v = np.array([residual * (of == r).sum() / te[of == r].sum() ** 2 for r in range(3)])
    w = 1 / v
    q = (w * (y - (w * y).sum() / w.sum()) ** 2).sum()
    tau2 = max(0.0, (q - 2) / (w.sum() - (w**2).sum() / w.sum()))
    both = 1 / (v + tau2)
    mean, half = (both * y).sum() / both.sum(), stats.t.ppf(0.975, 1) * np.sqrt(tau2 + 1 / both.sum())
    assert found.estimate.value == pytest.approx(mean)
    assert (found.estimate.low, found.estimate.high) == pytest.approx((mean - half, mean + half))
    assert found.estimate.n == 10
    assert found.estimate.clusters == 3
    assert "prediction" in found.estimate.method
    assert found.data["tau2"] == pytest.approx(tau2)
    assert found.data["sign_agreement"] == 1.0
    assert found.data["mean"]["low"] == pytest.approx(mean - stats.norm.ppf(0.975) / np.sqrt(both.sum()))


def test_relations_of_one_fact_each_have_no_variance_to_weigh_by() -> None:
    values = np.array([0.2, 0.5, 0.4, 0.7])
    facts = facts_of("a", "b", "c", "d")
    rows = [{"id": name, "mlp": a_map([0, value, 0])} for name, value in zip(facts, values, strict=True)]
    found = chosen_experiments(["consistency"])["consistency"].conclude(
        setting_of(tuple(facts)), facts, {"tracing": rows, "lesion": []}
    )
    # every relation is one draw of what relations do: all spread is between them
    spread = values.std(ddof=1)
    half = stats.t.ppf(0.975, 2) * spread * np.sqrt(1 + 1 / 4)
    consistency = one(found, "consistency").estimate
    assert consistency.value == pytest.approx(values.mean())
    assert (consistency.low, consistency.high) == pytest.approx((values.mean() - half, values.mean() + half), rel=1e-5)
    assert "Each has one fact" in one(found, "consistency").note


def test_facts_of_a_single_relation_predict_no_other() -> None:
    facts = facts_of("a", "a", "a")
    rows = [{"id": name, "mlp": a_map([0, 1, 0], 2)} for name in facts]
    (found,) = chosen_experiments(["consistency"])["consistency"].conclude(
        setting_of(tuple(facts)), facts, {"tracing": rows, "lesion": []}
    )
    assert np.isnan(found.estimate.value)
    assert "one relation" in found.estimate.method


def test_signs_of_relations_are_evidence_of_their_own() -> None:
    facts = facts_of("a", "b", "c", "d")
    rows = [{"id": f"f{i}", "mlp": a_map([0, e, 0])} for i, e in enumerate((0.9, 0.7, 0.8, -0.2))]
    found = chosen_experiments(["consistency"])["consistency"].conclude(
        setting_of(tuple(facts)), facts, {"tracing": rows, "lesion": []}
    )
    signs = one(found, "sign-agreement")
    assert (signs.estimate.low, signs.estimate.value, signs.estimate.high) == (0.75, 0.75, 0.75)
    assert signs.data["turned"] == ["d"]


def test_wordings_that_make_no_difference_are_not_called_sensitive_by_chance() -> None:
    """eta2 of four wordings of twelve facts is 3 / 47 by chance, which is the floor; omega2 is 0 on average."""
    facts = facts_of(*"abcdefghijkl")
    names, shares = (PROMPT, "wording 1", "wording 2", "other order"), []
    for seed in range(40):
        draw = np.random.default_rng(seed)
        rows = [templates_row(name, {wording: [0, 1 + 0.2 * draw.normal(), 0] for wording in names}) for name in facts]
        found = chosen_experiments(["templates"])["templates"].conclude(
            setting_of(tuple(facts)), facts, {"templates": rows}
        )
        shares.append((one(found, "template-eta").estimate.value, one(found, "template-eta").data["eta2"]["value"]))
    omega, eta = np.mean(shares, axis=0)
    assert abs(omega) < 0.03
    assert eta > 0.045


def test_a_place_that_restores_nothing_at_the_prompt_has_no_robustness_and_says_why() -> None:
    facts = facts_of("a", "a", "b")
    names = (PROMPT, "wording 1", "other order")
    rows = [templates_row(name, {wording: [1.0, -0.1, 0] for wording in names}) for name in facts]
    found = chosen_experiments(["templates"])["templates"].conclude(
        setting_of(tuple(facts)), facts, {"templates": rows}
    )
    estimate = one(found, "template-robustness").estimate
    assert np.isnan(estimate.value)
    assert "at the prompt itself the place restores" in estimate.method


def test_signs_are_counted_by_relation() -> None:
    facts = facts_of("a", "a", "b", "b")
    rows = [{"id": f"f{i}", "mlp": a_map([0, e, 0])} for i, e in enumerate((0.9, 0.7, -0.1, -0.2))]
    effects = effects_of(rows, facts, SUBJECT, kind="mlp")
    groups = by_relation(effects, effects.at(2))
    assert {name: (group.value, group.n) for name, group in groups.items()} == {
        "a": (pytest.approx(0.8), 2),
        "b": (pytest.approx(-0.15), 2),
    }
    assert sign_agreement(groups, 0.3) == 0.5
    assert together(groups) is not None


def test_ablation_spread_is_the_sd_over_methods_of_the_share() -> None:
    assert spare_spread(np.array([1.0, 2, 3, 10])) == pytest.approx(0.05 - 0.1)
    facts = facts_of("a", "a", "b")
    tracing = [{"id": name, "mlp": a_map([0, 1 + i / 10, 0], 2)} for i, name in enumerate(facts)]
    lesion = [
        {"id": name}
        | {by: a_map([0, e, 0], 5, what="lesion") for by, e in (("interchange", 0.2), ("mean", 0.4), ("zero", 2.0))}
        for name in facts
    ]
    del lesion[1]["mean"]  # could not be made: the fact has not all methods
    found = one(
        chosen_experiments(["consistency"])["consistency"].conclude(
            setting_of(tuple(facts)), facts, {"tracing": tracing, "lesion": lesion}
        ),
        "ablation-spread",
    )
    assert found.estimate.value == pytest.approx(0.05 - np.std([0.1, 0.2], ddof=1))
    assert found.estimate.n == 2
    assert set(found.data["shares"]) == {"interchange", "mean"}  # zero is never counted
