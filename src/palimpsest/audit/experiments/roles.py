"""What a trace or a lesion says at the two tokens that claims name, as compact rows and as tables over facts.

    effect   IE(t, l) or N(t, l) of `locate.tracing.maps`, per sample
    share    sum over facts of effects / sum over facts of total effects

    row = record(found)                                      # plain data: two roles of one map
    cells(row, SUBJECT)                                      # (layers, samples) effects
    table = effects_of(rows, facts, SUBJECT, kind="mlp")     # (facts, layers) effects with total effects and clusters
    table.share(table.at(17))                                # an estimate

The share is the ratio of totals, because the mean of facts' own ratios has heavy tails: one fact whose total effect is near
zero can outweigh all others (validity of ratio estimators: Cochran 1977, chapter 6). A fact whose total effect is withheld
(`EffectMap.withheld`: it is below a least size, or not surely positive) is left out of every share and is counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float, Int

from palimpsest.audit.bench import Bench
from palimpsest.audit.experiments.over_facts import cluster_by_name
from palimpsest.audit.setting import LAST, SUBJECT
from palimpsest.errors import InputError, PalimpsestError, SettingError, did_you_mean
from palimpsest.facts import Fact
from palimpsest.locate.tracing.lesion import Lesioner
from palimpsest.locate.tracing.maps import EffectMap, Lesion
from palimpsest.locate.tracing.trace import Tracer
from palimpsest.model import Model
from palimpsest.runs.json_text import plain
from palimpsest.statistics import Estimate, ratio_estimate

Instrument = TypeVar("Instrument", Tracer, Lesioner)
SCORE = "logit-difference"  # the primary score
DIGITS = 6  # of a stored number
ROLES: Mapping[str, str] = {SUBJECT: "subject", LAST: "last"}  # a place's position to its name in a row
TYPICAL_TOKENS = 16  # of a prompt, for plans
BATCHED = 0.6  # of the time of single passes: many rows at once cost less a token
SHARE = "share of the total effect"


def record(found: EffectMap) -> dict[str, Any]:
    """One map as a row: log-probabilities of answer and foil at the two roles; every score can be had from it.

    Numbers have `DIGITS` significant digits. `withheld` holds by score why effects are not divided, or "".
    """
    at = {"subject": found.subject[1] - 1, "last": len(found.tokens) - 1}
    scores = (SCORE, "probability") if found.foil else ("probability",)
    return {
        "what": "lesion" if isinstance(found, Lesion) else "restoration",
        "known": found.known,
        "layers": list(found.layers),
        "clean": rounded(found.log_p_clean),
        "corrupted": rounded(found.log_p_corrupted),
        **{name: rounded(found.log_p_patched[token]) for name, token in at.items()},
        "withheld": {score: found.scored(score).withheld for score in scores},
    }


def cells(found: EffectMap | Mapping[str, Any], role: str, score: str = SCORE) -> Float[np.ndarray, "layers samples"]:
    """The effects at "last subject token" or "last token" of a map, or of what `record` made of it.

    Raises:
        SettingError: there is no such role or score.
    """
    row = found if isinstance(found, Mapping) else record(found)
    if role not in ROLES:
        raise SettingError(f"A role is one of {', '.join(ROLES)}, got {role!r}.{did_you_mean(role, list(ROLES))}")
    patched = scored(row[ROLES[role]], score)
    if row["what"] == "lesion":
        return np.asarray(scored(row["clean"], score) - patched)
    return np.asarray(patched - scored(row["corrupted"], score))


def total(found: EffectMap | Mapping[str, Any], score: str = SCORE) -> float:
    """TE, mean over samples; NaN where nothing was corrupted."""
    row = found if isinstance(found, Mapping) else record(found)
    if not len(row["corrupted"]):
        return float("nan")
    return float(scored(row["clean"], score) - scored(row["corrupted"], score).mean())


def normalised(found: EffectMap | Mapping[str, Any], role: str, score: str = SCORE) -> Float[np.ndarray, " layers"]:
    """Effect / TE of one fact, mean over samples; NaN where it is withheld. For tables; means of it have heavy tails."""
    row = found if isinstance(found, Mapping) else record(found)
    effects = cells(row, role, score).mean(axis=1)
    return effects / total(row, score) if not row["withheld"][score] else np.full(effects.shape, np.nan)


def scored(log_p: Any, score: str) -> np.ndarray:
    """A score of log-probabilities of answer and foil, which stand along the last axis.

    Raises:
        SettingError: there is no such score.
    """
    numbers = np.array(log_p, dtype=float)
    if score == "logit-difference":
        return np.asarray(numbers[..., 0] - numbers[..., 1])
    if score == "probability":
        return np.asarray(np.exp(numbers[..., 0]))
    if score == "log-probability":
        return np.asarray(numbers[..., 0])
    raise SettingError(f"A score is probability, log-probability or logit-difference, got {score!r}.")


def narrow(instrument: Instrument) -> Instrument:
    """The same tracer or lesioner, patching the two roles only; its maps are NaN at all other tokens.

    A prompt of ten tokens then costs about a sixth.
    """
    return replace(instrument, ends_only=True)


def rounded(numbers: Any) -> Any:
    """Numbers as lists with `DIGITS` significant digits; what is not finite becomes None."""
    array = np.asarray(numbers, dtype=float)
    return plain(np.vectorize(_short, otypes=[float])(array).tolist() if array.size else array.tolist())


@dataclass(frozen=True, eq=False)
class Effects:
    """Effects of several facts at one role, mean over samples.

    Attributes:
        names: ids of the facts.
        clusters: (relation, subject) of each.
        layers: l of each column.
        effects: in units of the score.
        totals: total effects, each surely positive.
        withheld: ids of facts that were left out, and why.
    """

    names: tuple[str, ...]
    clusters: tuple[tuple[str, str], ...]
    layers: tuple[int, ...]
    effects: Float[np.ndarray, "facts layers"]
    totals: Float[np.ndarray, " facts"]
    withheld: Mapping[str, str]

    @classmethod
    def of_lines(
        cls,
        lines: Mapping[str, Any],
        totals: Mapping[str, float],
        clusters: Mapping[str, tuple[str, str]],
        layers: Sequence[int],
        withheld: Mapping[str, str],
    ) -> Effects:
        """The effects by layer of each fact that is not withheld, in their order.

        Args:
            lines: effects by layer of each fact.
            totals, clusters: of each fact that is kept.
            layers: l of each number of a line.
            withheld: ids of facts to leave out, and why.
        """
        kept = [name for name in lines if name not in withheld]
        return cls(
            tuple(kept),
            tuple(clusters[name] for name in kept),
            tuple(layers),
            np.array([lines[name] for name in kept], dtype=float).reshape(len(kept), len(layers)),
            np.array([totals[name] for name in kept], dtype=float),
            withheld,
        )

    def __len__(self) -> int:
        return len(self.names)

    def at(self, layer: int) -> Float[np.ndarray, " facts"]:
        """Effects at one layer.

        Raises:
            InputError: it was not measured.
        """
        return self.effects[:, self._column(layer)]

    def elsewhere(self, layer: int) -> Float[np.ndarray, " facts"]:
        """Null N1: the median over all other measured layers.

        Raises:
            InputError: there is no other layer.
        """
        if len(self.layers) < 2:
            raise InputError(f"Only layer {layer} was measured, so there is no other to compare with; measure more.")
        return np.asarray(np.median(np.delete(self.effects, self._column(layer), axis=1), axis=1))

    def share(self, effects: Float[np.ndarray, " facts"], *, seed: int = 0) -> Estimate:
        """Sum of effects over sum of total effects, with clusters resampled; unknown where no fact is left."""
        if not len(self):
            return Estimate.unknown(f"no fact has a usable total effect ({len(self.withheld)} withheld)")
        return ratio_estimate(effects, self.totals, self.clusters, seed=seed, unit=SHARE)

    @property
    def peaks(self) -> Int[np.ndarray, " facts"]:
        """The layer of each fact's largest effect."""
        return np.array(self.layers)[self.effects.argmax(axis=1)]

    def profile(self, *, seed: int = 0) -> dict[str, Any]:
        """Share by layer with its interval, as plain data for figures."""
        line = [self.share(self.effects[:, i], seed=seed) for i in range(len(self.layers))]
        return {
            "layers": list(self.layers),
            "value": [one.value for one in line],
            "low": [one.low for one in line],
            "high": [one.high for one in line],
            "n": len(self),
        }

    def of(self, names: Sequence[str]) -> Effects:
        """The same for these facts, in this order."""
        at = [self.names.index(name) for name in names]
        clusters = tuple(self.clusters[i] for i in at)
        return replace(self, names=tuple(names), clusters=clusters, effects=self.effects[at], totals=self.totals[at])

    def _column(self, layer: int) -> int:
        if layer not in self.layers:
            raise InputError(f"Layer {layer} was not measured; the layers are {list(self.layers)}.")
        return self.layers.index(layer)


def effects_of(
    rows: Sequence[Mapping[str, Any]],
    facts: Mapping[str, Fact],
    role: str,
    *,
    kind: str | None = None,
    score: str = SCORE,
    totals: Mapping[str, float] | None = None,
) -> Effects:
    """Effects of all facts whose total effect can be divided by.

    Args:
        rows: one a fact, each with its "id".
        facts: by id; they give the clusters.
        role: "last subject token" or "last token".
        kind: under which name a row holds what `record` made, such as "mlp"; None: the row itself is that. Rows that do
            not hold it are passed over.
        score: of the effects.
        totals: total effects by fact for maps that have none, such as mean lesions; facts without one are passed over.

    Raises:
        InputError: rows differ in their layers.
    """
    found = {row["id"]: row if kind is None else row[kind] for row in rows if kind is None or row.get(kind)}
    if len(measured := {tuple(row["layers"]) for row in found.values()}) > 1:
        raise InputError(f"Rows that are compared must agree in layers, got {sorted(measured)}; measure them again.")
    if totals is not None:
        withheld = {name: "no usable total effect" for name in found if name not in totals}
    else:
        withheld = {name: row["withheld"][score] for name, row in found.items() if row["withheld"][score]}
    kept = [name for name in found if name not in withheld]
    return Effects.of_lines(
        {name: cells(found[name], role, score).mean(axis=1) for name in kept},
        {name: total(found[name], score) if totals is None else totals[name] for name in kept},
        cluster_by_name(kept, facts),
        measured.pop() if measured else (),
        withheld,
    )


def tracer(bench: Bench, kind: str, samples: int, model: Model | None = None, **settings: Any) -> Tracer:
    """A tracer of the setting's layers at the two roles, by noise on the subject, scored by the logit difference.

    Args:
        bench: gives facts, layers, window, seed and, for its own model, the level of the noise.
        kind: "mlp", "attn" or "state".
        samples: noise draws.
        model: another than the bench's: the noise is then three times the spread of its own embeddings.
        settings: further ones of `Tracer.of`.
    """
    given = {"noise_level": bench.noise_level} if model is None else {}
    return narrow(
        Tracer.of(
            model or bench.model,
            bench.pool,
            kind=kind,
            window=bench.setting.place.window,
            samples=samples,
            score=SCORE,
            layers=bench.setting.layers,
            seed=bench.setting.seed,
            **(given | settings),
        )
    )


def traced(instrument: Tracer | Lesioner, model: Model, fact: Fact) -> dict[str, Any]:
    """The row of one fact's map.

    Raises:
        PalimpsestError: the fact cannot be traced, for example because it has no foil.
    """
    (found,) = instrument.each(model, [fact])
    if isinstance(found, PalimpsestError):
        raise found
    return record(found)


def seconds_of_maps(bench: Bench, samples: int, maps: float) -> float:
    """About what so many maps of one fact at two roles cost: a run of about eight tokens through most layers for each cell."""
    tokens = 2 * TYPICAL_TOKENS * samples + 0.7 * TYPICAL_TOKENS / 2 * samples * len(bench.setting.layers)
    return maps * bench.seconds_a_pass * BATCHED * (4 + tokens / 64)


def left_out(withheld: Mapping[str, str]) -> str:
    """For notes: how many facts have no usable total effect; "" for none."""
    count = len(withheld)
    return f" {count} fact{'s' if count != 1 else ''} without a usable total effect left out." if count else ""


def _short(number: float) -> float:
    return float(f"{number:.{DIGITS}g}")
