"""Probes on planted and on random states, their designs, and what must hold of any probe."""

import json
from typing import Any

import numpy as np
import pytest
import torch

from oracles.small import EIFFEL, JAPAN, model_of
from palimpsest.errors import InputError, SettingError
from palimpsest.facts import Fact
from palimpsest.locate.reading import probe_designs
from palimpsest.locate.reading import probes as probes_file
from palimpsest.locate.reading.probe_designs import control_labels, deal_folds, new_subjects, new_wordings
from palimpsest.locate.reading.probes import Probes, probe
from palimpsest.model import Model, Site

WORDS = ("Paris", "Japan", "Kyoto", "Boston", "Apple", "Berlin", "Zürich", "Seattle", "France", "Germany")
FACTS = tuple(
    Fact(
        word,
        "The capital of {} is",
        ("Tokyo", "Rome")[i % 2],
        id=word,
        relation="capital",
        paraphrases=(f"Located in {word} is", f"Who owned {word}?", f"{word} is"),
    )
    for i, word in enumerate(WORDS)
)
SETTINGS: dict[str, Any] = {"gate": "all", "controls": 2, "permutations": 3}


@pytest.fixture(scope="module")
def gpt2() -> Model:
    return model_of("gpt2")


@pytest.fixture(scope="module")
def found(gpt2: Model) -> Probes:
    return probe(gpt2, FACTS, **SETTINGS)


def planted(
    *, label: float, subject: float, n_subjects: int = 40, n_labels: int = 4, width: int = 64, seed: int = 0
) -> tuple[np.ndarray, list[str], list[str], list[int]]:
    """States = label direction + subject direction + noise: (states, labels, subjects, wordings)."""
    generator = np.random.default_rng(seed)
    of_label, of_subject = generator.normal(size=(n_labels, width)), generator.normal(size=(n_subjects, width))
    rows = [(s, w) for s in range(n_subjects) for w in range(3)]
    states = np.stack([label * of_label[s % n_labels] + subject * of_subject[s] for s, _ in rows])
    states += 0.3 * generator.normal(size=states.shape)
    return states, [f"l{s % n_labels}" for s, _ in rows], [f"s{s}" for s, _ in rows], [w for _, w in rows]


def test_a_planted_label_is_found_in_new_subjects() -> None:
    states, labels, subjects, _ = planted(label=1.0, subject=0.5)
    assert new_subjects(states, labels, subjects).mean() > 0.95


def test_states_that_know_the_subject_alone_give_chance_on_new_subjects_and_no_selectivity() -> None:
    """The trap that both controls are there for: new wordings are all right, and nothing of the label is in the states."""
    states, labels, subjects, wordings = planted(label=0.0, subject=1.0)
    assert new_subjects(states, labels, subjects).mean() < 0.45
    task = new_wordings(states, labels, subjects, wordings).mean()
    control = new_wordings(states, control_labels(subjects, labels, seed=0), subjects, wordings).mean()
    assert task > 0.95
    assert control > 0.95


def test_states_that_know_the_label_alone_are_selective() -> None:
    states, labels, subjects, wordings = planted(label=1.0, subject=0.0)
    task = new_wordings(states, labels, subjects, wordings).mean()
    control = new_wordings(states, control_labels(subjects, labels, seed=0), subjects, wordings).mean()
    assert task > 0.95
    assert control < 0.6


def test_random_states_give_chance() -> None:
    accuracy = [new_subjects(*planted(label=0.0, subject=0.0, seed=seed)[:3]).mean() for seed in range(4)]
    assert 0.1 < np.mean(accuracy) < 0.35


def test_no_subject_stands_in_two_folds_and_every_label_in_every_training_part() -> None:
    _, labels, subjects, _ = planted(label=1.0, subject=1.0, n_subjects=11, n_labels=5)
    for folds in (2, 3, 5, 20):
        fold = deal_folds(subjects, labels, folds, seed=3)
        for subject in set(subjects):
            assert len({f for f, s in zip(fold, subjects, strict=True) if s == subject}) == 1
        for one in set(fold):
            assert {l for f, l in zip(fold, labels, strict=True) if f != one} == set(labels)


def test_the_probe_is_never_trained_on_what_it_is_tested_on(monkeypatch: pytest.MonkeyPatch) -> None:
    states, labels, subjects, wordings = planted(label=1.0, subject=1.0, n_subjects=8)
    calls = []

    def spy(train: np.ndarray, answers: np.ndarray, test: np.ndarray, strength: float) -> np.ndarray:
        calls.append((train, test))
        return np.repeat(answers[:1], len(test))

    monkeypatch.setattr(probe_designs, "_predict", spy)
    place = {row.tobytes(): i for i, row in enumerate(states)}
    new_subjects(states, labels, subjects)
    tested = []
    for train, test in calls:
        ours, theirs = [place[row.tobytes()] for row in test], [place[row.tobytes()] for row in train]
        assert not {subjects[i] for i in ours} & {subjects[i] for i in theirs}
        tested += ours
    assert sorted(tested) == list(range(len(states)))
    calls.clear()
    new_wordings(states, labels, subjects, wordings)
    for train, test in calls:
        ours, theirs = [place[row.tobytes()] for row in test], [place[row.tobytes()] for row in train]
        assert not {wordings[i] for i in ours} & {wordings[i] for i in theirs}
        assert {subjects[i] for i in ours} <= {subjects[i] for i in theirs}


def test_control_labels_are_the_same_labels_dealt_anew_and_fixed_by_the_seed() -> None:
    _, labels, subjects, _ = planted(label=1.0, subject=1.0)
    fake = control_labels(subjects, labels, seed=1)
    assert fake == control_labels(subjects, labels, seed=1)
    assert sorted(fake) == sorted(labels)
    assert len(set(zip(subjects, fake, strict=True))) == len(set(subjects))
    assert fake != control_labels(subjects, labels, seed=2)
    assert fake != control_labels(subjects, labels, seed=1, number=1)
    backwards = control_labels(subjects[::-1], labels[::-1], seed=1)
    assert backwards == fake[::-1]


def test_a_record_without_another_wording_is_not_tested() -> None:
    states, labels, subjects, wordings = planted(label=1.0, subject=1.0, n_subjects=8)
    subjects[0] = "alone"
    right = new_wordings(states, labels, subjects, wordings)
    assert np.isnan(right[0])
    assert np.isfinite(right[1:]).all()


def test_the_smaller_basis_changes_no_prediction() -> None:
    from sklearn.linear_model import LogisticRegression

    states, labels, _, _ = planted(label=0.4, subject=1.0, width=200)
    train, test, answers = states[:60], states[60:], np.array(labels[:60])
    z, z_test = ((x - train.mean(0)) / train.std(0) for x in (train, test))
    plain = LogisticRegression(max_iter=5000, tol=1e-8).fit(z, answers).predict(z_test)
    assert (probe_designs._predict(train, answers, test, 1.0) == plain).mean() > 0.97


def test_states_are_those_of_the_subjects_last_token(gpt2: Model) -> None:
    records, failures = probes_file._records(gpt2, FACTS[:3], "subject_last")
    assert not failures
    states = probes_file._states(gpt2, [(r[3], r[4]) for r in records], "resid_out", [0, 2])
    for (subject, _, number, *_), state in zip(records, states, strict=True):
        fact = next(f for f in FACTS if f.subject == subject)
        wording = fact.wordings[number]
        encoded = gpt2.encode(wording)
        start = wording.index(subject)
        place = encoded.tokens_of(start, start + len(subject))[-1]
        for column, layer in enumerate((0, 2)):
            site = Site("resid_out", layer)
            batch = probes_file.pad([encoded.ids])
            np.testing.assert_allclose(state[column], gpt2.record(batch, [site])[site][0, place], rtol=0, atol=1e-5)


def test_a_planted_direction_is_found_in_the_layer_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("gpt2")
    theirs = probes_file._states

    def planting(model: Model, rows: Any, kind: str, layers: Any) -> np.ndarray:
        states = theirs(model, rows, kind, layers)
        generator = np.random.default_rng(0)
        direction = {"Tokyo": generator.normal(size=32), "Rome": generator.normal(size=32)}
        for i, (_, label, *_) in enumerate(probes_file._records(model, FACTS, "subject_last")[0]):
            states[i, 1] += 20 * direction[label]
        return states

    monkeypatch.setattr(probes_file, "_states", planting)
    found = probe(model, FACTS, **(SETTINGS | {"permutations": 19}))
    assert found.held_out(1).value == 1
    assert found.p_value(1) < 0.2
    assert found.held_out(0).value < 0.9
    assert found.above_majority(1).low > 0


def test_counts_and_baselines(found: Probes) -> None:
    assert found.layers == (0, 1, 2)
    assert len(set(found.subjects)) == 10
    assert found.majority().value == pytest.approx(0.5, abs=0.1)
    assert found.permuted.shape == (3, 3)
    assert found.selectivity(1).value == pytest.approx(found.task(1).value - found.control(1).value)
    assert found.held_out(0).clusters == 10


def test_with_one_wording_there_is_no_selectivity_but_new_subjects_are_tested(gpt2: Model) -> None:
    single = [Fact(f.subject, f.prompt, f.target_true, id=f.id, relation=f.relation) for f in FACTS]
    found = probe(gpt2, single, layers=[1], **SETTINGS)
    assert found.selectivity(1).n == found.task(1).n == found.control(1).n == 0
    assert found.held_out(1).n == 10
    json.dumps(found.to_json(), allow_nan=False)


def test_states_that_are_the_same_count_once(gpt2: Model) -> None:
    twice = [
        Fact(**(f.to_json() | {"paraphrases": (f"The capital of {f.subject} was", f"{f.subject} is")})) for f in FACTS
    ]
    assert set(probe(gpt2, twice, layers=[0], **SETTINGS).wordings) == {0, 2}
    assert set(probe(gpt2, twice, layers=[0], token="last", **SETTINGS).wordings) == {0, 1, 2}


def test_what_cannot_be_probed_is_kept_apart_with_its_reason(gpt2: Model) -> None:
    lonely = Fact("Eiffel Tower", "The capital of {} is", "Swiss", id="lonely", relation="capital")
    nothing = Fact("Antarctica", "The capital of {} is", id="nothing", relation="capital")
    absent = Fact(
        "Space Needle", "The capital of {} is", "Rome", id="absent", relation="capital", paraphrases=("It is",)
    )
    both = [Fact("Xi'an", "The capital of {} is", a, id=f"both {a}", relation="capital") for a in ("Rome", "Tokyo")]
    found = probe(gpt2, [*FACTS, lonely, nothing, absent, *both], layers=[0], **SETTINGS)
    assert dict(found.apart) == {
        "lonely": "no other subject here has its answer",
        "both Rome": "its subject has several answers here",
        "both Tokyo": "its subject has several answers here",
    }
    assert [fact for fact, _ in found.failures] == ["nothing", "absent"]
    assert "is not in the wording 'It is'" in found.failures[1][1]
    assert "Space Needle" in found.subjects


def test_only_known_facts_are_probed_by_default(gpt2: Model) -> None:
    with pytest.raises(InputError, match="10 are kept apart"):
        probe(gpt2, FACTS)


def test_the_same_seed_gives_the_same_result_and_the_model_is_left_as_it_was(found: Probes) -> None:
    model = model_of("gpt2")
    model.net.train()
    before = model.fingerprint()
    again = probe(model, FACTS, **SETTINGS)
    np.testing.assert_array_equal(again.right_subject, found.right_subject)
    np.testing.assert_array_equal(again.permuted, found.permuted)
    assert model.net.training
    assert model.fingerprint() == before
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.net.modules())
    assert not np.array_equal(probe(model, FACTS, **SETTINGS, seed=1).permuted, found.permuted)


@pytest.mark.parametrize("kind", ["attn_out", "key", "value", "mlp_out", "resid_in"])
def test_every_kind_of_site_can_be_probed(gpt2: Model, kind: str) -> None:
    assert 0 <= probe(gpt2, FACTS, kind=kind, layers=[1], **SETTINGS).held_out(1).value <= 1


def test_half_precision_is_probed_in_float64() -> None:
    model = model_of("llama", dtype=torch.bfloat16)
    states = probes_file._states(model, [(model.encode(EIFFEL.text).ids, 2)], "resid_out", [0])
    assert states.dtype == np.float64


def test_a_probe_is_written_whole_and_plots(found: Probes, tmp_path: Any) -> None:
    found.save(str(tmp_path / "probe.json"))
    text = (tmp_path / "probe.json").read_text("utf-8")
    assert "NaN" not in text
    stored = json.loads(text)
    assert stored["labels"] == {"Tokyo": 5, "Rome": 5}
    assert len(stored["new_wordings"]["selectivity"]) == 3
    pytest.importorskip("matplotlib")
    found.plot()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"kind": "resid"}, "no site 'resid'"),
        ({"token": "lats"}, "no token 'lats'. Did you mean 'last'"),
        ({"gate": "eligible"}, "no gate 'eligible'"),
        ({"layers": []}, "at least one layer"),
        ({"layers": [3]}, "no layer 3"),
        ({"folds": 1}, "folds of 2 or more, got 1"),
        ({"controls": 0}, "controls of 1 or more"),
        ({"permutations": -1}, "permutations of 0 or more"),
        ({"strength": 0.0}, "strength above 0"),
    ],
)
def test_a_mistake_is_answered_with_one_sentence(gpt2: Model, settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SettingError, match=sentence):
        probe(gpt2, FACTS, **settings)


def test_facts_of_several_relations_are_refused(gpt2: Model, found: Probes) -> None:
    with pytest.raises(InputError, match="one relation, got 2"):
        probe(gpt2, [EIFFEL, JAPAN])
    with pytest.raises(InputError, match="one relation, got 0"):
        probe(gpt2, [])
    with pytest.raises(SettingError, match="Layer 7 was not probed"):
        found.held_out(7)
