"""Suppressing and amplifying neurons, beside what random neurons and another fact's neurons do.

The keys of a set of neurons are multiplied by 0 (suppress) or 2 (amplify) at the last token of a prompt (Dai et al. 2022,
section 4.2). Over the wordings w of a fact, with p the probability of the first token of its answer,

    drift = (sum_w p'_w - sum_w p_w) / sum_w p_w           relative change of probability
    flip  = share of wordings whose likeliest token changes
    order = share of wordings where answer and foil (`target_new`) change places, for facts that have one: BLiMP's pairs

A drift without a flip changes a number and no answer, so the two are never reported apart. Nor without their controls:

    own      the fact's own neurons
    random   R sets drawn with as many neurons in each layer, never one of its own
    other    the neurons of a fact of another relation (in general not as many)

each on the fact itself and on facts of other relations ("elsewhere"), whose answers should stay. An effect of the own set that
random sets share is a matter of how many neurons were cut; one that another fact's neurons share belongs to no fact; one that
is as large elsewhere is damage.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from palimpsest.errors import FactError, SettingError
from palimpsest.facts import Fact
from palimpsest.locate.neuron.attribution import ROWS
from palimpsest.locate.neuron.baselines import key_widths
from palimpsest.locate.neuron.last_token import LastToken, answer_token
from palimpsest.locate.neuron.shared import Neuron
from palimpsest.locate.saving import save_json
from palimpsest.model import Model, Site, Tap
from palimpsest.statistics import Estimate, cluster_bootstrap, paired_difference, proportion

FACTORS = {"suppress": 0.0, "amplify": 2.0}
SETS = ("own", "random", "other")
PLACES = ("here", "elsewhere")


@dataclass(frozen=True)
class Effect:
    """What one set of neurons does to one group of prompts under one factor.

    Attributes:
        factor: "suppress" or "amplify".
        neurons: "own", "random" or "other".
        place: "here", the fact's own wordings, or "elsewhere".
        drift: relative change of probability; for random sets one number a set.
        flip: share of prompts whose likeliest token changes; for random sets one number a set.
        flipped: whether the first prompt flips (for random sets: one number a set).
        order: share of the prompts with a foil where answer and foil change places; empty where no prompt has one.
    """

    factor: str
    neurons: str
    place: str
    drift: tuple[float, ...]
    flip: tuple[float, ...]
    flipped: tuple[bool, ...]
    order: tuple[float, ...] = ()


@dataclass(frozen=True, eq=False)
class NeuronEffects:
    """All effects for one fact.

    Attributes:
        fact: its id, `cluster`: its (relation, subject).
        count: how many neurons its own set holds.
        effects: one `Effect` for each factor, set and place that could be measured.
        settings: how it was made.
    """

    fact: str
    cluster: tuple[str, str]
    count: int
    effects: tuple[Effect, ...]
    settings: dict[str, object]

    def of(self, factor: str, neurons: str = "own", place: str = "here") -> Effect | None:
        """One effect; None where it was not measured (there was no other fact, or nothing elsewhere)."""
        wanted = (factor, neurons, place)
        return next((one for one in self.effects if (one.factor, one.neurons, one.place) == wanted), None)

    def p_random(self, factor: str, place: str = "here") -> float:
        """Share of sets, the own one counted among them, whose |drift| is at least the own set's: (1 + #) / (1 + R)."""
        own, random = self.of(factor, "own", place), self.of(factor, "random", place)
        if own is None or random is None:
            return float("nan")
        return float((1 + sum(abs(d) >= abs(own.drift[0]) for d in random.drift)) / (1 + len(random.drift)))

    def to_json(self) -> dict[str, object]:
        """As plain data that `from_json` reads back."""
        return {
            "fact": self.fact,
            "cluster": list(self.cluster),
            "count": self.count,
            "effects": [{name: getattr(one, name) for name in Effect.__dataclass_fields__} for one in self.effects],
            "settings": self.settings,
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "NeuronEffects":
        """What `to_json` wrote."""
        effects = tuple(
            Effect(
                e["factor"],
                e["neurons"],
                e["place"],
                tuple(e["drift"]),
                tuple(e["flip"]),
                tuple(e["flipped"]),
                tuple(e["order"]),
            )
            for e in record["effects"]
        )
        relation, subject = record["cluster"]
        return cls(record["fact"], (relation, subject), record["count"], effects, dict(record["settings"]))

    def save(self, path: str) -> None:
        """Write `to_json` to a file, whole or not at all."""
        save_json(self.to_json(), path)


def neuron_effects(
    model: Model,
    fact: Fact,
    own: Sequence[Neuron],
    *,
    other: Sequence[Neuron] = (),
    elsewhere: Sequence[Fact] = (),
    texts: Sequence[str] | None = None,
    random_sets: int = 20,
    seed: int = 0,
    rows: int = ROWS,
) -> NeuronEffects:
    """Suppress and amplify a fact's neurons, random ones and another fact's, on its wordings and elsewhere.

    Args:
        model: read, never changed.
        fact: whose wordings are scored.
        own: its neurons, as (layer, place); with none there is nothing to measure and `effects` is empty.
        other: those of a fact of another relation.
        elsewhere: facts of other relations, each scored after its own prompt.
        texts: the wordings that are scored; all of the fact's when None.
        random_sets: R; the smallest p that `p_random` can give is 1 / (1 + R).
        seed: of the draw, which is the fact's own.
        rows: how many runs go through the network at once.

    Raises:
        SettingError: fewer than one random set, or a neuron that does not exist.
        FactError: an answer cannot be scored, or a fact has no `target_true`: then there is no one answer to follow.
    """
    if lacking := [one.id for one in (fact, *elsewhere) if one.target_true is None]:
        raise FactError(f"The fact {lacking[0]} has no target_true, so there is no answer to follow; give it one.")
    if random_sets < 1:
        raise SettingError(f"The control needs at least one random set, got {random_sets}.")
    settings: dict[str, object] = {"model": model.name, "random_sets": random_sets, "seed": seed, "rows": rows}
    settings |= {"elsewhere": [one.id for one in elsewhere], "other": [list(place) for place in other]}
    cluster = (fact.relation, fact.subject)
    if not own:
        return NeuronEffects(fact.id, cluster, 0, (), settings)
    widths = key_widths(model)
    sets = [tuple(own), *random_like(own, widths, random_sets, f"{seed} {fact.id}")]
    if other:
        sets.append(tuple(other))
    groups = {
        "here": [(text, fact) for text in (fact.wordings if texts is None else texts)],
        "elsewhere": [(one.text, one) for one in elsewhere],
    }
    where = {"own": slice(0, 1), "random": slice(1, 1 + random_sets), "other": slice(1 + random_sets, len(sets))}
    effects = []
    for place, prompts in groups.items():
        if not prompts:
            continue
        seen = _measure(model, prompts, sets, rows)
        for number, name in enumerate(FACTORS):
            shift = number * len(sets)
            for kind, part in where.items():
                picked = slice(part.start + shift, part.stop + shift)
                drift = (seen.changed[:, picked].sum(0) - seen.clean.sum()) / seen.clean.sum()
                if drift.size:
                    flips = seen.flips[:, picked]
                    order = seen.order[:, picked].mean(0).tolist() if len(seen.order) else []
                    effects.append(
                        Effect(
                            name,
                            kind,
                            place,
                            tuple(drift.tolist()),
                            tuple(flips.mean(0).tolist()),
                            tuple(flips[0].tolist()),
                            tuple(order),
                        )
                    )
    return NeuronEffects(fact.id, cluster, len(own), tuple(effects), settings)


@dataclass(frozen=True, eq=False)
class _Seen:
    """p of each prompt, p' of each (prompt, set), and whether first choice, or order of answer and foil, changes."""

    clean: Float[np.ndarray, "prompts"]
    changed: Float[np.ndarray, "prompts sets"]
    flips: Bool[np.ndarray, "prompts sets"]
    order: Bool[np.ndarray, "with_foil sets"]


def _measure(model: Model, prompts: Sequence[tuple[str, Fact]], sets: Sequence[Sequence[Neuron]], rows: int) -> _Seen:
    """Every set under every factor, the first factor's sets first."""
    scaled = [(neurons, factor) for factor in FACTORS.values() for neurons in sets]
    clean, changed, flips = [], [], []
    order = [np.zeros((0, len(scaled)), dtype=bool)]
    for text, fact in prompts:
        ids, token = answer_token(model, text, fact.target_true)
        with torch.no_grad(), model.evaluating():
            point = LastToken.of(model, ids)
        before = point.logits.cpu()
        after = scaled_logits(model, point, scaled, rows)
        clean.append(float(before.softmax(-1)[0, token]))
        changed.append(after.softmax(-1)[:, token].double().numpy())
        flips.append((after.argmax(-1) != before.argmax()).numpy())
        if fact.target_new is not None:
            _, foil = answer_token(model, text, fact.target_new)
            ahead = before[0, token] > before[0, foil]
            order.append(((after[:, token] > after[:, foil]) != ahead).numpy()[None])
    return _Seen(np.array(clean), np.array(changed), np.array(flips), np.concatenate(order))


@torch.no_grad()
def scaled_logits(
    model: Model, point: LastToken, scaled: Sequence[tuple[Sequence[Neuron], float]], rows: int = ROWS
) -> Float[Tensor, "sets vocabulary"]:
    """Logits after the last token with the keys of each set of neurons multiplied by its factor, on the CPU."""
    result = []
    for begin in range(0, len(scaled), rows):
        chunk = scaled[begin : begin + rows]
        factors = {l: point.keys[l].new_ones(len(chunk), len(point.keys[l])) for sets, _ in chunk for l, _ in sets}
        for row, (neurons, factor) in enumerate(chunk):
            for l, i in neurons:
                factors[l][row, i] = factor
        taps = [Tap(Site("key", l), _Scale(factors[l])) for l in sorted(factors)]
        start = min(factors) if factors else model.n_layers - 1
        with model.evaluating():
            result.append(point.again(model, len(chunk), start, taps).cpu())
    return torch.cat(result)


@dataclass(frozen=True, eq=False)
class _Scale:
    """Multiplies the last token's key, row by row."""

    factor: Float[Tensor, "rows neurons"]

    def __call__(self, tensor: Float[Tensor, "rows columns neurons"]) -> Float[Tensor, "rows columns neurons"]:
        tensor = tensor.clone()
        tensor[:, -1] = tensor[:, -1] * self.factor
        return tensor


def random_like(own: Sequence[Neuron], widths: Sequence[int], count: int, seed: str) -> list[tuple[Neuron, ...]]:
    """`count` sets with as many neurons in each layer as `own` has, none of them its own, drawn without replacement.

    Where a layer has too few others, the draw is from all of its neurons.
    """
    for l, i in own:
        if not (0 <= l < len(widths) and 0 <= i < widths[l]):
            raise SettingError(
                f"There is no neuron {i} in layer {l}; this model has {len(widths)} layers of {widths[0]}."
            )
    draw = Random(seed)
    layers = sorted({l for l, _ in own})
    mine = {l: {i for layer, i in own if layer == l} for l in layers}
    pools = {l: [i for i in range(widths[l]) if i not in mine[l]] for l in layers}
    pools |= {l: list(range(widths[l])) for l in layers if len(pools[l]) < len(mine[l])}
    return [tuple((l, i) for l in layers for i in sorted(draw.sample(pools[l], len(mine[l])))) for _ in range(count)]


def summarise(effects: Sequence[NeuronEffects], *, seed: int = 0) -> list[dict[str, Any]]:
    """Over facts: drift and flips of each factor, set and place, and the own set's drift less the random sets'.

    A fact's random sets count by their mean. Intervals of drift and of the share of flipped prompts come from resampled
    (relation, subject); `flipped` is the share of facts whose first prompt flips (of fact-set pairs for random sets, without
    an interval, because pairs of one fact hang together).
    """
    rows = []
    for factor in FACTORS:
        for place in PLACES:
            for kind in SETS:
                found = [(one, e) for one in effects if (e := one.of(factor, kind, place)) is not None]
                if not found:
                    continue
                clusters = [one.cluster for one, _ in found]
                drift = [float(np.mean(e.drift)) for _, e in found]
                row: dict[str, Any] = {
                    "factor": factor,
                    "neurons": kind,
                    "place": place,
                    "drift": cluster_bootstrap(drift, clusters, seed=seed),
                    "flip": cluster_bootstrap([float(np.mean(e.flip)) for _, e in found], clusters, seed=seed),
                }
                pairs = [(one.cluster, float(np.mean(e.order))) for one, e in found if e.order]
                if pairs:
                    row["order"] = cluster_bootstrap([n for _, n in pairs], [c for c, _ in pairs], seed=seed)
                if kind == "random":
                    share = float(np.mean([np.mean(e.flipped) for _, e in found]))
                    row["flipped"] = Estimate(share, float("nan"), float("nan"), len(found), len(set(clusters)))
                else:
                    row["flipped"] = proportion(sum(e.flipped[0] for _, e in found), len(found))
                if kind == "own":
                    random = [float(np.mean(e.drift)) for one, _ in found if (e := one.of(factor, "random", place))]
                    row["drift_less_random"] = paired_difference(drift, random, clusters, seed=seed)
                rows.append(row)
    return rows
