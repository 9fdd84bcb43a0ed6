"""`Transport`: whether another model, of another family, shows the same profile over depth.

    match = rho(own facts, other model's facts) - max(0, rho(own facts, other model's agreement))        over 20 bins of depth
    shift = |depth of own peak - depth of the other's|                                                   depth = layer / (L - 1)

The other model is one that ships with the package and is built by another class of network than the audited one; it is traced
in the same way on facts of its own that it knows, with a window that is as large a part of its depth. A match that is no better
than the one with another task says that such networks have such profiles, not that facts have such places. Two models are no
sample of models: intervals resample facts, and speak of these two.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import stats

from palimpsest.audit.bench import NOISE_SPREADS, Bench
from palimpsest.audit.evidence import Control, Evidence
from palimpsest.audit.experiment import Row, Rows
from palimpsest.audit.experiments.roles import SCORE, effects_of, narrow, seconds_of_maps, traced
from palimpsest.audit.experiments.tasks import agreement
from palimpsest.audit.setting import Setting
from palimpsest.errors import PalimpsestError, SettingError
from palimpsest.facts import Fact
from palimpsest.locate.known import passing
from palimpsest.locate.tracing.corruption import embedding_spread
from palimpsest.locate.tracing.trace import Tracer
from palimpsest.model import Model, load
from palimpsest.statistics import Estimate, of_two
from palimpsest.statistics.means import Draws, Means
from palimpsest.world.records import records
from palimpsest.world.world import made_world

SHIPPED = ("world-llama", "world")  # tried in this order
BINS = 20
COUNT = {"smoke": 6, "standard": 24, "full": 40}
SAMPLES = 5
RELATIONS = ("born_in", "profession", "employer")
ALLOWED = 0.10  # of depth


@dataclass
class Elsewhere:
    """Another model with facts it knows; made once."""

    model: Model
    count: int

    @cached_property
    def facts(self) -> list[Fact]:
        """Facts of the made world that it knows, relations in turn, each subject once."""
        pool = sorted(records(made_world(), RELATIONS, probes=0), key=lambda fact: fact.id[::-1])
        by = [
            [fact for fact in pool if fact.relation == relation][i :: len(RELATIONS)]
            for i, relation in enumerate(RELATIONS)
        ]
        mixed = [fact for turn in zip(*by, strict=False) for fact in turn]
        kept: dict[str, Fact] = {}
        for fact in mixed[: 6 * self.count]:
            kept.setdefault(fact.subject, fact)
        return passing(self.model, list(kept.values()), "known", limit=self.count)


class Transport:
    """E6; see the module's text."""

    name = "transport"
    criteria = ("E6",)
    needs = ("tracing",)

    def __init__(self) -> None:
        self._elsewhere: Elsewhere | None = None

    def units(self, setting: Setting) -> Sequence[str]:
        """Places in the list of the other model's facts."""
        most = COUNT.get(setting.size, COUNT["standard"])
        return [f"elsewhere/{i}" for i in range((setting.cuts or {}).get(self.name, most))]

    def seconds(self, bench: Bench) -> float:
        """Two maps of a small model."""
        return min(2.0, seconds_of_maps(bench, SAMPLES, 2))

    def measure(self, bench: Bench, unit: str) -> Row:
        """The trace of one fact of the other model, and of an item of another task.

        Raises:
            SettingError: the other model knows too few facts.
        """
        other = self._other(bench)
        place = int(unit.split("/")[1])
        if place >= len(other.facts):
            raise SettingError(
                f"{other.model.name} knows {len(other.facts)} of the facts tried, so there is no {unit}."
            )
        fact, model, here = other.facts[place], other.model, bench.setting.place
        row: dict[str, Any] = {
            "model": model.name,
            "network": type(model.net).__name__,
            "relation": fact.relation,
            "subject": fact.subject,
            "facts": traced(self._tracer(bench, other), model, fact),
        }
        try:
            row["agreement"] = traced(self._tracer(bench, other), model, agreement(place))
        except PalimpsestError as error:
            row["without"] = str(error)
        return {**row, "position": here.position}

    def conclude(self, setting: Setting, facts: Mapping[str, Fact], rows: Rows) -> Sequence[Evidence]:
        """`transport` and `transport-peak`."""
        role, mine = setting.place.position, rows.get(self.name, ())
        named = {str(row["id"]): Fact(row["subject"], "{}", relation=row["relation"]) for row in mine}
        both = [row for row in mine if row.get("agreement")]
        own = effects_of(rows.get("tracing", ()), facts, role, kind=setting.place.module)
        there = effects_of(both, named, role, kind="facts")
        if len(own) < 2 or len(there) < 2 or len(own.layers) < 4:
            return []
        syntax = effects_of(both, named, role, kind="agreement", totals=dict.fromkeys(there.names, 1.0)).of(there.names)
        depth = len(there.layers)
        tables = (own.effects, np.concatenate([there.effects, syntax.effects], axis=1))
        clusters = (list(own.clusters), list(there.clusters))
        depths = np.array(own.layers) / (setting.n_layers - 1), np.array(there.layers) / (depth - 1)

        lines = bins_of(depths[0]), bins_of(depths[1])

        def facts_alike(a: Draws, b: Draws) -> Means:
            return rho_of(a @ lines[0], b[:, :depth] @ lines[1])

        def task_alike(a: Draws, b: Draws) -> Means:
            return rho_of(a @ lines[0], b[:, depth:] @ lines[1])

        def beyond(a: Draws, b: Draws) -> Means:  # being unlike the other task earns nothing
            return facts_alike(a, b) - np.maximum(0.0, task_alike(a, b))

        def near(a: Draws, b: Draws) -> Means:
            return ALLOWED - np.abs(depths[0][a.argmax(axis=1)] - depths[1][b[:, :depth].argmax(axis=1)])

        def compared(name: str, function: Callable[[Draws, Draws], Means], unit: str) -> Estimate:
            return of_two(tables, clusters, function, name=name, unit=unit, seed=setting.seed)

        match = compared("rho with facts minus rho with agreement", beyond, "rho")
        plain, task = compared("rho with facts", facts_alike, "rho"), compared("rho with agreement", task_alike, "rho")
        note = f"Against {both[0]['model']} ({both[0]['network']}), {len(there)} facts it knows; one other model."
        data = {
            "profiles": {
                "own": [depths[0].tolist(), own.effects.mean(axis=0).tolist()],
                "other": [depths[1].tolist(), there.effects.mean(axis=0).tolist()],
                "agreement": [depths[1].tolist(), syntax.effects.mean(axis=0).tolist()],
            },
            "rho": plain.to_json(),
            "rho_with_agreement": task.to_json(),
            "model": both[0]["model"],
        }
        shared: dict[str, Any] = {
            "criteria": ("E6",),
            "family": "causal",
            "mode": "interventional",
            "note": note,
            "data": data,
        }
        return [
            Evidence(
                self.name,
                "transport",
                estimate=match,
                controls=(Control("N1", task, "the other model's agreement of number in place of its facts"),),
                **shared,
            ),
            Evidence(
                self.name,
                "transport-peak",
                estimate=compared(f"{ALLOWED} - shift of the peak", near, f"{ALLOWED} - depth"),
                **shared,
            ),
        ]

    def _other(self, bench: Bench) -> Elsewhere:
        if self._elsewhere is None:
            kinds = type(bench.model.net)
            models = (load(name) for name in SHIPPED)
            other = next(model for model in models if type(model.net) is not kinds)
            self._elsewhere = Elsewhere(other, COUNT.get(bench.setting.size, COUNT["standard"]))
        return self._elsewhere

    def _tracer(self, bench: Bench, other: Elsewhere) -> Tracer:
        place, model = bench.setting.place, other.model
        window = max(1, round(place.window * model.n_layers / bench.model.n_layers)) if place.module != "state" else 1
        level = NOISE_SPREADS * embedding_spread(model, other.facts)
        return narrow(
            Tracer.of(
                model,
                other.facts,
                kind=place.module,
                window=window,
                samples=SAMPLES,
                noise_level=level,
                score=SCORE,
                seed=bench.setting.seed,
            )
        )


def bins_of(depths: Float[np.ndarray, " layers"], bins: int = BINS) -> Float[np.ndarray, "layers bins"]:
    """The matrix that takes a profile by layer to evenly spaced depths, by straight lines between layers."""
    return np.stack([np.interp(np.linspace(0, 1, bins), depths, one) for one in np.eye(len(depths))])


def rho_of(a: Float[np.ndarray, "draws bins"], b: Float[np.ndarray, "draws bins"]) -> Float[np.ndarray, " draws"]:
    """Spearman's rho row by row; 0 where a profile does not vary."""
    left, right = (stats.rankdata(lines, axis=1) for lines in (a, b))
    left, right = (ranks - ranks.mean(axis=1, keepdims=True) for ranks in (left, right))
    size = np.sqrt((left**2).sum(axis=1) * (right**2).sum(axis=1))
    return np.divide((left * right).sum(axis=1), size, out=np.zeros(len(size)), where=size > 0)


EXPERIMENT = Transport
