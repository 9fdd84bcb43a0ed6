"""Does an edit work best where the fact is said to be? The same edit at every measured layer, and windows less one layer each.

    A_f = success(edit at the place) - median over other layers of success(edit there)             edit-advantage
    D_l = N(window) - N(window without l)                                                          minimality

A localisation that is worth its name says where to edit. Hase et al. (2023, arXiv 2301.04213) found that it does not: how well an
edit works hardly depends on where tracing points. So each fact is edited at every layer with the same steps and the same clamp,
and the place must beat the median of the others, not just work. A success is p(new answer) > p(old answer) after the prompt.

A member of the window belongs to it if the lesion of the window is smaller without it (validity of circuits by leave-one-out:
Wang et al. 2023, section 4). N is the loss of the logit difference between old and new answer when the site's outputs at the
place's token are set to their mean over other subjects of the relation.

Other layers whose edits are not inferior to the place's by `MARGIN` are rivals: where there is one, "the place" is "a place".
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from palimpsest.audit.bench import Bench
from palimpsest.audit.evidence import Control, Evidence
from palimpsest.audit.experiment import Row, Rows
from palimpsest.audit.experiments.edit_reading import SEARCH_PASSES, TARGET, Strata, random_value
from palimpsest.audit.experiments.over_facts import clusters_of_rows, column
from palimpsest.audit.experiments.roles import rounded
from palimpsest.audit.setting import SUBJECT, Setting
from palimpsest.facts import Fact
from palimpsest.locate.answers import first_token, prompt_and_token
from palimpsest.locate.tracing.patching import SITES
from palimpsest.model import Model, Site, Tap, pad
from palimpsest.statistics import (
    Estimate,
    cluster_bootstrap,
    clustered_proportion,
    of_means,
    paired_difference,
    sign_flip_p,
)
from palimpsest.statistics.tost import non_inferior

MARGIN = 0.05  # in probability of the new answer: an edit at another layer that loses less is as good
MOST_LAYERS = (
    8  # where more are measured, every second one is edited: a value search a layer is the dearest thing an audit does
)
DONORS = 8  # other subjects of the relation whose mean stands in for a lesioned site
EDITED = (
    "Rank-one edits of the down-projection, whatever module the claim names; with equal steps and clamp, not equal norms "
    "(which are in the data)."
)


class EditLayers:
    """Edits and leave-one-out lesions at the layers of the setting, at every second one where they are many."""

    name = "edit-layers"
    criteria: tuple[str, ...] = ("I2", "C4")
    needs: tuple[str, ...] = ()

    def units(self, setting: Setting) -> Sequence[str]:
        """One a confirmation fact."""
        return setting.facts_for(self.name)

    def seconds(self, bench: Bench) -> float:
        """A value search a layer, and a run of all windows."""
        layers = len(edited_layers(bench.setting))
        rows = layers * (bench.setting.place.window + 1)
        search = SEARCH_PASSES * 2 / 3  # a search runs the layers above its own; measured over all layers of smollm2
        return bench.seconds_a_pass * (layers * (search + 1) + 1 + rows / 4)

    def measure(self, bench: Bench, unit: str) -> Row:
        """Success of the edit and of a random value at each layer; lesions of each window, whole and without each member."""
        fact, setting = bench[unit], bench.setting
        layers = edited_layers(setting)
        strata = Strata.of(bench.model, fact, only=(TARGET,))
        before = strata.read(bench.model)
        edits: dict[str, list[float]] = {name: [] for name in ("p_new", "p_old", "random_new", "random_old", "norm")}
        for layer in layers:
            edit = bench.edit_at([fact], layer)
            for name, one in (("p", edit), ("random", random_value(bench.model, edit, seed=setting.seed))):
                with one.applied(bench.model):
                    reading = strata.read(bench.model)
                edits[f"{name}_new"].append(reading.p[0])
                edits[f"{name}_old"].append(reading.rival[0])
            edits["norm"].append(edit.norm)
        return {
            "layers": list(layers),
            "before": rounded([before.p[0], before.rival[0]]),
            **{name: rounded(values) for name, values in edits.items()},
            "lesions": _lesions(bench, fact, layers),
        }

    def conclude(self, setting: Setting, facts: Mapping[str, Fact], rows: Rows) -> Sequence[Evidence]:
        """The advantage of editing at the place, its rank, its rivals, and whether its window is minimal."""
        own = [row for row in rows.get(self.name, ()) if setting.place.centre in row["layers"]]
        own = [row for row in own if row["layers"] == own[0]["layers"]]
        if not own:
            return []
        return [*self._edited(setting, facts, own), *self._minimal(setting, facts, own)]

    def _edited(self, setting: Setting, facts: Mapping[str, Fact], rows: Sequence[Row]) -> list[Evidence]:
        layers = tuple(rows[0]["layers"])
        at, clusters = layers.index(setting.place.centre), clusters_of_rows(rows, facts)
        if len(layers) < 2:
            return []
        p_new, p_old = column(rows, lambda row: row["p_new"]), column(rows, lambda row: row["p_old"])
        success = (p_new > p_old).astype(float)
        gap = p_new - p_old
        chance = (column(rows, lambda row: row["random_new"]) > column(rows, lambda row: row["random_old"]))[:, at]
        others = np.median(np.delete(success, at, axis=1), axis=1)
        gap_elsewhere = np.median(np.delete(gap, at, axis=1), axis=1)
        advantage = paired_difference(
            success[:, at], others, clusters, unit="success, the place's less the median of others"
        )
        controls = (
            Control("N1", clustered_proportion(others, clusters), "success of the edit at the median other layer"),
            Control(
                "N3", clustered_proportion(chance, clusters), "success of a random value of equal norm at the place"
            ),
        )
        profile = {
            "layers": list(layers),
            "success": [float(value) for value in success.mean(axis=0)],
            "p_new": [float(value) for value in p_new.mean(axis=0)],
            "norm": [float(value) for value in column(rows, lambda row: row["norm"]).mean(axis=0)],
            "before": [float(value) for value in column(rows, lambda row: row["before"]).mean(axis=0)],
        }
        differs = paired_difference(
            gap[:, at], gap_elsewhere, clusters, unit="p(new) - p(old), against the median of others"
        )
        shared: dict[str, Any] = {"family": "causal", "mode": "interventional", "note": EDITED}
        return [
            Evidence(
                self.name,
                "edit-advantage",
                ("I2",),
                estimate=advantage,
                controls=controls,
                contrast=advantage,
                p=sign_flip_p(success[:, at] - others, clusters, alternative="greater"),
                data={**profile, "facts": by_fact(rows, gap[:, at] - gap_elsewhere)},
                **shared,
            ),
            Evidence(self.name, "edit-advantage-probability", (), estimate=differs, data=profile, **shared),
            Evidence(
                self.name,
                "edit-percentile",
                (),
                estimate=of_means(
                    gap,
                    clusters,
                    lambda means: percentile(means, at),
                    name="percentile rank of the place",
                    unit="share of other layers that the place beats",
                ),
                **shared,
            ),
            Evidence(self.name, "rivals", ("C4",), estimate=self._rivals(p_new, at, clusters), data=profile, **shared),
        ]

    def _rivals(self, p_new: np.ndarray, at: int, clusters: Sequence[tuple[str, str]]) -> Estimate:
        """1 - the share of other layers that are rivals.

        The value counts layers whose mean is within the margin or above. The ends count what the tests leave open: low, every
        layer that is not shown to be worse by the margin; high, only those shown not to be.
        """
        others = [i for i in range(p_new.shape[1]) if i != at]
        place = p_new[:, at]
        near = [bool(p_new[:, i].mean() >= place.mean() - MARGIN) for i in others]
        shown = [non_inferior(p_new[:, i], place, MARGIN, clusters).equivalent for i in others]
        differences = [paired_difference(p_new[:, i], place, clusters) for i in others]
        possible = [not bool(difference.high < -MARGIN) for difference in differences]
        return Estimate(
            1 - float(np.mean(near)),
            1 - float(np.mean(np.maximum(possible, near))),
            1 - float(np.mean(np.minimum(shown, near))),
            n=len(place),
            clusters=len({relation for relation, _ in clusters}),
            method=f"layers not inferior by {MARGIN}; low: all not shown to be worse, high: only those shown not inferior",
            unit="share of other layers that are no rival",
        )

    def _minimal(self, setting: Setting, facts: Mapping[str, Fact], rows: Sequence[Row]) -> list[Evidence]:
        members = list(setting.place.layers(setting.n_layers))
        centre = str(setting.place.centre)
        usable = [row for row in rows if row["lesions"] is not None and row["lesions"][centre]["layers"] == members]
        if not usable:
            return []
        clusters = clusters_of_rows(usable, facts)
        drops = {str(layer): _drops(usable, str(layer), clusters) for layer in rows[0]["layers"]}
        others = [_needed(of_window) for layer, of_window in drops.items() if layer != centre]
        missing = len(rows) - len(usable)
        return [
            Evidence(
                self.name,
                "minimality",
                ("C4",),
                "causal",
                "interventional",
                _needed(drops[centre]),
                controls=(Control("N1", _average(others), "the same in the windows of the other layers"),)
                if others
                else (),
                note="Leave one layer out of the window's mean lesion; type of minimality: causal."
                + (f" {missing} facts have no other subject to take a mean from." if missing else ""),
                data={
                    "members": members,
                    "whole": cluster_bootstrap(_whole(usable, centre), clusters, unit="logits").to_json(),
                    "drops": [drop.to_json() for drop in drops[centre]],
                },
            )
        ]


def edited_layers(setting: Setting) -> tuple[int, ...]:
    """All measured layers up to `MOST_LAYERS`; of more, every second one and the place's."""
    if len(setting.layers) <= MOST_LAYERS:
        return setting.layers
    return tuple(sorted({*setting.layers[::2], setting.place.centre}))


def by_fact(rows: Sequence[Row], values: Float[np.ndarray, " facts"]) -> dict[str, float]:
    """Fact to value: the advantage in p(new) - p(old), for successes are 0 or 1 and have no ranks."""
    return {str(row["id"]): value for row, value in zip(rows, rounded(values), strict=True)}


def _whole(rows: Sequence[Row], layer: str) -> Float[np.ndarray, " facts"]:
    return column(rows, lambda row: row["lesions"][layer]["whole"])


def _drops(rows: Sequence[Row], layer: str, clusters: Sequence[tuple[str, str]]) -> list[Estimate]:
    """What leaving out each member takes from the lesion of a window."""
    without = column(rows, lambda row: row["lesions"][layer]["without"])
    return [cluster_bootstrap(_whole(rows, layer) - left, clusters, unit="logits") for left in without.T]


def _needed(drops: Sequence[Estimate]) -> Estimate:
    """Share of the members that are needed: by their means, and the least and the most that the intervals allow."""
    return Estimate(
        float(np.mean([drop.value > 0 for drop in drops])),
        float(np.mean([drop.low > 0 for drop in drops])),
        float(np.mean([not drop.high <= 0 for drop in drops])),
        n=drops[0].n,
        clusters=drops[0].clusters,
        method="members whose mean drop is above 0; low: whose interval is, high: all not shown to be at most 0",
        unit="share of the members of the window",
    )


def _average(windows: Sequence[Estimate]) -> Estimate:
    """The mean of `_needed` over several windows, ends and all."""
    value, low, high = (float(np.mean([getattr(one, end) for one in windows])) for end in ("value", "low", "high"))
    first = windows[0]
    return Estimate(
        value, low, high, first.n, first.clusters, method=f"mean of windows: {first.method}", unit=first.unit
    )


def percentile(means: np.ndarray, at: int) -> float:
    """Share of the other numbers that lie below number `at`, ties half."""
    others = np.delete(means, at)
    return float(np.mean(others < means[at]) + np.mean(others == means[at]) / 2)


@torch.no_grad()
def _lesions(bench: Bench, fact: Fact, layers: Sequence[int]) -> dict[str, Any] | None:
    """The lesion of the window around each layer, whole and without each member, all rows of one batch.

    The mean is that of other subjects of the relation, of any relation where there is none; None where there is no other subject.
    """
    model, setting = bench.model, bench.setting
    place = setting.place
    windows = {layer: list(replace(place, centre=layer).layers(model.n_layers)) for layer in layers}
    used = sorted({layer for window in windows.values() for layer in window})
    sites = [Site(SITES[place.module], layer) for layer in used]
    others = [one for one in bench.facts.values() if one.subject != fact.subject]
    donors = [one for one in others if one.relation == fact.relation] or others
    if not donors:
        return None
    mean = _mean_states(model, donors[:DONORS], place.position, sites)
    encoded, old = prompt_and_token(model, fact.text, str(fact.target_true))
    new = first_token(model, fact.text, str(fact.target_new))
    at = token_of(model, fact, place.position)
    sets = [window_less for window in windows.values() for window_less in [window, *_without_one(window)]]
    rows = [set[int](), *map(set, sets)]

    def put(site: Site) -> Tap:
        hit = torch.tensor([site.layer in row for row in rows])

        def function(states: Tensor) -> Tensor:
            states = states.clone()
            states[hit.to(states.device), at] = mean[site].to(states)
            return states

        return Tap(site, function)

    batch = pad([encoded.ids] * len(rows))
    with model.evaluating():
        last = torch.full((len(rows), 1), len(encoded) - 1)
        logits = model.run(batch, at=last.to(model.device), taps=[put(site) for site in sites])[:, 0]
    differences = (logits[:, old] - logits[:, new]).double().cpu()
    effects = iter((differences[0] - differences[1:]).tolist())
    return {
        str(layer): {
            "layers": window,
            "whole": rounded(next(effects)),
            "without": rounded([next(effects) for _ in window]),
        }
        for layer, window in windows.items()
    }


def _without_one(window: Sequence[int]) -> list[list[int]]:
    return [[other for other in window if other != layer] for layer in window]


def token_of(model: Model, fact: Fact, position: str) -> int:
    """Where a place's position is in the prompt of a fact."""
    encoded = model.encode(fact.text)
    return encoded.tokens_of(*fact.subject_span)[-1] if position == SUBJECT else len(encoded) - 1


def _mean_states(model: Model, donors: Sequence[Fact], position: str, sites: Sequence[Site]) -> dict[Site, Tensor]:
    """The mean over donors of each site at their own token of that role."""
    batch = pad([model.encode(donor.text).ids for donor in donors])
    at = torch.tensor([token_of(model, donor, position) for donor in donors])
    with model.evaluating():
        states = model.record(batch, sites)
    return {site: states[site][torch.arange(len(donors)), at].double().mean(0) for site in sites}


EXPERIMENT = EditLayers
