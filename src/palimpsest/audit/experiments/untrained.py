"""Whether the place stands above every null, an untrained model among them (criterion M3).

    gap = sum e / sum TE - max( sum e_N1 / sum TE,  sum e_N4 / sum TE,  sum e_N6 / sum TE )

    e       effect at the place, trained model
    N1      the median over its other layers
    N4      the same place restored from another subject of the relation
    N6      effect at the place in re-initialised models, raw: in logits, mean of three, over the *trained* model's TE

An untrained model has next to no total effect, so a share of its own would be a ratio of noise; in logits, on the trained model's
scale, it says how much of a restored logit comes with the architecture. The highest null is found anew in each resample, so
that choosing it costs its due. Where every fact has a trace, few have the nulls N4 and N6 (three more models a fact): each
null's share is taken over the facts that have it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from palimpsest.audit.bench import Bench
from palimpsest.audit.evidence import Control, Evidence
from palimpsest.audit.experiment import Row, Rows
from palimpsest.audit.experiments.roles import SHARE, cells, effects_of, left_out, seconds_of_maps, traced, tracer
from palimpsest.audit.setting import POSITIONS, Setting
from palimpsest.errors import FactError
from palimpsest.facts import Fact
from palimpsest.statistics import Estimate, of_means, ratio_estimate, sign_flip_p

FEW = 12  # facts, where the setting does not say how many
NOTES = {
    "N1": "median of the other layers",
    "N4": "restored from another subject of the relation",
    "N6": "re-initialised models, in logits over the trained model's total effect",
}


class Untrained:
    """The trace of `Tracing` on re-initialised models, and with another subject's states; see the module's text."""

    name = "untrained"
    criteria = ("M3",)
    needs = ("tracing",)

    def units(self, setting: Setting) -> Sequence[str]:
        """One a fact, of few."""
        given = setting.facts_for(self.name)
        return given if self.name in (setting.cuts or {}) else given[:FEW]

    def seconds(self, bench: Bench) -> float:
        """Three models and one more donor."""
        return seconds_of_maps(bench, bench.setting.samples, 4)

    def measure(self, bench: Bench, unit: str) -> Row:
        """One map a re-initialised model under "models", and one under "shuffled"; that is None where no subject fits."""
        fact, samples, kind = bench[unit], bench.setting.samples, bench.setting.place.module
        try:
            shuffled = traced(tracer(bench, kind, samples, donor="shuffled-subject"), bench.model, fact)
        except FactError:  # no other subject has as many tokens: N4 cannot be had for this fact
            shuffled = None
        models = [traced(tracer(bench, kind, samples, model), model, fact) for model in bench.untrained]
        return {"models": models, "shuffled": shuffled}

    def conclude(self, setting: Setting, facts: Mapping[str, Fact], rows: Rows) -> Sequence[Evidence]:
        """The gap, with all nulls beside it."""
        place, seed, own = setting.place, setting.seed, rows[self.name]
        effects = effects_of(rows["tracing"], facts, place.position, kind=place.module)
        if not len(effects) or not own or len(effects.layers) < 2:
            return []
        place_effects = effects.at(place.centre)
        nulls = {"N1": effects.elsewhere(place.centre)} | {
            name: aligned(values, effects.names)
            for name, values in (
                ("N4", shuffled_at(own, place.position, place.centre)),
                ("N6", untrained_at(own, place.position, place.centre)),
            )
        }
        nulls = {name: null for name, null in nulls.items() if not np.isnan(null).all()}
        shares = {name: _share(null, effects.totals, effects.clusters, seed) for name, null in nulls.items()}
        highest = max(shares, key=lambda name: shares[name].value)
        both = ~np.isnan(nulls[highest])
        difference = (place_effects - nulls[highest])[both]
        clusters = [cluster for cluster, has in zip(effects.clusters, both, strict=True) if has]
        gap = of_means(
            np.column_stack([place_effects, effects.totals, *_columns(nulls, effects.totals)]),
            effects.clusters,
            gap_of_means,
            name=f"share at the place minus the highest of {', '.join(nulls)}",
            unit=SHARE,
            seed=seed,
        )
        return [
            Evidence(
                experiment=self.name,
                endpoint="baseline-gap",
                criteria=("M3",),
                family="measurement",
                mode="interventional",
                estimate=gap,
                controls=tuple(
                    # however high a null stands: the gap is what is left above it
                    Control(name, share, NOTES[name])
                    for name, share in shares.items()
                ),
                contrast=gap,
                p=sign_flip_p(difference, clusters, flip="inner", alternative="greater", seed=seed),
                note=f"The highest null is {highest}, {NOTES[highest]}; p is of the {len(clusters)} facts that have it."
                f"{'' if 'N6' in nulls else ' No untrained model was measured.'}{left_out(effects.withheld)}",
                data={
                    "highest": highest,
                    "n": {name: int((~np.isnan(null)).sum()) for name, null in nulls.items()},
                    "untrained_models": max(len(row["models"]) for row in own),
                    "profiles": {role: self._profiles(setting, facts, rows, role) for role in POSITIONS},
                },
            )
        ]

    def _profiles(self, setting: Setting, facts: Mapping[str, Fact], rows: Rows, role: str) -> dict[str, Any]:
        """Trained and untrained mean effect by layer, both in logits, on the facts that both have."""
        own = {row["id"]: row for row in rows[self.name]}
        trained = effects_of(rows["tracing"], facts, role, kind=setting.place.module)
        shared = [name for name in trained.names if name in own]
        if not shared:
            return {}
        untrained = np.stack(
            [np.mean([cells(one, role).mean(axis=1) for one in own[name]["models"]], axis=0) for name in shared]
        )
        return {
            "layers": list(trained.layers),
            "trained": trained.of(shared).effects.mean(axis=0).tolist(),
            "untrained": untrained.mean(axis=0).tolist(),
            "untrained_sd": untrained.std(axis=0).tolist(),
            "n": len(shared),
            "unit": "logits",
        }


def untrained_at(rows: Sequence[Row], role: str, layer: int) -> dict[str, float]:
    """By fact the effect of one layer in logits, mean over re-initialised models."""
    return {
        row["id"]: float(np.mean([cells(one, role)[one["layers"].index(layer)].mean() for one in row["models"]]))
        for row in rows
        if row["models"]
    }


def shuffled_at(rows: Sequence[Row], role: str, layer: int) -> dict[str, float]:
    """By fact the effect of one layer where another subject's states were restored."""
    return {
        row["id"]: float(cells(row["shuffled"], role)[row["shuffled"]["layers"].index(layer)].mean())
        for row in rows
        if row["shuffled"]
    }


def aligned(values: Mapping[str, float], names: Sequence[str]) -> Float[np.ndarray, " facts"]:
    """Values in the order of the names; NaN for a fact that has none."""
    return np.array([values.get(name, np.nan) for name in names], dtype=float)


def gap_of_means(means: Float[np.ndarray, " columns"]) -> float:
    """Share at the place minus the highest null, from the means of (effect, TE, null 1, its TE, null 2, its TE, ...).

    NaN where a null has no fact in the resample.

    >>> gap_of_means(np.array([3.0, 4.0, 1.0, 4.0, 0.5, 1.0]))
    0.25
    """
    if (means[1::2] == 0).any():
        return float("nan")
    shares = means[0::2] / means[1::2]
    return float(shares[0] - shares[1:].max())


def _columns(
    nulls: Mapping[str, Float[np.ndarray, " facts"]], totals: Float[np.ndarray, " facts"]
) -> list[Float[np.ndarray, " facts"]]:
    """Per null its effects, and the total effects of the facts that have it; nothing where a fact has none."""
    return [
        column
        for null in nulls.values()
        for column in (np.where(np.isnan(null), 0.0, null), np.where(np.isnan(null), 0.0, totals))
    ]


def _share(
    null: Float[np.ndarray, " facts"],
    totals: Float[np.ndarray, " facts"],
    clusters: Sequence[tuple[str, str]],
    seed: int,
) -> Estimate:
    has = ~np.isnan(null)
    kept = [cluster for cluster, one in zip(clusters, has, strict=True) if one]
    return ratio_estimate(null[has], totals[has], kept, seed=seed, unit=SHARE)


EXPERIMENT = Untrained
