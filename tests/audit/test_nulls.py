"""The null audit: empty claims must fail, a pipeline that passes everything must be caught, and nothing is measured again."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from palimpsest.audit.claim import read_claim
from palimpsest.audit.evidence import Control, Evidence
from palimpsest.audit.nulls import dealt, null_audit, null_claims, other_layers
from palimpsest.audit.rules import read_rules
from palimpsest.audit.setting import Place, Setting
from palimpsest.errors import InputError, SettingError
from palimpsest.facts import Fact
from palimpsest.runs.json_text import plain
from palimpsest.statistics import Estimate, cluster_bootstrap

RULES, CLAIM = read_rules(), read_claim("rome-2022")
LAYERS = tuple(range(8))
FACTS = {
    name: Fact(subject=name, prompt="{} lives in", target_true="Rome", target_new="Oslo", id=name, relation=f"r{i % 4}")
    for i, name in enumerate(f"f{i}" for i in range(20))
}
SETTING = Setting("made", "w" * 64, 8, Place("mlp", 3, 3), LAYERS, (), tuple(FACTS))


class Lesions:
    """Lesions with a known answer: layer 3 matters, and nothing else; or, for a lenient pipeline, everything passes."""

    name, criteria, needs = "lesion", ("I1",), ()

    def __init__(self, lenient: bool = False) -> None:
        self.lenient = lenient
        self.asked: list[int] = []

    def conclude(
        self, setting: Setting, facts: Mapping[str, Fact], rows: Mapping[str, Sequence[Mapping]]
    ) -> list[Evidence]:
        self.asked.append(setting.place.centre)
        used = [row for row in rows["lesion"] if row["id"] in setting.confirmation]
        values = [1.0 if self.lenient else row["effect"][setting.place.centre] for row in used]
        clusters = [(facts[row["id"]].relation, facts[row["id"]].subject) for row in used]
        estimate = cluster_bootstrap(values, clusters, resamples=200)
        control = Control("N1", Estimate(0, 0, 0, 1, 1))
        return [
            Evidence(self.name, f"lesion-{by}", ("I1",), "causal", "interventional", estimate, (control,))
            for by in ("mean", "resample")
        ]


def rows(seed: int = 0) -> dict[str, list[dict]]:
    generator = np.random.default_rng(seed)
    noise = generator.normal(0, 0.05, (len(FACTS), 8))
    noise[:, 3] += 0.6
    return {"lesion": [{"id": name, "effect": noise[i].tolist(), "word": name} for i, name in enumerate(FACTS)]}


def audited(one, given=None, draws: int = 20, untrained=None, **options):
    return null_audit(
        SETTING,
        FACTS,
        given or rows(),
        CLAIM,
        RULES,
        draws=draws,
        seed=0,
        experiments={"lesion": one},
        untrained=untrained,
        **options,
    )


def test_claims_about_other_layers_do_not_pass_and_the_true_one_is_never_asked():
    one = Lesions()
    nulls = audited(one)
    assert [(rate.criterion, rate.kind, rate.passed, rate.of) for rate in nulls.criteria] == [("I1", "layers", 0, 10)]
    assert set(one.asked) <= set(other_layers(SETTING)) == {0, 6, 7}
    assert nulls.severity is not None
    assert nulls.severity.value == 1.0
    assert nulls.evidence[0].endpoint == "severity"


def test_a_pipeline_that_passes_everything_is_caught():
    nulls = audited(Lesions(lenient=True), untrained=rows(1))
    assert {(rate.kind, rate.passed == rate.of) for rate in nulls.criteria} == {("layers", True), ("untrained", True)}
    assert nulls.severity is not None
    assert nulls.severity.value == 0.0
    assert nulls.severity.high < 0.5


def test_criteria_that_are_computed_from_the_claim_stand_apart():
    nulls = audited(Lesions())
    assert nulls.procedural == ("C1", "V1", "V2", "V3", "V5", "M7")
    assert "I1" not in nulls.unmatched
    assert "E2" in nulls.unmatched


def test_the_same_seed_draws_the_same_claims():
    assert plain(audited(Lesions()).to_json()) == plain(audited(Lesions()).to_json())


def test_layers_are_asked_once_each_before_any_is_asked_again_with_fewer_facts():
    made = null_claims(SETTING, 25, np.random.default_rng(3), with_untrained=True)
    layers = [one for one in made if one.kind == "layers"]
    assert {one.centre for one in layers[:3]} == {0, 6, 7}
    assert all(len(one.facts) == 20 for one in layers[:3])
    assert all(len(one.facts) == 16 for one in layers[3:])
    assert [sum(one.kind == kind for one in made) for kind in ("layers", "untrained", "facts")] == [10, 5, 10]


def test_a_window_that_reaches_everywhere_leaves_the_other_centres():
    setting = Setting("made", "w", 4, Place("mlp", 1, 9), (0, 1, 2, 3), (), ("f0",))
    assert other_layers(setting) == [0, 2, 3]


def test_dealing_keeps_every_number_somewhere_and_every_name_in_its_place():
    given = rows()["lesion"]
    got = dealt(given, np.random.default_rng(0))
    assert [row["id"] for row in got] == [row["word"] for row in got] == list(FACTS)
    for layer in range(8):
        before, after = ([row["effect"][layer] for row in of] for of in (given, got))
        assert sorted(before) == sorted(after)
        assert before != after
    # two numbers of one fact no longer go together
    together = np.corrcoef(*np.array([[row["effect"][3], row["effect"][3]] for row in given]).T)[0, 1]
    twice = [{"id": row["id"], "a": row["effect"][3], "b": row["effect"][3]} for row in given]
    apart = dealt(twice, np.random.default_rng(1))
    assert together > 0.99
    assert abs(np.corrcoef([row["a"] for row in apart], [row["b"] for row in apart])[0, 1]) < 0.6


def test_what_has_no_counterpart_in_other_rows_stays():
    given = [{"id": "a", "x": [1, 2], "only": 5}, {"id": "b", "x": [3]}]
    assert dealt(given, np.random.default_rng(0)) == given


def test_an_experiment_without_an_answer_is_named_and_costs_no_pass():
    class Silent(Lesions):
        def conclude(self, setting, facts, rows):
            raise InputError("too few facts")

    nulls = audited(Silent())
    assert nulls.failed == ("lesion has no answer to a claim of the kind layers: too few facts",)
    assert nulls.criteria == ()
    assert nulls.severity is None
    assert nulls.evidence == ()


def test_no_draws_are_refused():
    with pytest.raises(SettingError, match="at least one draw, got 0"):
        audited(Lesions(), draws=0)
