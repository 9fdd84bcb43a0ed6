"""The two designs of a probe and its control task: who is trained on and who is tested, on states that are already there.

    new subjects    folds of subjects: a test subject is in training in none of its wordings
    new wordings    folds of wordings: a test subject is in training in all its other wordings
    control task    each subject with a random answer from the same distribution (Hewitt and Liang 2019, section 2)

Nothing here knows of models; `palimpsest.locate.reading.probes` says what each design is for.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

ITERATIONS = 1000


def deal_folds(subjects: Sequence[str], labels: Sequence[str], folds: int, *, seed: int) -> Int[np.ndarray, "records"]:
    """The fold of each record: all records of a subject in one, and the subjects of a label dealt out one by one.

    Every label of two subjects or more then stands in the training part of every fold.
    """
    label_of = dict(zip(subjects, labels, strict=True))
    generator = np.random.default_rng([seed, 0])
    fold_of: dict[str, int] = {}
    for label in sorted(set(labels)):
        own = sorted(subject for subject in label_of if label_of[subject] == label)
        for i in generator.permutation(len(own)):
            fold_of[own[i]] = len(fold_of) % folds
    return np.array([fold_of[subject] for subject in subjects])


def control_labels(subjects: Sequence[str], labels: Sequence[str], *, seed: int, number: int = 0) -> tuple[str, ...]:
    """The labels of subjects permuted among subjects, so that their distribution stays exactly the same.

    Depends on the seed, the number and who has which label, not on the order of records.
    """
    label_of = dict(zip(subjects, labels, strict=True))
    names = sorted(label_of)
    drawn = np.random.default_rng([seed, 1, number]).permutation(len(names))
    fake = {name: label_of[names[i]] for name, i in zip(names, drawn, strict=True)}
    return tuple(fake[subject] for subject in subjects)


def new_subjects(
    states: Float[np.ndarray, "records width"],
    labels: Sequence[str],
    subjects: Sequence[str],
    *,
    folds: int = 5,
    strength: float = 1.0,
    seed: int = 0,
) -> Float[np.ndarray, "records"]:
    """Per record, whether a probe trained on other subjects is right."""
    fold, answers = deal_folds(subjects, labels, folds, seed=seed), np.array(labels)
    right = np.zeros(len(answers))
    for one in np.unique(fold):
        test = fold == one
        right[test] = _predict(states[~test], answers[~test], states[test], strength) == answers[test]
    return right


def new_wordings(
    states: Float[np.ndarray, "records width"],
    labels: Sequence[str],
    subjects: Sequence[str],
    wordings: Sequence[int],
    *,
    strength: float = 1.0,
) -> Float[np.ndarray, "records"]:
    """Per record, whether a probe trained on the other wordings is right; NaN where its subject has no other wording."""
    answers, names, places = np.array(labels), np.array(subjects), np.array(wordings)
    right = np.full(len(answers), np.nan)
    for wording in np.unique(places):
        train = places != wording
        test = ~train & np.isin(names, names[train])
        if test.any():
            right[test] = _predict(states[train], answers[train], states[test], strength) == answers[test]
    return right


def _predict(train: np.ndarray, answers: np.ndarray, test: np.ndarray, strength: float) -> np.ndarray:
    """What a probe trained on `train` says of `test`."""
    if len(set(answers)) == 1:
        return np.repeat(answers[:1], len(test))
    from sklearn.linear_model import LogisticRegression  # half a second to import

    centre, spread = train.mean(axis=0), train.std(axis=0)
    spread[spread < 1e-9 * max(float(spread.max()), 1e-300)] = 1.0
    z, z_test = (train - centre) / spread, (test - centre) / spread
    # the best W lies in the span of the training states, so an orthonormal basis of it loses nothing and is smaller
    if len(z) < z.shape[1]:
        basis = np.linalg.qr(z.T)[0]
        z, z_test = z @ basis, z_test @ basis
    return LogisticRegression(C=strength, max_iter=ITERATIONS).fit(z, answers).predict(z_test)
