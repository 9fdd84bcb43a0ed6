"""Localisation against editing: does tracing say where an edit will succeed? (Hase et al. 2023, section 4.)

For fact i and layer l, with y_il how well an edit at l worked and x_il the tracing effect there,

    layer          y_il = a_l                         how much the layer alone accounts for
    effect         y_il = a + b x_il                  how much tracing alone does
    both           y_il = a_l + b x_il
    interaction    y_il = a_l + b_l x_il

    gain           R^2(both) - R^2(layer), R^2(interaction) - R^2(layer)       what tracing adds to knowing the layer

x_il is the restored fraction of the total effect, IE(t, l) / TE: at the token where it is largest ("max", as published; a maximum
over noisy values is biased upward, the more so the longer the prompt), or at the last subject token ("subject_last", named
beforehand). Facts that the model does not know, and those whose total effect is too near zero to divide by, are left out and named.

R^2 has no sign: whether edits succeed better or worse where tracing points is the sign of the slope b. A gain is never
negative. It is to be read beside `chance`: the same regression with the tracing effects of other facts put in (whole facts
shuffled over all relations, layers kept), where b can only fit what all facts share. p takes facts of one relation for
independent, which the intervals do not, and may be too small. F-tests stand here because the paper has them; they
take the layers of one fact for independent, which they are not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from typing import Any

import numpy as np
from jaxtyping import Float

from palimpsest.errors import InputError, SettingError, did_you_mean
from palimpsest.evaluate.sweep_result import Sweep
from palimpsest.locate.saving import save_json
from palimpsest.locate.tracing.maps import Maps, records_of
from palimpsest.statistics import Estimate
from palimpsest.statistics.regression import FTest, f_test, factor, fit_models, r2_intervals, slope_intervals

MODELS = {
    "layer": ("layer",),
    "effect": ("effect",),
    "both": ("layer", "effect"),
    "interaction": ("layer", "effect", "interaction"),
}
SLOPES = {name: MODELS[name] for name in ("effect", "both")}  # with an interaction there is a slope a layer
GAINS = (("layer", "both"), ("layer", "interaction"))
AT = ("max", "subject_last")
READS = (
    "R^2 says how much of the differences in edit success a model accounts for in these facts and layers. A small gain says that "
    "tracing does not tell where to edit; it does not say that tracing is wrong about where information is carried."
)

SHUFFLED = "whole facts, over all relations: p takes facts of one relation for independent, which the intervals do not"


@dataclass(frozen=True)
class Chance:
    """What shuffled tracing effects give: the mean of the statistic, and the share of shuffles at least as large."""

    mean: float
    p: float

    def to_json(self) -> dict[str, float]:
        """As plain data."""
        return {"mean": self.mean, "p": self.p}


@dataclass(frozen=True, eq=False)
class Localisation:
    """The regressions of edit success on layer and tracing effect.

    Attributes:
        metric: of edit success.
        at: where tracing effects were read.
        layers: of the sweep.
        facts: ids of the facts in the regression, all layers of each.
        left_out: ids of the other facts of the sweep, with the reason.
        r2: by model.
        gains: of "both" and "interaction" over "layer".
        slopes: b of "effect" and "both", edit success per unit of tracing effect; below 0 edits fail where tracing points.
        tests: F of the same gains.
        chance: of "effect" and of both gains, with tracing effects shuffled over facts of all relations.
        settings: of sweep and regression.
    """

    metric: str
    at: str
    layers: tuple[int, ...]
    facts: tuple[str, ...]
    left_out: Mapping[str, str]
    r2: Mapping[str, Estimate]
    gains: Mapping[str, Estimate]
    slopes: Mapping[str, Estimate]
    tests: Mapping[str, FTest]
    chance: Mapping[str, Chance]
    settings: Mapping[str, Any] = field(default_factory=dict)

    def table(self) -> list[dict[str, object]]:
        """Rows for people: R^2, gains and slopes with intervals, and chance beside them (`SHUFFLED`)."""
        rows: list[dict[str, object]] = []
        for name, estimate in self.r2.items():
            rows.append({"model": name, "R2": _short(estimate)} | self._beside(name, name == "effect"))
        for name, estimate in self.gains.items():
            rows.append(
                {"model": f"{name} - layer", "R2": _short(estimate)} | self._beside(f"{name} - layer", True, name)
            )
        return rows

    def to_json(self) -> dict[str, Any]:
        """As plain data, with how it is to be read."""
        return {
            "metric": self.metric,
            "at": self.at,
            "layers": list(self.layers),
            "facts": list(self.facts),
            "left_out": dict(self.left_out),
            "r2": {name: estimate.to_json() for name, estimate in self.r2.items()},
            "gains": {name: estimate.to_json() for name, estimate in self.gains.items()},
            "slopes": {name: estimate.to_json() for name, estimate in self.slopes.items()},
            "tests": {name: test.to_json() for name, test in self.tests.items()},
            "chance": {name: chance.to_json() for name, chance in self.chance.items()},
            "shuffled": SHUFFLED,
            "settings": dict(self.settings),
            "reads": READS,
        }

    def save(self, path: str | PathLike[str]) -> None:
        """Write `to_json` to a file, whole or not at all."""
        from palimpsest.runs.json_text import plain

        save_json(plain(self.to_json()), str(path))

    def _beside(self, model: str, shuffled: bool, name: str = "") -> dict[str, object]:
        chance = self.chance.get(name or model) if shuffled else None
        return {
            "slope": _short(self.slopes[model]) if model in self.slopes else "",
            "shuffled": "" if chance is None else f"{chance.mean:.3f}",
            "p": "" if chance is None else f"{chance.p:.3f}",
        }


def tracing_effects(
    maps: Maps, layers: Sequence[int], *, at: str = "max"
) -> tuple[dict[str, Float[np.ndarray, " layers"]], dict[str, str]]:
    """The restored fraction IE / TE of every fact by layer, and why facts have none.

    Args:
        maps: traces, as objects or as plain data, with the layers among theirs.
        layers: in the order wanted.
        at: "max" over the tokens of the prompt, or "subject_last".

    Raises:
        SettingError: an unknown place, or a layer that was not traced.
    """
    if at not in AT:
        raise SettingError(f"Tracing effects are read at max or subject_last, got {at!r}.{did_you_mean(at, AT)}")
    effects: dict[str, np.ndarray] = {}
    left_out: dict[str, str] = {}
    for record in records_of(maps):
        name = record["fact"]["id"]
        missing = [layer for layer in layers if layer not in record["layers"]]
        if missing:
            raise SettingError(
                f"The trace of {name} lacks layer {missing[0]}; trace the layers of the sweep: {list(layers)}."
            )
        if not record["known"]:
            left_out[name] = "the model does not know it"
        elif record["withheld"]:
            left_out[name] = str(record["withheld"])
        else:
            columns = [record["layers"].index(layer) for layer in layers]
            fraction = np.array(record["effect"])[:, columns] / record["total_effect"]
            effects[name] = fraction.max(axis=0) if at == "max" else fraction[record["subject"][1] - 1]
    return effects, left_out


def localisation(
    sweep: Sweep,
    maps: Maps,
    *,
    metric: str = "rewrite",
    token: str = "subject_last",
    at: str = "max",
    resamples: int = 2000,
    permutations: int = 999,
    seed: int = 0,
) -> Localisation:
    """Regress edit success on layer and tracing effect.

        found = localisation(sweep(model, facts, tokens=("subject_last",)), trace_facts(model, facts, layers=...).maps("state"))

    Args:
        sweep: of the facts, over layers.
        maps: traces of the same facts at the same layers.
        metric: of edit success: "rewrite" (as published), "es", "em", or any other of a cell.
        token: at which the facts were edited.
        at: where tracing effects are read, "max" or "subject_last".
        resamples: of relations and subjects, for intervals.
        permutations: shuffles of tracing effects over facts.
        seed: of both.

    Raises:
        InputError: fewer than three facts have an edit at every layer and a tracing effect.
        SettingError: the metric, token or place is unknown, a layer was not traced, or there is no permutation.
    """
    if permutations < 1:
        raise SettingError(f"permutations must be 1 or more, got {permutations}; 999 is customary.")
    traced, untold = tracing_effects(maps, sweep.layers, at=at)
    if token not in sweep.tokens:
        raise SettingError(f"The token {token!r} was not swept.{did_you_mean(token, sweep.tokens)}")
    success = sweep.values(metric)[:, sweep.tokens.index(token)].T
    kept: list[int] = []
    left_out: dict[str, str] = {}
    for i, fact in enumerate(sweep.facts):
        if fact.id not in traced:
            left_out[fact.id] = untold.get(fact.id, "it was not traced")
        elif np.isnan(success[i]).any():
            left_out[fact.id] = "it has no edit or no such metric at some layer"
        else:
            kept.append(i)
    if len(kept) < 3:
        raise InputError(
            f"A regression over facts needs three with an edit at every layer and a tracing effect, got {len(kept)}; "
            f"left out: {left_out}."
        )
    names = tuple(sweep.facts[i].id for i in kept)
    effect = np.array([traced[name] for name in names])
    clusters = [sweep.clusters[i] for i in kept for _ in sweep.layers]
    response = success[kept].ravel()
    r2, gains = r2_intervals(_blocks(effect), response, MODELS, clusters, gains=GAINS, resamples=resamples, seed=seed)
    slopes = slope_intervals(
        _blocks(effect), response, SLOPES, clusters, block="effect", resamples=resamples, seed=seed
    )
    fits = fit_models(_blocks(effect), response, MODELS)
    return Localisation(
        metric,
        at,
        sweep.layers,
        names,
        left_out,
        r2,
        {large: gains[small, large] for small, large in GAINS},
        slopes,
        {large: f_test(fits[small], fits[large]) for small, large in GAINS if fits[small].rank < fits[large].rank},
        _chances(effect, response, permutations, seed),
        {
            "token": token,
            "sweep": dict(sweep.settings),
            "resamples": resamples,
            "permutations": permutations,
            "seed": seed,
        },
    )


def _blocks(effect: Float[np.ndarray, "facts layers"]) -> dict[str, np.ndarray]:
    """Columns of the regression, one row a fact and layer: layers as a factor, the effect, and their products."""
    facts, layers = effect.shape
    layer = factor(list(range(layers)) * facts)
    x = effect.reshape(-1, 1)
    return {"layer": layer, "effect": x, "interaction": layer * x}


def _statistics(effect: np.ndarray, response: np.ndarray) -> dict[str, float]:
    fits = fit_models(_blocks(effect), response, MODELS)
    return {"effect": fits["effect"].r2} | {large: fits[large].r2 - fits[small].r2 for small, large in GAINS}


def _chances(
    effect: Float[np.ndarray, "facts layers"], response: Float[np.ndarray, " rows"], permutations: int, seed: int
) -> dict[str, Chance]:
    """The statistics with the tracing effects of whole facts given to other facts; p counts the true order as one shuffle."""
    observed = _statistics(effect, response)
    draw = np.random.default_rng(seed)
    shuffled = [_statistics(effect[draw.permutation(len(effect))], response) for _ in range(permutations)]
    chances = {}
    for name, value in observed.items():
        drawn = np.array([one[name] for one in shuffled])
        if np.isnan(value):
            chances[name] = Chance(float("nan"), float("nan"))
            continue
        extreme = int((drawn >= value - 1e-12).sum())
        chances[name] = Chance(float(drawn.mean()), (1 + extreme) / (1 + permutations))
    return chances


def _short(estimate: Estimate) -> str:
    return str(estimate).split(" (")[0]
