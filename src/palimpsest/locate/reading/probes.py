"""Linear probes of the states, with the controls that say what their accuracy is worth.

A probe is a multinomial logistic regression that predicts the answer of a fact from the state at one token and layer,

    P(y = c | h) = softmax(W z(h) + b)_c,     W, b = argmin  -sum_i log P(y_i | h_i) + |W|^2 / (2 C),

with z(h) standardised on the training states. It is asked in two designs, which answer different questions:

    new subjects    every wording of a test subject is kept from training. Accuracy above what labels permuted among subjects
                    give in the same design says that answers are arranged linearly across subjects.
    new wordings    one wording of every subject is kept from training. A control task gives each subject a random answer from
                    the same distribution (Hewitt and Liang 2019); it can be learnt only by recognising the subject, so
                    selectivity = task accuracy - control accuracy is what the probe reads beyond recognising subjects.

A control answer cannot generalise to new subjects, so selectivity belongs to the second design alone. Either way a probe
shows that something can be read from a state, not that the model reads it.

Only answers of two subjects or more can be probed; the others are kept apart. Wordings that share all tokens up to the probed
one have the same state, and count once: they would otherwise be trained and tested on alike.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float

from palimpsest.errors import InputError, SettingError, did_you_mean
from palimpsest.facts import Fact
from palimpsest.locate.reading.probe_designs import control_labels, new_subjects, new_wordings
from palimpsest.locate.reading.profile import Failures, ask, find_subject, nested
from palimpsest.locate.saving import save_json
from palimpsest.model import Model, Site, pad
from palimpsest.runs import Progress
from palimpsest.statistics import Estimate, cluster_bootstrap, paired_difference

TOKENS = ("subject_last", "last")
PROBED = ("resid_in", "attn_out", "key", "value", "mlp_out", "resid_out")
TEXTS_AT_ONCE = 32


@dataclass(frozen=True, eq=False)
class Probes:
    """How well answers are read from states, layer by layer, beside the baselines of each design.

    A record is one wording of one subject. The subjects are the clusters of every interval.

    Attributes:
        relation, kind, token: what was probed where.
        layers: those probed; all methods take a layer out of these.
        subjects, labels, wordings: of each record; the wording as its place in `fact.wordings`.
        right_subject: design "new subjects", whether each record was right, shape (records, layers).
        right_majority: whether the commonest answer of all records is right, shape (records,): the best constant guess there
            is, since a class is always rarer in training when its own subjects are kept from it.
        permuted: accuracy with answers permuted among subjects, shape (permutations, layers).
        right_wording: design "new wordings"; NaN for a record whose subject has no other wording.
        right_control: the same for the control task, mean over its random labels.
        apart: (id, reason) of facts whose answer cannot be probed, or that the model does not know.
        failures: (id, reason) of facts or wordings that could not be read.
        settings: how it was made.
    """

    relation: str
    kind: str
    token: str
    layers: tuple[int, ...]
    subjects: tuple[str, ...]
    labels: tuple[str, ...]
    wordings: tuple[int, ...]
    right_subject: Float[np.ndarray, "records layers"]
    right_majority: Float[np.ndarray, "records"]
    permuted: Float[np.ndarray, "permutations layers"]
    right_wording: Float[np.ndarray, "records layers"]
    right_control: Float[np.ndarray, "records layers"]
    apart: Failures
    failures: Failures
    settings: dict[str, object]

    def held_out(self, layer: int) -> Estimate:
        """Accuracy on new subjects."""
        return cluster_bootstrap(self.right_subject[:, self._column(layer)], self.subjects)

    def majority(self, layer: int | None = None) -> Estimate:
        """Accuracy on new subjects of always saying the commonest answer (the same at every layer)."""
        return cluster_bootstrap(self.right_majority, self.subjects)

    def above_majority(self, layer: int) -> Estimate:
        """Accuracy on new subjects minus that of the commonest answer."""
        return paired_difference(self.right_subject[:, self._column(layer)], self.right_majority, self.subjects)

    def p_value(self, layer: int) -> float:
        """Chance of so high an accuracy on new subjects were answers permuted among subjects; NaN without permutations.

            p = (1 + #{permuted >= own}) / (1 + permutations)

        For one layer chosen beforehand: the smallest over layers needs a correction.
        """
        column = self._column(layer)
        if not len(self.permuted):
            return float("nan")
        own = self.right_subject[:, column].mean()
        return float((1 + (self.permuted[:, column] >= own - 1e-12).sum()) / (1 + len(self.permuted)))

    def task(self, layer: int) -> Estimate:
        """Accuracy on new wordings of the same subjects."""
        return self._wording_estimate(self.right_wording, layer)

    def control(self, layer: int) -> Estimate:
        """Accuracy of the control task on new wordings of the same subjects."""
        return self._wording_estimate(self.right_control, layer)

    def selectivity(self, layer: int) -> Estimate:
        """Accuracy on new wordings minus that of the control task."""
        column, kept = self._column(layer), self._has_other_wording
        if not kept.any():
            return _nothing()
        subjects = [subject for subject, keep in zip(self.subjects, kept, strict=True) if keep]
        return paired_difference(self.right_wording[kept, column], self.right_control[kept, column], subjects)

    def to_json(self) -> dict[str, Any]:
        """As plain data: every accuracy with its interval, and every record's own result."""
        return {
            "relation": self.relation,
            "kind": self.kind,
            "token": self.token,
            "layers": list(self.layers),
            "records": len(self.subjects),
            "subjects": len(set(self.subjects)),
            "labels": dict(Counter(dict(zip(self.subjects, self.labels, strict=True)).values())),
            "new_subjects": {
                "accuracy": [self.held_out(l).to_json() for l in self.layers],
                "majority": self.majority().to_json(),
                "above_majority": [self.above_majority(l).to_json() for l in self.layers],
                "permuted": nested(self.permuted),
                "p": nested(np.array([self.p_value(l) for l in self.layers])),
            },
            "new_wordings": {
                "accuracy": [self.task(l).to_json() for l in self.layers],
                "control": [self.control(l).to_json() for l in self.layers],
                "selectivity": [self.selectivity(l).to_json() for l in self.layers],
            },
            "samples": [
                {"subject": subject, "label": label, "wording": wording, "new_subject": own, "new_wording": other}
                for subject, label, wording, own, other in zip(
                    self.subjects,
                    self.labels,
                    self.wordings,
                    nested(self.right_subject),
                    nested(self.right_wording),
                    strict=True,
                )
            ],
            "apart": [{"fact": fact, "reason": reason} for fact, reason in self.apart],
            "failures": [{"fact": fact, "reason": reason} for fact, reason in self.failures],
            "settings": self.settings,
        }

    def save(self, path: str) -> None:
        """Write `to_json` to a file, whole or not at all."""
        save_json(self.to_json(), path)

    def plot(self) -> object:
        """A matplotlib figure: accuracy and baselines over layers, a panel for each design."""
        from palimpsest.locate.reading.plot import plot_probes

        return plot_probes(self)

    @property
    def _has_other_wording(self) -> Bool[np.ndarray, "records"]:
        return np.isfinite(self.right_wording[:, 0])

    def _column(self, layer: int) -> int:
        if layer not in self.layers:
            raise SettingError(f"Layer {layer} was not probed; choose one of {list(self.layers)}.")
        return self.layers.index(layer)

    def _wording_estimate(self, right: Float[np.ndarray, "records layers"], layer: int) -> Estimate:
        column, kept = self._column(layer), self._has_other_wording
        if not kept.any():
            return _nothing()
        subjects = [subject for subject, keep in zip(self.subjects, kept, strict=True) if keep]
        return cluster_bootstrap(right[kept, column], subjects)


def probe(
    model: Model,
    facts: Sequence[Fact],
    *,
    kind: str = "resid_out",
    token: str = "subject_last",
    layers: Sequence[int] | None = None,
    gate: str = "known",
    folds: int = 5,
    controls: int = 5,
    permutations: int = 19,
    strength: float = 1.0,
    seed: int = 0,
    progress: Progress | None = None,
) -> Probes:
    """Probe the answers of one relation.

    Args:
        model: read, never changed.
        facts: of one relation, in which some subjects share their answer.
        kind: the site that is read, of `PROBED`.
        token: "subject_last", the last token of the subject in each wording, or "last", the last of the wording.
        layers: all when None.
        gate: "known" keeps the facts the model does not know apart; "all" probes them too (as one must when the same facts
            are probed in a re-initialised model, a control for what the wording alone gives).
        folds: of subjects, in the first design; an answer's subjects are dealt to different folds.
        controls: random labellings of the control task, averaged.
        permutations: of the first design's baseline; 0 leaves it out.
        strength: C, the inverse strength of the penalty.
        seed: of folds, control labels and permutations.
        progress: called with (done, total, label).

    Raises:
        SettingError: an unknown kind, token, gate or layer, or a number out of range.
        InputError: facts of several relations, or fewer than two answers that two subjects share.
        AnatomyError: the model has no such site.
    """
    layers = tuple(range(model.n_layers)) if layers is None else tuple(layers)
    _check(model, kind, token, gate, layers, folds, controls, permutations, strength)
    relations = sorted({fact.relation for fact in facts})
    if len(relations) != 1:
        raise InputError(
            f"A probe reads the answers of one relation, got {len(relations)}: {relations[:5]}; call it by each."
        )
    kept, apart, failures = _usable(model, facts, gate)
    records, more = _records(model, kept, token)
    failures += more
    if len({label for _, label, _, _, _ in records}) < 2:
        raise InputError(
            f"A probe needs at least two answers that two subjects share each, but of {len(facts)} facts of {relations[0]!r} "
            f"{len({fact.id for fact in kept})} can be used and {len(apart)} are kept apart; give more facts or gate='all'."
        )
    subjects, labels = tuple(r[0] for r in records), tuple(r[1] for r in records)
    wordings = tuple(r[2] for r in records)
    states = _states(model, [(r[3], r[4]) for r in records], kind, layers)
    shape = (len(records), len(layers))
    own, other, control = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    permuted = np.zeros((permutations, len(layers)))
    fake = [control_labels(subjects, labels, seed=seed, number=i) for i in range(controls)]
    shuffled = [control_labels(subjects, labels, seed=seed, number=controls + i) for i in range(permutations)]
    for column in range(len(layers)):
        x = states[:, column]
        own[:, column] = new_subjects(x, labels, subjects, folds=folds, strength=strength, seed=seed)
        other[:, column] = new_wordings(x, labels, subjects, wordings, strength=strength)
        control[:, column] = np.mean(
            [new_wordings(x, each, subjects, wordings, strength=strength) for each in fake], axis=0
        )
        for i, each in enumerate(shuffled):
            permuted[i, column] = new_subjects(x, each, subjects, folds=folds, strength=strength, seed=seed).mean()
        if progress:
            progress(column + 1, len(layers), "layers probed")
    counts = Counter(labels)
    commonest = min(counts, key=lambda label: (-counts[label], label))
    majority = np.array([float(label == commonest) for label in labels])
    settings: dict[str, object] = {
        "model": model.name,
        "gate": gate,
        "folds": folds,
        "controls": controls,
        "permutations": permutations,
        "strength": strength,
        "seed": seed,
        "probe": "multinomial logistic regression on standardised states, L2",
    }
    return Probes(
        relations[0], kind, token, layers, subjects, labels, wordings,
        own, majority, permuted, other, control, tuple(apart), tuple(failures), settings,
    )  # fmt: skip


def _check(
    model: Model, kind: str, token: str, gate: str, layers: tuple[int, ...], folds: int, controls: int,
    permutations: int, strength: float,
) -> None:  # fmt: skip
    for name, given, known in (("site", kind, PROBED), ("token", token, TOKENS), ("gate", gate, ("known", "all"))):
        if given not in known:
            raise SettingError(f"A probe has no {name} {given!r}.{did_you_mean(given, known)}")
    if not layers:
        raise SettingError("A probe needs at least one layer, got none; leave layers out for all of them.")
    for layer in layers:
        model.anatomy.check_layer(layer)
    for name, number, least in (("folds", folds, 2), ("controls", controls, 1), ("permutations", permutations, 0)):
        if number < least:
            raise SettingError(f"A probe needs {name} of {least} or more, got {number}.")
    if not 0 < strength < float("inf"):
        raise SettingError(f"A probe needs a strength above 0, got {strength}; it is C, the inverse of the penalty.")


def _usable(
    model: Model, facts: Sequence[Fact], gate: str
) -> tuple[list[Fact], list[tuple[str, str]], list[tuple[str, str]]]:
    """(facts that can be probed, those kept apart, those that cannot be asked)."""
    asked, failures = ask(model, facts)
    apart = [(fact.id, "the model does not know it") for fact, known in asked if gate == "known" and not known]
    kept = [fact for fact, known in asked if gate == "all" or known]
    answers: dict[str, set[str]] = {}
    for fact in kept:
        answers.setdefault(fact.subject, set()).add(str(fact.target_true))
    apart += [(fact.id, "its subject has several answers here") for fact in kept if len(answers[fact.subject]) > 1]
    kept = [fact for fact in kept if len(answers[fact.subject]) == 1]
    holders = Counter(label for each in answers.values() if len(each) == 1 for label in each)
    apart += [(fact.id, "no other subject here has its answer") for fact in kept if holders[str(fact.target_true)] < 2]
    return [fact for fact in kept if holders[str(fact.target_true)] > 1], apart, failures


def _records(
    model: Model, facts: Sequence[Fact], token: str
) -> tuple[list[tuple[str, str, int, tuple[int, ...], int]], list[tuple[str, str]]]:
    """(subject, answer, number of the wording, ids, position) of each different state, and what could not be read."""
    records: list[tuple[str, str, int, tuple[int, ...], int]] = []
    failures: list[tuple[str, str]] = []
    seen: set[tuple[str, bytes]] = set()
    for fact in facts:
        for number, wording in enumerate(fact.wordings):
            span = find_subject(fact, wording)
            if span is None:
                failures.append((fact.id, f"The subject {fact.subject!r} is not in the wording {wording!r}."))
                continue
            try:
                encoded = model.encode(wording)
                place = len(encoded) - 1 if token == "last" else encoded.tokens_of(*span)[-1]
            except InputError as error:
                failures.append((fact.id, str(error)))
                continue
            upto = hashlib.blake2b(repr(encoded.ids[: place + 1]).encode()).digest()
            if (fact.subject, upto) not in seen:
                seen.add((fact.subject, upto))
                records.append((fact.subject, str(fact.target_true), number, encoded.ids[: place + 1], place))
    return records, failures


def _states(
    model: Model, rows: Sequence[tuple[tuple[int, ...], int]], kind: str, layers: Sequence[int]
) -> Float[np.ndarray, "records layers width"]:
    """The state of each row at its position, in each layer."""
    sites, found = [Site(kind, l) for l in layers], []
    with model.evaluating():
        for begin in range(0, len(rows), TEXTS_AT_ONCE):
            chunk = rows[begin : begin + TEXTS_AT_ONCE]
            states = model.record(pad([ids for ids, _ in chunk]), sites)
            at = torch.tensor([place for _, place in chunk], device=model.device)
            every = torch.arange(len(chunk), device=model.device)
            found.append(torch.stack([states[site][every, at] for site in sites], dim=1).cpu().double().numpy())
    return np.concatenate(found)


def _nothing() -> Estimate:
    """The estimate of no record at all."""
    return Estimate(np.nan, np.nan, np.nan, 0, 0, method="no subject has two different wordings")
