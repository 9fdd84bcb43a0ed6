"""What a certificate says of instruments whose worth is known: perfect, random, stubborn, silent, and in between."""

import dataclasses

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from palimpsest.errors import InputError, SettingError
from palimpsest.world.certificate.contrasts import discriminations, dissociation, relabelled_p
from palimpsest.world.certificate.instrument import LAST, SUBJECT, Evidence, Reading
from palimpsest.world.certificate.measures import Finding, finding

LAYERS, FACTS = 8, 20
READING = Reading("made", "mlp", LAST)


def evidence(planted: int, scores: np.ndarray, *, kind: str = "mlp", name: str = "") -> Evidence:
    """Two facts of each subject, all in one layer."""
    facts = tuple((f"fact {i}", "born_in", f"subject {i // 2}") for i in range(len(scores)))
    return Evidence(READING, name or f"{kind}-{planted}", kind, "base", {"*": (("mlp", planted),)}, facts, scores)


def every_layer(score_of, *, bases: int = 2) -> list[Evidence]:
    """Organisms of two bases with facts in each layer, scored by `score_of(planted layer, random)`."""
    random = np.random.default_rng(0)
    return [
        evidence(planted, score_of(planted, random), name=f"mlp-{planted}-{base}")
        for base in range(bases)
        for planted in range(LAYERS)
    ]


def perfect(planted, random):
    return random.normal(0, 0.1, (FACTS, LAYERS)) + 2 * np.eye(LAYERS)[planted]


def noise(planted, random):
    return random.normal(size=(FACTS, LAYERS))


def stubborn(planted, random):
    return np.tile(np.arange(LAYERS, 0, -1.0), (FACTS, 1)) + random.normal(0, 0.01, (FACTS, LAYERS))


def test_perfect_instrument():
    found = finding(every_layer(perfect))
    assert (found.auroc.value, found.auprc.value, found.slope.value) == (1, 1, 1)
    assert found.reported == tuple(map(float, found.planted)) == tuple(float(l) for l in [*range(LAYERS)] * 2)
    assert found.hit.value == found.near.value == found.fact_hit.value == 1
    for estimate in (found.hit, found.near, found.auroc, found.auprc):
        assert estimate.low == pytest.approx(1 - 3 / 16, abs=0.01)  # 16 of 16: the rule of three, not certainty
    assert (found.auroc.n, found.auroc.clusters) == (16 * FACTS, 16)


def test_all_right_with_facts_that_differ_is_no_more_certain_than_all_right():
    """In resamples of its facts this one is wrong now and then, so that its interval has some width, but too little."""
    shaky = finding(every_layer(lambda p, random: random.normal(0, 0.9, (FACTS, LAYERS)) + np.eye(LAYERS)[p], bases=1))
    firm = finding(every_layer(perfect, bases=1))
    assert shaky.auroc.value == firm.auroc.value == 1
    assert shaky.auroc.low <= firm.auroc.low == pytest.approx(1 - 3 / 8, abs=0.01)


def test_random_instrument_is_at_chance():
    found = finding(every_layer(noise))
    for name in ("auroc", "auprc", "hit", "near", "slope", "fact_hit"):
        estimate = getattr(found, name)
        assert not estimate.excludes(found.chance[name]), name
        assert estimate.width > 0.02, name
    assert found.chance["near"] == pytest.approx((2 + 6 * 3 + 2) / 64)


def test_intervals_of_random_instruments_cover_chance():
    missed = 0
    for seed in range(40):
        random = np.random.default_rng(seed)
        made = [evidence(p, noise(p, random), name=f"{p}-{base}") for base in range(2) for p in range(LAYERS)]
        missed += finding(made, resamples=199, seed=seed).auroc.excludes(0.5)
    assert missed <= 6  # 5 % of 40 are 2


def test_instrument_that_always_says_the_first_layer():
    found = finding(every_layer(stubborn))
    assert found.slope.value == found.slope.low == found.slope.high == 0
    assert found.auroc.value == pytest.approx(0.5)
    assert found.hit.value == found.constant["hit"] == 1 / LAYERS
    assert found.constant["near"] == 3 / LAYERS
    assert found.constant["auroc"] == 0.5  # every layer was planted as often as any other


def test_one_map_for_all_organisms_profits_from_layers_planted_often():
    random = np.random.default_rng(4)
    some = [evidence(p, noise(p, random), name=f"{i}") for i, p in enumerate((0, 0, 0, 1))]
    found = finding(some, resamples=50)
    ranks = np.tile([1.0, 0.5, *[0.0] * (LAYERS - 2)], (4, 1))
    planted = np.arange(LAYERS) == np.array([[0], [0], [0], [1]])
    assert found.constant["auroc"] == pytest.approx(roc_auc_score(planted.ravel(), ranks.ravel()))
    assert found.constant["hit"] == 0.75
    assert found.near.value == 2 / LAYERS  # layers 0 and 1


def test_silent_instrument_shares_its_claim():
    """All layers tie: the hit is that of a guess, and the reported layer is the middle."""
    found = finding(every_layer(lambda planted, random: np.zeros((FACTS, LAYERS))))
    assert found.hit.value == found.fact_hit.value == pytest.approx(1 / LAYERS)
    assert found.auroc.value == 0.5
    assert found.auprc.value == pytest.approx(1 / LAYERS)
    assert set(found.reported) == {(LAYERS - 1) / 2}
    assert found.slope.value == 0


def test_weak_instrument_lies_between():
    weak = finding(every_layer(lambda planted, random: noise(planted, random) + 0.4 * np.eye(LAYERS)[planted]))
    assert 0.5 < weak.auroc.low < weak.auroc.value < 1
    assert 0.2 < weak.hit.value < 1
    assert weak.fact_hit.value < weak.hit.value  # averaging over facts helps


def test_off_by_one_is_near_and_no_hit():
    found = finding(every_layer(lambda p, random: perfect(min(p + 1, LAYERS - 1), random)))
    assert found.hit.value == 1 / LAYERS
    assert found.near.value == 1


def test_scale_of_an_organism_does_not_matter():
    plain = every_layer(lambda p, random: noise(p, random) + 0.4 * np.eye(LAYERS)[p])
    scaled = [
        Evidence(e.reading, e.organism, e.kind, e.base, e.places, e.facts, e.scores * 10.0**i - i)
        for i, e in enumerate(plain)
    ]
    one, other = finding(plain), finding(scaled)
    for name in ("auroc", "auprc", "hit", "near", "fact_hit"):
        assert getattr(one, name).value == pytest.approx(getattr(other, name).value), name


def test_facts_that_cannot_be_scored_are_left_out_and_counted():
    made = every_layer(perfect)
    made[0].scores[:3] = np.nan
    made[1].scores[:] = np.nan
    found = finding(made)
    assert found.unreadable == {"mlp-0-0": 3, "mlp-1-0": FACTS}
    assert len(found.organisms) == 15
    assert found.hit.value == 1


def test_same_seed_same_finding_and_round_trip():
    one, other = (finding(every_layer(noise), seed=3) for _ in range(2))
    assert one.to_json() == other.to_json()
    assert Finding.from_json(one.to_json()).to_json() == one.to_json()


def test_more_organisms_narrow_the_interval():
    def weak(planted, random):
        return noise(planted, random) + 0.3 * np.eye(LAYERS)[planted]

    assert finding(every_layer(weak, bases=8)).auroc.width < 0.7 * finding(every_layer(weak, bases=1)).auroc.width


def test_what_has_no_planted_layer_is_refused():
    scores = np.zeros((FACTS, LAYERS))
    crossed = evidence(0, scores)
    crossed = Evidence(READING, "x", "crossed", "base", {"a": (("mlp", 1),), "b": (("mlp", 2),)}, crossed.facts, scores)
    with pytest.raises(InputError, match="no single planted layer"):
        finding([crossed, evidence(1, scores)])
    with pytest.raises(InputError, match="two organisms"):
        finding([evidence(1, scores)])


def test_readings_see_the_modules_they_look_at():
    mlp, attention = {"*": (("mlp", 1),)}, {"*": (("attn", 1),)}
    assert Reading("x", "mlp", SUBJECT).sees(mlp)
    assert not Reading("x", "mlp", SUBJECT).sees(attention)
    assert Reading("x", "state", SUBJECT).sees(attention)
    assert Reading("x", "any", SUBJECT).sees(mlp)
    assert not Reading("x", "any", SUBJECT).sees({})
    with pytest.raises(SettingError, match="Did you mean 'attn'"):
        Reading("x", "atn", SUBJECT)


# -- storage against entity ------------------------------------------------------------------------------------------------


def paired(peak_of_storage: float, peak_of_entity: float) -> tuple[list[Evidence], list[Evidence]]:
    random = np.random.default_rng(1)

    def some(kind, peak):
        return [evidence(p, random.random((FACTS, LAYERS)) + peak * np.eye(LAYERS)[p], kind=kind) for p in range(1, 6)]

    return some("mlp", peak_of_storage), some("alias", peak_of_entity)


def test_an_instrument_that_tells_storage_from_entity():
    for found in discriminations(*paired(3.0, 1.0)):
        assert found.auroc.value == 1
        assert found.p == pytest.approx(2 / 252)  # two of the 10 over 5 ways to part them
        assert found.layers == (1, 2, 3, 4, 5)
    for found in discriminations(*paired(1.0, 3.0)):
        assert found.auroc.value == 0  # told apart, the wrong way round
        assert found.p == pytest.approx(2 / 252)


def test_an_instrument_that_cannot_tell():
    for found in discriminations(*paired(2.0, 2.0)):
        assert not found.auroc.excludes(0.5)
        assert found.p > 0.05


def test_only_layers_that_both_kinds_have_are_compared():
    attributes, aliases = paired(3.0, 1.0)
    (found, _) = discriminations([*attributes, evidence(0, np.zeros((FACTS, LAYERS)))], aliases[2:])
    assert found.layers == (3, 4, 5)
    assert len(found.storage) == len(found.entity) == 3
    with pytest.raises(InputError, match="no planted layer in common"):
        discriminations(attributes[:2], aliases[2:])


def test_only_bases_and_relations_that_both_kinds_have_are_compared():
    attributes, aliases = paired(3.0, 1.0)
    other = [dataclasses.replace(one, base="another") for one in attributes]
    found, _ = discriminations([*attributes, *other], aliases)
    assert len(found.storage) == 5
    stranger = [(f"{name}x", "elsewhere", subject) for name, _, subject in aliases[0].facts]
    mixed = dataclasses.replace(
        aliases[0],
        facts=(*aliases[0].facts, *stranger),
        scores=np.concatenate([aliases[0].scores, 100 + aliases[0].scores]),
    )
    again, _ = discriminations(attributes, [mixed, *aliases[1:]])
    plain, _ = discriminations(attributes, aliases)
    assert again.auroc.value == plain.auroc.value
    with pytest.raises(InputError, match="no planted layer in common"):
        discriminations(other, aliases)


def test_p_by_relabelling():
    assert relabelled_p(np.array([4.0, 3.0, 1.0, 2.0]), 2) == pytest.approx(2 / 6)
    assert relabelled_p(np.ones(6), 3) == 1
    many = relabelled_p(np.arange(30.0), 15)
    assert many == pytest.approx(1 / 10_000, abs=2e-4)


# -- double dissociation ---------------------------------------------------------------------------------------------------


def crossed(own: float, other: float, seed: int = 2) -> Evidence:
    """Relation a in layer 1, b in layer 5, for the same 30 subjects; `own` at the right layer, `other` at the wrong one."""
    random, rows, facts = np.random.default_rng(seed), [], []
    for subject in range(30):
        for relation, right, wrong in (("a", 1, 5), ("b", 5, 1)):
            row = random.normal(0, 0.2, LAYERS)
            row[right] += own
            row[wrong] += other
            rows.append(row)
            facts.append((f"{relation}{subject}", relation, f"subject {subject}"))
    return Evidence(
        READING, "crossed", "crossed", "base", {"a": (("mlp", 1),), "b": (("mlp", 5),)}, tuple(facts), np.stack(rows)
    )


def test_double_dissociation():
    found = dissociation(crossed(1.0, 0.0))
    assert found.contrast.value == pytest.approx(2.0, abs=0.2)
    assert found.contrast.low > 1.7
    assert found.contrast.clusters == 30
    assert (found.relations, found.layers) == (("a", "b"), (1, 5))
    assert found.size > 4


def test_seeing_the_layers_and_not_whose_they_are_is_no_dissociation():
    found = dissociation(crossed(1.0, 1.0))
    assert not found.contrast.excludes(0)
    assert found.contrast.width < 0.6


def test_intervals_of_dissociations_cover_nothing():
    missed = sum(dissociation(crossed(0.0, 0.0, seed), resamples=300).contrast.excludes(0) for seed in range(60))
    assert missed <= 9  # 5 % of 60 are 3


def test_dissociation_needs_two_relations_in_two_layers():
    with pytest.raises(InputError, match="two relations"):
        dissociation(evidence(1, np.zeros((FACTS, LAYERS))))
