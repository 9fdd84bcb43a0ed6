"""Linear probes: the answer of a subject, read from its states by directions that only other subjects have shown.

For each relation, layer and token a linear discriminant (Fisher 1936; shrunk as in Friedman 1989) is fitted on the unedited
model. With mu_c the mean state of the subjects whose answer is c, every answer counting the same, and S_w the covariance of states
about these means,

    S = (1 - a) S_w + a tr(S_w)/d I          log p(h | c) = -1/2 (h - mu_c)^T S^-1 (h - mu_c) + constant

    advantage = log p(h | answer) - mean over others of log p(h | other)        in nats, linear in h

It is what a logistic regression estimates where states are Gaussian, in closed form, and an answer that is frequent gains nothing
by it. An edit is then read by directions that no editor saw.

No probe has met the subject it reads. Leaving subjects out is not neutral, though: an answer that has just lost one of its two
subjects has a noisier mean and looks less likely, at whatever subject, so a control would win by it. Every pair is therefore read
by a probe without two folds of subjects: that of the *holder*, who has the answer in truth (the edited subject, for its controls
too; one drawn of those who share the answer where the pool does not know the subject), and that of the subject read, or a drawn
one where they agree.

A probe may find what no model uses. The control task (Hewitt and Liang 2019) fits the same probe to answers permuted among
subjects: a second readout, `Probes(pool, shuffled=True)`, whose columns should tell nothing. The difference of the two is the
selectivity.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

import numpy as np
import torch
from jaxtyping import Float

from palimpsest.edit.settings import whole
from palimpsest.erase.residue.advantage import require_finite
from palimpsest.erase.residue.pair import EDITED, SAME_ANSWER, Pair
from palimpsest.erase.residue.readout import Column, Table
from palimpsest.errors import InputError, SettingError, did_you_mean
from palimpsest.facts import Fact
from palimpsest.locate.answers import by_length
from palimpsest.locate.reading.probe_designs import control_labels, deal_folds
from palimpsest.model import Model, Site, pad

TOKENS = ("subject_last", "last")
LEAST = 8  # subjects that a probe is fitted on
ON_FEW = ("refuse", "leave")


@dataclass(frozen=True)
class Probes:
    """The readout: log-odds of the answer in a linear probe of its relation.

    Attributes:
        pool: facts the model knows, of the relations that will be read; those of edited subjects may be among them.
        layers: whose outgoing residual stream is probed; None: four, evenly spread, the last among them.
        tokens: of `TOKENS`: the subject's last token, or the last of the prompt.
        folds: of subjects, 3 or more.
        shrinkage: a, above 0 and at most 1.
        shuffled: the control task.
        few: "refuse" a relation with too few facts, or "leave" its pairs out (NaN).
        seed: of folds and of the control task.
    """

    pool: tuple[Fact, ...] = field(repr=False)
    layers: tuple[int, ...] | None = None
    tokens: tuple[str, ...] = TOKENS
    folds: int = 5
    shrinkage: float = 0.9
    shuffled: bool = False
    few: str = "refuse"
    seed: int = 0

    def __post_init__(self) -> None:
        for token in self.tokens:
            if token not in TOKENS:
                raise SettingError(f"A probe has no token {token!r}.{did_you_mean(token, TOKENS)}")
        if not self.tokens or self.layers == ():
            raise SettingError(
                "A probe needs at least one token and one layer, got none; leave them out for the usual ones."
            )
        if self.few not in ON_FEW:
            raise SettingError(f"A probe's few is 'refuse' or 'leave', got {self.few!r}.")
        if not 0 < self.shrinkage <= 1:
            raise SettingError(f"A probe's shrinkage must be above 0 and at most 1, got {self.shrinkage}.")
        whole("A probe", "folds", self.folds, 3)

    @property
    def name(self) -> str:
        """Of the readout."""
        return "probe control" if self.shuffled else "probe"

    def fit(self, model: Model, pairs: Sequence[Pair]) -> "ProbeReader":
        """Fit a probe for each relation of `pairs`, place and fold, on the pool.

        Raises:
            InputError: a relation has fewer than two answers in the pool, or too few subjects.
            WeightError: a state is not finite.
        """
        layers = self.chosen(model)
        subject_of = {pair.of: pair.fact.subject for pair in pairs if pair.group == EDITED}
        asked: dict[str, list[Pair]] = {}
        for pair in pairs:
            asked.setdefault(pair.fact.relation, []).append(pair)
        found: dict[str, _Fitted] = {}
        for relation, of_relation in asked.items():
            try:
                known = _answers(relation, self.pool, self.folds)
            except InputError:
                if self.few == "refuse":
                    raise
                continue
            found[relation] = self._fitted(model, known, of_relation, subject_of, layers)
        return ProbeReader(self, layers, found)

    def chosen(self, model: Model) -> tuple[int, ...]:
        """The layers that are probed."""
        n = model.n_layers
        layers = (
            tuple(sorted({max(1, round(n * i / 4)) - 1 for i in range(1, 5)})) if self.layers is None else self.layers
        )
        return tuple(model.anatomy.check_layer(layer) for layer in layers)

    def _fitted(
        self,
        model: Model,
        known: Mapping[str, Fact],
        pairs: Sequence[Pair],
        subject_of: Mapping[str, str],
        layers: tuple[int, ...],
    ) -> "_Fitted":
        """The probes of one relation."""
        subjects, answers = list(known), [str(fact.target_true) for fact in known.values()]
        dealt = deal_folds(subjects, answers, self.folds, seed=self.seed)
        fold = dict(zip(subjects, (int(one) for one in dealt), strict=True))
        out = {_key(pair): self._kept_out(pair, known, fold, subject_of) for pair in pairs}
        if self.shuffled:
            answers = list(control_labels(subjects, answers, seed=self.seed))
        states = states_at(model, list(known.values()), self.tokens, layers)
        require_finite(states, "residual stream", model)
        probes: dict[frozenset[int], list[list[Discriminant]]] = {}
        for two in sorted(set(out.values()), key=sorted):
            kept = ~np.isin(dealt, sorted(two))
            labels = [answer for answer, keep in zip(answers, kept, strict=True) if keep]
            probes[two] = [
                [Discriminant.of(states[kept, t, l], labels, self.shrinkage) for l in range(len(layers))]
                for t in range(len(self.tokens))
            ]
        return _Fitted(out, probes)

    def _kept_out(
        self, pair: Pair, known: Mapping[str, Fact], fold: Mapping[str, int], subject_of: Mapping[str, str]
    ) -> frozenset[int]:
        """The two folds that the probe of a pair is fitted without."""
        digest = hashlib.blake2b(repr((self.seed, *_key(pair))).encode(), digest_size=8).digest()
        draw = Random(int.from_bytes(digest, "big"))
        holder = subject_of.get(pair.of, "") if pair.group == SAME_ANSWER else pair.fact.subject
        if holder not in fold:
            sharing = sorted(subject for subject, fact in known.items() if fact.target_true == pair.answer)
            holder = draw.choice(sharing or sorted(known))
        first = fold[holder]
        second = fold.get(pair.fact.subject, first)
        if second == first:
            second = draw.choice([one for one in range(self.folds) if one != first])
        return frozenset((first, second))


Key = tuple[str, str, str]


def _key(pair: Pair) -> Key:
    return pair.fact.subject, pair.answer, pair.of


@dataclass(frozen=True, eq=False)
class _Fitted:
    """The probes of one relation: the folds that each pair's was fitted without, and by these a probe of each token and layer."""

    out: Mapping[Key, frozenset[int]]
    probes: Mapping[frozenset[int], list[list["Discriminant"]]]


@dataclass(frozen=True, eq=False)
class ProbeReader:
    """Fitted probes of every relation.

    Attributes:
        settings: the readout that fitted them.
        layers: probed.
        of: relation -> its probes.
    """

    settings: Probes
    layers: tuple[int, ...]
    of: Mapping[str, _Fitted]

    def read(self, model: Model, pairs: Sequence[Pair]) -> Table:
        """The advantage at each token and layer; NaN where the relation or the answer is in no probe.

        Raises:
            InputError: a pair's subject was not among those the probes were fitted for.
            WeightError: a state is not finite.
        """
        tokens = self.settings.tokens
        columns = tuple(
            Column(self.settings.name, token.replace("_", " "), layer) for token in tokens for layer in self.layers
        )
        scores = np.full((len(pairs), len(tokens), len(self.layers)), np.nan)
        facts = {pair.fact.id: pair.fact for pair in pairs if pair.fact.relation in self.of}
        if facts:
            states = states_at(model, list(facts.values()), tokens, self.layers)
            require_finite(states, "residual stream", model)
            row = {name: i for i, name in enumerate(facts)}
            for i, pair in enumerate(pairs):
                if pair.fact.relation in self.of:
                    scores[i] = self._scores(pair, states[row[pair.fact.id]])
        return Table(columns, scores.reshape(len(pairs), len(columns)))

    def _scores(self, pair: Pair, states: Float[np.ndarray, "tokens layers width"]) -> np.ndarray:
        fitted = self.of[pair.fact.relation]
        if _key(pair) not in fitted.out:
            raise InputError(
                f"No probe was fitted for the subject {pair.fact.subject!r} and {pair.answer!r}, so one may have met the subject; "
                "give all pairs to fit()."
            )
        probes = fitted.probes[fitted.out[_key(pair)]]
        return np.array(
            [
                [
                    probe.advantage(state, pair.answer, pair.others)
                    for probe, state in zip(of_token, at_token, strict=True)
                ]
                for of_token, at_token in zip(probes, states, strict=True)
            ]
        )


@dataclass(frozen=True, eq=False)
class Discriminant:
    """log p(h | c) up to a constant: slope_c . h + offset_c.

    Attributes:
        answers: c, in the order of the rows.
        slopes: S^-1 mu_c.
        offsets: -1/2 mu_c^T S^-1 mu_c.
    """

    answers: tuple[str, ...]
    slopes: Float[np.ndarray, "answers width"]
    offsets: Float[np.ndarray, "answers"]

    @classmethod
    def of(cls, states: Float[np.ndarray, "records width"], labels: Sequence[str], shrinkage: float) -> "Discriminant":
        """Fit to states and the answer of each."""
        answers, row = np.unique(np.array(labels), return_inverse=True)
        each = np.eye(len(answers))[row]  # (records, answers)
        means = (each.T @ states) / each.sum(axis=0)[:, None]
        apart, width = states - means[row], states.shape[1]
        if len(states) > len(answers):
            scatter = apart.T @ apart / (len(states) - len(answers))
        else:  # one subject for every answer leaves no spread about the means: only distances count
            scatter = np.eye(width) * max(float(means.var(axis=0).mean()), 1e-12)
        shrunk = (1 - shrinkage) * scatter + shrinkage * np.trace(scatter) / width * np.eye(width)
        slopes = np.linalg.solve(shrunk, means.T).T
        return cls(tuple(str(one) for one in answers), slopes, -0.5 * (slopes * means).sum(axis=1))

    def advantage(self, state: Float[np.ndarray, "width"], answer: str, others: Sequence[str]) -> float:
        """The log-odds of one answer over the mean of others; NaN where the probe has never met it, or none of them."""
        met = [other for other in others if other in self.answers]
        if answer not in self.answers or not met:
            return float("nan")
        told = dict(zip(self.answers, self.slopes @ state + self.offsets, strict=True))
        return float(told[answer] - np.mean([told[other] for other in met]))


def states_at(
    model: Model, facts: Sequence[Fact], tokens: Sequence[str], layers: Sequence[int]
) -> Float[np.ndarray, "facts tokens layers width"]:
    """The residual stream after each layer at the subject's last token and at the last token of each prompt."""
    encoded = [model.encode(fact.text) for fact in facts]
    places: list[list[int]] = []
    for fact, text in zip(facts, encoded, strict=True):
        at = {"subject_last": text.tokens_of(*fact.subject_span)[-1], "last": len(text) - 1}
        places.append([at[token] for token in tokens])
    sites = [Site("resid_out", layer) for layer in layers]
    found = np.zeros((len(facts), len(tokens), len(layers), model.anatomy.width))
    for group in by_length([len(text) for text in encoded]):
        with model.evaluating():
            states = model.record(pad([encoded[i].ids for i in group]), sites)
        columns = torch.tensor([places[i] for i in group], device=model.device)
        rows = torch.arange(len(group), device=model.device)[:, None]
        found[group] = torch.stack([states[site][rows, columns] for site in sites], dim=2).cpu().double().numpy()
    return found


def _answers(relation: str, pool: Iterable[Fact], folds: int) -> dict[str, Fact]:
    """The fact of each subject of a relation, first come; refused where a probe could not be fitted."""
    known: dict[str, Fact] = {}
    for fact in pool:
        if fact.relation == relation and fact.target_true is not None:
            known.setdefault(fact.subject, fact)
    answers = {fact.target_true for fact in known.values()}
    if len(answers) < 2:
        raise InputError(
            f"A probe tells the answers of a relation apart and needs two of them, but the pool has {len(answers)} for "
            f"{relation!r}; give more facts of it, or few='leave'."
        )
    needed = -(-LEAST * folds // (folds - 2))  # so that LEAST are left when two folds are kept out
    if len(known) < needed:
        raise InputError(
            f"A probe of {relation!r} with {folds} folds needs facts of {needed} subjects, but the pool has {len(known)}; give "
            f"{needed - len(known)} more, or few='leave'."
        )
    return known
