"""Probes against scikit-learn and a Gaussian written out, on planted states and on a tiny model."""

import numpy as np
import pytest
import torch

import palimpsest as pal
from oracles.residue import pair_of, world_pairs
from oracles.small import model_of
from palimpsest.erase.residue.pair import NEVER_KNOWN, SAME_ANSWER
from palimpsest.erase.residue.probes import Discriminant, Probes, states_at
from palimpsest.errors import InputError, SettingError, WeightError
from palimpsest.facts import Fact
from palimpsest.model.unchanged import hooks_of, modes_of, same_weights, weights_of
from palimpsest.statistics.ranking import auroc

WORDS = (
    "Paris",
    "Japan",
    "Kyoto",
    "Boston",
    "Apple",
    "Berlin",
    "Zürich",
    "Seattle",
    "France",
    "Germany",
    "Tokyo",
    "Rome",
)
WORDS += ("Swiss", "Madrid", "Louvre", "Prado")
CAPITALS = ("Oslo", "Lima", "Cairo")
POOL = tuple(
    Fact(word, "The friend of {} lives in", CAPITALS[i % 3], id=word, relation="friend") for i, word in enumerate(WORDS)
)
PAIRS = [
    pair_of(POOL[0], "Oslo", ("Lima", "Cairo")),
    pair_of(POOL[4], "Oslo", ("Lima", "Cairo"), SAME_ANSWER, POOL[0].id),
    pair_of(Fact("Nobody", "The friend of {} lives in", "Oslo", relation="friend"), "Oslo", ("Cairo",), NEVER_KNOWN),
]


def planted(seed: int = 0, *, each: int = 6, width: int = 8) -> tuple[np.ndarray, list[str]]:
    draw = np.random.default_rng(seed)
    labels = [answer for answer in CAPITALS for _ in range(each)]
    means = dict(zip(CAPITALS, draw.normal(size=(3, width)), strict=True))
    return np.stack([means[label] + 0.5 * draw.normal(size=width) for label in labels]), labels


@pytest.mark.parametrize("shrinkage", [0.1, 0.9, 1.0])
def test_the_advantage_is_the_log_odds_of_gaussians(shrinkage: float) -> None:
    states, labels = planted()
    means = {c: states[[label == c for label in labels]].mean(axis=0) for c in CAPITALS}
    within = np.zeros((8, 8))
    for state, label in zip(states, labels, strict=True):
        within += np.outer(state - means[label], state - means[label]) / (len(states) - 3)
    cov = (1 - shrinkage) * within + shrinkage * np.trace(within) / 8 * np.eye(8)
    state = np.random.default_rng(5).normal(size=8)
    log = {c: -0.5 * (state - means[c]) @ np.linalg.inv(cov) @ (state - means[c]) for c in CAPITALS}
    found = Discriminant.of(states, labels, shrinkage).advantage(state, "Oslo", ("Lima", "Cairo"))
    assert found == pytest.approx(log["Oslo"] - (log["Lima"] + log["Cairo"]) / 2, rel=1e-9)


def test_unshrunk_it_decides_as_scikit_learns_discriminant() -> None:
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    states, labels = planted(each=12)
    theirs = LinearDiscriminantAnalysis(solver="lsqr", priors=[1 / 3] * 3).fit(states, labels)
    own = Discriminant.of(states, labels, 1e-9)
    for state in np.random.default_rng(1).normal(size=(5, 8)):
        decision = dict(zip(theirs.classes_, theirs.decision_function(state[None])[0], strict=True))
        # theirs divides the scatter by n, ours by n minus the number of answers
        odds = (decision["Oslo"] - decision["Lima"]) * (len(states) - 3) / len(states)
        assert own.advantage(state, "Oslo", ("Lima",)) == pytest.approx(odds, rel=1e-4)


def test_the_advantage_of_what_was_never_met_is_nan_and_unknown_others_are_left_out() -> None:
    own = Discriminant.of(*planted(), 0.9)
    state = np.zeros(8)
    assert np.isnan(own.advantage(state, "Quito", ("Oslo",)))
    assert np.isnan(own.advantage(state, "Oslo", ("Quito",)))
    assert own.advantage(state, "Oslo", ("Lima", "Quito")) == own.advantage(state, "Oslo", ("Lima",))
    lonely = Discriminant.of(np.eye(3, 8), list(CAPITALS), 0.9)  # one subject an answer: the nearest is the likeliest
    assert lonely.advantage(np.eye(3, 8)[0], "Oslo", ("Lima", "Cairo")) > 0


def test_states_are_those_the_network_gives() -> None:
    model = model_of("gpt2", dtype=torch.float64)
    found = states_at(model, POOL[:5], ("subject_last", "last"), (0, 1))
    for fact, own in zip(POOL[:5], found, strict=True):
        encoded = model.encode(fact.text)
        at = encoded.tokens_of(*fact.subject_span)[-1]
        with torch.no_grad():
            hidden = model.net(input_ids=torch.tensor([encoded.ids]), output_hidden_states=True).hidden_states
        for layer in (0, 1):
            for token, place in enumerate((at, -1)):
                np.testing.assert_allclose(own[token, layer], hidden[layer + 1][0, place].numpy(), atol=1e-9)


def test_no_probe_has_met_the_subject_it_reads_nor_the_edited_subject_of_a_control() -> None:
    model = model_of("gpt2", dtype=torch.float64)
    readout = Probes(POOL, layers=(1,), tokens=("last",), folds=4)
    reader = readout.fit(model, PAIRS)
    plain = reader.read(model, PAIRS).scores
    kept_out = reader.of["friend"].out
    first = [sorted(kept_out[pair.fact.subject, pair.answer, pair.of]) for pair in PAIRS]
    assert all(len(two) == 2 for two in first)
    assert set(first[0]) & set(first[1])
    dealt = dict(zip((fact.subject for fact in POOL), _folds(readout, POOL), strict=True))
    assert dealt[POOL[0].subject] in set(first[0]) & set(first[1])
    assert dealt[POOL[4].subject] in first[1]
    states = states_at(model, POOL, ("last",), (1,))[:, 0, 0]
    for pair, two, score in zip(PAIRS, first, plain[:, 0], strict=True):
        kept = [i for i, fact in enumerate(POOL) if dealt[fact.subject] not in two]
        assert pair.fact.subject not in [POOL[i].subject for i in kept]
        by_hand = Discriminant.of(states[kept], [str(POOL[i].target_true) for i in kept], 0.9)
        state = states_at(model, [pair.fact], ("last",), (1,))[0, 0, 0]
        assert score == pytest.approx(by_hand.advantage(state, pair.answer, pair.others), rel=1e-9)


def _folds(readout: Probes, facts: tuple[Fact, ...]) -> list[int]:
    from palimpsest.locate.reading.probe_designs import deal_folds

    subjects, labels = [fact.subject for fact in facts], [str(fact.target_true) for fact in facts]
    return [int(one) for one in deal_folds(subjects, labels, readout.folds, seed=readout.seed)]


def test_the_control_task_permutes_the_answers_among_subjects() -> None:
    model = model_of("gpt2")
    task, control = (Probes(POOL, layers=(1,), shuffled=shuffled) for shuffled in (False, True))
    tables = [readout.fit(model, PAIRS).read(model, PAIRS) for readout in (task, control)]
    assert {column.readout for column in tables[0].columns} == {"probe"}
    assert {column.readout for column in tables[1].columns} == {"probe control"}
    assert [(c.path, c.layer) for c in tables[0].columns] == [("subject last", 1), ("last", 1)]
    assert not np.allclose(tables[0].scores, tables[1].scores)


def test_a_subset_is_read_as_in_the_whole_and_the_model_comes_out_as_it_went_in() -> None:
    model = model_of("llama")
    before = weights_of(model), hooks_of(model), modes_of(model)
    reader = Probes(POOL).fit(model, PAIRS)
    whole = reader.read(model, PAIRS)
    np.testing.assert_allclose(reader.read(model, PAIRS[1:]).scores, whole.scores[1:], rtol=1e-3)
    assert same_weights(model, before[0]) == ""
    assert (hooks_of(model), modes_of(model)) == before[1:]
    assert len({column.layer for column in whole.columns}) == model.n_layers  # three layers, and four were asked for


def test_bad_pools_settings_and_states() -> None:
    model = model_of("gpt2")
    with pytest.raises(InputError, match="needs facts of 14 subjects, but the pool has 9; give 5 more"):
        Probes(POOL[:9]).fit(model, PAIRS)
    with pytest.raises(InputError, match="needs two of them, but the pool has 1 for 'friend'"):
        Probes(POOL[::3]).fit(model, PAIRS)
    left = Probes(POOL[:9], few="leave").fit(model, PAIRS).read(model, PAIRS)
    assert np.isnan(left.scores).all()
    assert len(left.columns) == 6
    with pytest.raises(InputError, match="No probe was fitted for the subject 'Boston'"):
        Probes(POOL).fit(model, PAIRS).read(model, [pair_of(POOL[3], "Oslo", ("Lima",))])
    with pytest.raises(SettingError, match="no token 'subject_lsat'.*Did you mean 'subject_last'"):
        Probes(POOL, tokens=("subject_lsat",))
    with pytest.raises(SettingError, match="at least one token and one layer"):
        Probes(POOL, layers=())
    with pytest.raises(SettingError, match="folds must be a whole number of 3 or more, got 2"):
        Probes(POOL, folds=2)
    with pytest.raises(SettingError, match="shrinkage must be above 0"):
        Probes(POOL, shrinkage=0.0)
    with pytest.raises(SettingError, match="few is 'refuse' or 'leave'"):
        Probes(POOL, few="drop")
    model.net.get_submodule("transformer.h.0.mlp.c_proj").bias.data[0] = float("nan")
    with pytest.raises(WeightError, match="residual stream of .* is not finite"):
        Probes(POOL).fit(model, PAIRS)


def test_in_the_world_a_known_answer_stands_far_above_the_controls_and_the_control_task_tells_nothing() -> None:
    model = pal.load("world")
    pool, pairs = world_pairs(40)
    areas = {}
    for shuffled in (False, True):
        table = Probes(pool, layers=(7,), tokens=("last",), shuffled=shuffled).fit(model, pairs).read(model, pairs)
        for control in (SAME_ANSWER, NEVER_KNOWN):
            kept = [
                i
                for i, pair in enumerate(pairs)
                if pair.group in ("edited", control) and np.isfinite(table.scores[i, 0])
            ]
            areas[shuffled, control] = auroc(table.scores[kept, 0], [float(pairs[i].group == "edited") for i in kept])
    assert min(areas[False, SAME_ANSWER], areas[False, NEVER_KNOWN]) > 0.9
    assert max(abs(areas[True, control] - 0.5) for control in (SAME_ANSWER, NEVER_KNOWN)) < 0.25
