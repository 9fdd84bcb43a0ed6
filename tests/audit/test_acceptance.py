"""What the audit must show of itself, on models whose answer is known.

    the weight graft passes M4 on layer-planted organisms, and a random scorer does not
    a crossed organism meets the double dissociation by ablation of its planted weights
    a rescue brings back what an edit changed, and nothing is left of an edit that is taken back
    published values are compared where there are any

Elsewhere: null claims (test_audit_command, test_nulls), untrained models (test_specificity_experiments, test_artefacts), monotone
scoring (test_scoring), uniform p, coverage, Shrout and Fleiss, Hill (tests/statistics).
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import palimpsest as pal
from oracles.small_audit import CENTRE, LAYERS, bench_of, handled, moments_in, world
from palimpsest.audit.claim import read_claim
from palimpsest.audit.evidence import Evidence
from palimpsest.audit.experiment import experiments
from palimpsest.audit.experiments.dissociation import Double, double_dissociation
from palimpsest.audit.experiments.instruments import certificate, evidence_of
from palimpsest.audit.experiments.references import published
from palimpsest.audit.report_data import Status
from palimpsest.audit.rules import read_rules
from palimpsest.audit.scoring import score
from palimpsest.audit.setting import SUBJECT, Place, Setting
from palimpsest.errors import FactError
from palimpsest.facts import Fact
from palimpsest.locate.answers import prompt_and_token
from palimpsest.model import Model, pad
from palimpsest.world.certificate.graft import weights_of
from palimpsest.world.organisms.organism import Organism

EXPERIMENTS = experiments()
ORGANISMS = Path(__file__).parents[2] / "run" / "organisms" / "all"
CROSSED = ("crossed-1-4-world", "crossed-4-1-world")


def setting_of(**given: Any) -> Setting:
    plain: dict[str, Any] = {
        "model": "world",
        "weights": certificate()["bases"]["world"],
        "n_layers": 8,
        "place": Place("mlp", 4),
        "layers": tuple(range(8)),
        "discovery": (),
        "confirmation": (),
    }
    return Setting(**(plain | given))


def status(criterion: str, evidence: Sequence[Evidence]) -> Status:
    report = score(read_claim("rome-2022"), "storage", evidence, read_rules(), weights="w", gates={"G4 split": ""})
    return report.criteria[criterion].status


# ---- M4: an instrument that sees planted layers, and one that sees nothing ---------------------------------------------


def test_the_weight_graft_passes_m4_and_the_random_scorer_does_not() -> None:
    graft = evidence_of(certificate(), ("graft mlp", "weights"), setting_of())
    chance = evidence_of(certificate(), ("random", "nowhere"), setting_of())
    assert status("M4", graft) is Status.PASS
    assert status("M4", chance) in (Status.WEAK, Status.FAIL)
    # about a model that the organisms were not made from, even an instrument without fault is partial
    assert status("M4", evidence_of(certificate(), ("graft mlp", "weights"), setting_of(weights="x"))) is Status.PARTIAL


# ---- double dissociation -----------------------------------------------------------------------------------------------


@torch.no_grad()
def probabilities(model: Model, facts: Sequence[Fact]) -> np.ndarray:
    """p of the first token of each answer."""
    asked = [prompt_and_token(model, fact.text, str(fact.target_true)) for fact in facts]
    with model.evaluating():
        logits = model.last_logits(pad([encoded.ids for encoded, _ in asked]))
    return logits.softmax(-1)[torch.arange(len(facts)), torch.tensor([token for _, token in asked])].double().numpy()


def dissociated(model: Model, organism: Organism, *, both_in: str = "") -> Double:
    """D of each relation under ablation of either relation's planted weights; `both_in`: ablate this one's weights both times."""
    first, second = organism.places
    of = {name: {fact.subject: fact for fact in organism.facts if fact.relation == name} for name in (first, second)}
    subjects = sorted(set(of[first]) & set(of[second]))
    facts = {name: [of[name][subject] for subject in subjects] for name in of}
    base = {path: weight.detach().clone() for path, weight in model.net.named_parameters()}
    nothing = {name: probabilities(model, facts[name]) for name in of}
    lost: dict[str, list[np.ndarray]] = {name: [] for name in of}
    with organism.applied(model):
        whole = {name: probabilities(model, facts[name]) for name in of}
        for lesion in (first, second):
            paths = weights_of(model, organism.places[both_in or lesion][0])
            planted = {path: model.parameter(path).detach().clone() for path in paths}
            for weights, then in ((base, True), (planted, False)):
                with torch.no_grad():
                    for path in paths:
                        model.parameter(path).copy_(weights[path])
                if then:
                    for name in of:
                        lost[name].append(whole[name] - probabilities(model, facts[name]))
    a, b = (np.column_stack(lost[name]) for name in (first, second))
    totals = {name: whole[name] - nothing[name] for name in of}
    clusters = [("crossed", subject) for subject in subjects]
    return double_dissociation(a, totals[first], b, totals[second], clusters)


@pytest.mark.parametrize("name", CROSSED)
def test_a_crossed_organism_meets_double_dissociation_by_ablation(name: str) -> None:
    folder = ORGANISMS / name
    if not folder.is_dir():
        pytest.skip(
            f"THE CROSSED ORGANISM {name} IS NOT THERE: make it with `palimpsest world organisms --out {folder.parent}`"
        )
    model, organism = pal.load("world"), Organism.load(folder)
    found = dissociated(model, organism)
    assert found.met
    assert found.margin > 0
    assert found.contrast.low > 1.5
    one_place = dissociated(
        model, organism, both_in=next(iter(organism.places))
    )  # the same lesion twice is no second lesion
    assert not one_place.met
    assert one_place.contrast.value == pytest.approx(0, abs=1e-6)


# ---- rescue ------------------------------------------------------------------------------------------------------------


def test_putting_back_what_the_layer_wrote_brings_back_what_the_edit_changed(tmp_path: Path) -> None:
    with moments_in(tmp_path):
        bench = bench_of(tmp_path)
        made = EXPERIMENTS["rescue"]
        units = made.units(bench.setting)[:2]
        rows = json.loads(json.dumps([{"id": unit, **made.measure(bench, unit)} for unit in units]))
        for row in rows:
            assert row["left"] == 0  # taken back, the weights are the very same
            assert row["edited"] < row["before"]
            assert row["back"][0] == pytest.approx(
                row["edited"], abs=1e-4
            )  # a layer before the edit writes what it wrote
        fact, row = bench[units[0]], rows[0]
        assert row["back"][LAYERS.index(CENTRE)] == pytest.approx(_by_hooks(bench, fact), abs=1e-3)
    (found,) = made.conclude(bench.setting, bench.facts, {"rescue": rows})
    back = sum(row["back"][LAYERS.index(CENTRE)] - row["edited"] for row in rows)
    assert found.estimate.value == pytest.approx(back / sum(row["before"] - row["edited"] for row in rows))
    assert [control.kind for control in found.controls] == ["N1"]


@torch.no_grad()
def _by_hooks(bench: Any, fact: Fact) -> float:
    """Old less new answer in the edited model with the layer's old output at the subject's last token, by plain hooks."""
    model = world()
    encoded, old = prompt_and_token(model, fact.text, str(fact.target_true))
    _, new = prompt_and_token(model, fact.text, str(fact.target_new))
    at, mlp = encoded.tokens_of(*fact.subject_span)[-1], model.net.transformer.h[CENTRE].mlp
    ids, kept = torch.tensor([encoded.ids]), []
    with handled([mlp.register_forward_hook(lambda _, __, out: kept.append(out[0, at].clone()))]):
        model.net(ids)

    def put(_: Any, __: Any, out: torch.Tensor) -> torch.Tensor:
        out = out.clone()
        out[0, at] = kept[0]
        return out

    with bench.edit_at([fact], CENTRE).applied(model), handled([mlp.register_forward_hook(put)]):
        logits = model.net(ids).logits[0, -1]
    return float(logits[old] - logits[new])


def rescued(*rows: tuple[float, float, list[float]]) -> Evidence:
    facts = {f"f{i}": Fact(f"s{i}", "{} is", "a", "b", id=f"f{i}", relation="r") for i in range(len(rows))}
    own = [
        {"id": f"f{i}", "layer": 4, "layers": [2, 4, 6], "before": before, "edited": edited, "back": back, "left": 0.0}
        for i, (before, edited, back) in enumerate(rows)
    ]
    (found,) = EXPERIMENTS["rescue"].conclude(setting_of(confirmation=tuple(facts)), facts, {"rescue": own})
    return found


def test_rescue_is_a_share_of_what_changed_with_other_layers_beside_it() -> None:
    found = rescued((4.0, -4.0, [-4.0, 4.0, -2.0]), (2.0, -2.0, [-2.0, 0.0, -2.0]))
    assert found.estimate.value == pytest.approx((8 + 2) / (8 + 4))
    assert found.controls[0].estimate.value == pytest.approx((1 + 0) / 12)
    assert found.controls[0].sane


def test_an_edit_that_changes_nothing_has_nothing_to_bring_back() -> None:
    found = rescued((4.0, 4.1, [4.0, 4.0, 4.0]), (2.0, 1.9, [2.0, 2.0, 2.0]))
    assert np.isnan(found.estimate.value)
    assert "nothing that could come back" in found.estimate.method


def test_a_fact_without_a_new_answer_cannot_be_rescued(tmp_path: Path) -> None:
    bench = bench_of(tmp_path)
    unit = bench.setting.confirmation[0]
    bench.facts = {**bench.facts, unit: replace(bench.facts[unit], target_new=None)}
    with pytest.raises(FactError, match="needs target_true and target_new"):
        EXPERIMENTS["rescue"].measure(bench, unit)


# ---- published values --------------------------------------------------------------------------------------------------


def a_map(effect: float, total: float) -> dict[str, Any]:
    """A row of one map: p is `total` in the clean run, 0 in the corrupted one, and `effect` where a layer is restored."""
    clean, nothing, back = np.log(total), np.log(1e-12), np.log(effect)
    return {
        "what": "restoration",
        "known": True,
        "layers": [0, 14, 30],
        "clean": [clean, -9.0],
        "corrupted": [[nothing, -9.0]] * 2,
        "subject": [[[nothing, -9.0]] * 2, [[back, -9.0]] * 2, [[nothing, -9.0]] * 2],
        "last": [[[nothing, -9.0]] * 2] * 3,
        "withheld": {"logit-difference": "", "probability": ""},
    }


def references(model: str, total: float, state: float, mlp: float, *, window: int = 10) -> list[Evidence]:
    facts = {f"f{i}": Fact(f"s{i}", "{} is", "a", "b", id=f"f{i}", relation=f"r{i % 3}") for i in range(9)}
    setting = setting_of(
        model=model, n_layers=48, place=Place("mlp", 14, window, SUBJECT), layers=(0, 14, 30), confirmation=tuple(facts)
    )
    rows = [{"id": name, "mlp": a_map(mlp, total), "state": a_map(state, total)} for name in facts]
    return list(EXPERIMENTS["references"].conclude(setting, facts, {"tracing": rows}))


def test_published_values_that_are_found_again_make_a_reference() -> None:
    (found,) = references("gpt2-xl", 0.19, 0.09, 0.06)
    assert found.estimate.value == 1
    assert found.estimate.n == 3  # attention was not traced
    assert "attn was not traced" in found.note
    assert found.data["compared"][1]["layer"] == 14  # the nearest to the published 15


def test_published_values_that_are_not_found_again_fail() -> None:
    (found,) = references("gpt2-xl", 0.19, 0.03, 0.06)
    assert found.estimate.value == pytest.approx(2 / 3)
    assert status("M5", [found]) is Status.FAIL


def test_another_window_is_not_the_published_instrument() -> None:
    (found,) = references("gpt2-xl", 0.19, 0.09, 0.5, window=3)
    assert found.estimate.n == 2
    assert "the window is 3, not 10" in found.note


def test_a_model_of_which_nothing_is_published_has_no_reference_and_the_calibration_says_so() -> None:
    assert references("world", 0.19, 0.09, 0.06) == []
    assert published("world") is None
    (calibration,) = [
        one for one in EXPERIMENTS["instruments"].conclude(setting_of(), {}, {}) if one.endpoint == "calibration"
    ]
    assert "no published value of this model is known" in calibration.note
