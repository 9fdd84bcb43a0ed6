"""Lesions: does the clean run need what is at the place?

    N = m - m(clean; site <- something else)        m = logit of the answer - logit of the foil

    interchange   what the site was for another subject of the relation       / total effect of that swap
    mean          its mean over such subjects                                  / total effect of that swap
    resample      what it was at a random token of a random other prompt       / total effect of noise on the subject
    zero          nothing; reported, never counted alone                       / total effect of noise on the subject
    weights       W' = W - W k u^T,  u = C^-1 k / (k^T C^-1 k)                 / total effect of noise on the subject

The last takes one slot out of the weights of one layer: W' k = 0 for the key k of this prompt at the token, while a key k' loses
only W k (u^T k'), which is least, over ordinary keys, among all rank-one changes that do so (the converse of the insertion of Meng
et al. 2022, section 3.1: there W' k = v, here W' k = 0). It is made by taps that give exactly these products, so no weight is ever
changed.

A large restoration without a lesion effect is redundancy: other sites can do what this one does (Zhang and Nanda 2024). The reach
of a lesion is how far it moves the residual stream where the window ends, |h' - h| / |h|: an effect of a lesion that moves it
little is strong, and no effect of one that moves it little says nothing.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from palimpsest.audit.bench import Bench
from palimpsest.audit.evidence import Evidence
from palimpsest.audit.experiment import Row, Rows
from palimpsest.audit.experiments.over_facts import clusters_of_rows
from palimpsest.audit.experiments.placed import placed, too_small
from palimpsest.audit.experiments.roles import (
    ROLES,
    SCORE,
    Effects,
    effects_of,
    left_out,
    narrow,
    record,
    rounded,
    seconds_of_maps,
    total,
    traced,
)
from palimpsest.audit.setting import LAST, SUBJECT, Setting
from palimpsest.edit.moments import SecondMoment, cached_moments
from palimpsest.errors import AnatomyError, EditError, FactError
from palimpsest.facts import Fact, shipped_text
from palimpsest.locate.tracing.asked import Asked, ask, clean_log_p, run_clean, run_corrupted, scored_tokens
from palimpsest.locate.tracing.corruption import Corrupted, swapped
from palimpsest.locate.tracing.lesion import Lesioner
from palimpsest.locate.tracing.maps import Lesion
from palimpsest.locate.tracing.patching import SITES, Patch, Ran, run_all
from palimpsest.locate.tracing.trace import Tracer, described
from palimpsest.model import Model, Site, Tap, align
from palimpsest.statistics import cluster_bootstrap

BY = ("interchange", "mean", "resample", "zero")  # lesions of activations, in the order they are reported
WHOLE: Mapping[str, str] = {  # which total effect each is divided by
    "interchange": "interchange",
    "mean": "interchange",
    "resample": "noise",
    "zero": "noise",
    "weights": "noise",
}
TOTALS: Mapping[str, str] = {"interchange": "another subject in its place", "noise": "noise on the subject"}


class Lesions:
    """See the module's text."""

    name = "lesion"
    criteria = ("I1", "E1")
    needs = ()

    def __init__(self) -> None:
        self._moments: dict[str, dict[int, SecondMoment]] = {}

    def units(self, setting: Setting) -> Sequence[str]:
        """One a fact."""
        return setting.facts_for(self.name)

    def seconds(self, bench: Bench) -> float:
        """Two maps with samples, and mean, zero, removals and reach without."""
        return seconds_of_maps(bench, bench.setting.samples, 2) + seconds_of_maps(bench, 1, 5)

    def measure(self, bench: Bench, unit: str) -> Row:
        """The record of each lesion by its name, the total effects, and the reach; under "without" why one could not be made."""
        fact, model, setting = bench[unit], bench.model, bench.setting
        row: dict[str, Any] = {"layers": list(setting.layers), "noise": noise_total(bench, fact), "without": {}}
        for by in BY:
            made = Lesioner.of(
                model,
                bench.pool,
                kind=setting.place.module,
                window=setting.place.window,
                by=by,
                samples=setting.samples,
                score=SCORE,
                layers=setting.layers,
                seed=setting.seed,
            )
            try:
                row[by] = traced(narrow(made), model, fact)
            except FactError as error:
                row["without"][by] = str(error)
        try:
            row["weights"] = record(removals(model, fact, setting.layers, self._moments_of(bench)))
        except (AnatomyError, EditError) as error:
            row["without"]["weights"] = str(error)
        if "mean" in row:
            row["reach"] = reach(bench, fact)
        return row

    def conclude(self, setting: Setting, facts: Mapping[str, Fact], rows: Rows) -> Sequence[Evidence]:
        """One endpoint a lesion, and the reach."""
        mine = rows[self.name]
        found = []
        for by in (*BY, "weights"):
            if len(table := table_of(mine, facts, setting, by)):
                found.append(_evidence(setting, mine, table, facts, by))
        if any("reach" in row for row in mine):
            found.append(_reached(setting, facts, mine))
        return found

    def _moments_of(self, bench: Bench) -> dict[int, SecondMoment]:
        """C of every measured layer over the shipped text: the ones editors use, kept so that each is factored once."""
        weights, layers = bench.setting.weights, bench.setting.layers
        if weights not in self._moments:
            self._moments[weights] = cached_moments(bench.model, layers, shipped_text())
        return self._moments[weights]


def table_of(
    rows: Sequence[Row], facts: Mapping[str, Fact], setting: Setting, by: str, position: str | None = None
) -> Effects:
    """Effects of one kind of lesion at the place's position (or another), with the total effects it is divided by."""
    whole = WHOLE[by]
    held = {row["id"]: row[whole] for row in rows if row.get(whole)}
    totals = {unit: total(one) for unit, one in held.items() if not _withheld(one, whole)}
    return effects_of(rows, facts, position or setting.place.position, kind=by, totals=totals)


def _withheld(one: Mapping[str, Any], whole: str) -> str:
    return too_small(total(one)) if whole == "interchange" else str(one["withheld"][SCORE])


def noise_total(bench: Bench, fact: Fact) -> dict[str, Any]:
    """The record of a trace without its cells: what noise on the subject does."""
    made = Tracer.of(
        bench.model,
        bench.pool,
        samples=bench.setting.samples,
        noise_level=bench.noise_level,
        score=SCORE,
        layers=bench.setting.layers[:1],
        seed=bench.setting.seed,
    )
    found = traced(narrow(made), bench.model, fact)
    return {name: found[name] for name in ("clean", "corrupted", "withheld", "known")}


@torch.no_grad()
def removals(model: Model, fact: Fact, layers: Sequence[int], moments: Mapping[int, SecondMoment]) -> Lesion:
    """The map of the clean prompt with the slot of its key taken out of one layer's weights, one sample a cell.

    The keys are those at the last subject token and at the last token; the map is NaN at the others.

    Raises:
        FactError: the fact has no foil.
        AnatomyError: a layer has no down-projection.
        EditError: a second moment is singular.
    """
    with model.evaluating():
        asked = ask(model, fact, score=SCORE)
        keys = [Site("key", l) for l in layers]
        clean = run_clean(model, [asked], keys)
        log_p = np.full((len(asked.encoded), len(layers), 1, 2), np.nan)
        for position in sorted({asked.subject[-1], len(asked.encoded) - 1}):
            taps = [
                tap
                for row, l in enumerate(layers)
                for tap in removal(model, l, row, clean.ran.states[Site("key", l)][0, position], moments[l])
            ]
            log_p[position, :, 0] = run_copies(model, asked, len(layers), [], taps).log_p
    return Lesion(
        **described(model, asked, tuple(layers), SCORE),
        log_p_clean=clean_log_p(clean, 0),
        log_p_corrupted=np.empty((0, 2)),
        log_p_patched=log_p,
        settings={"by": "weights"},
    )


def removal(model: Model, layer: int, row: int, key: Float[Tensor, "d_key"], moment: SecondMoment) -> tuple[Tap, Tap]:
    """Taps that act on one row of a batch as W' = W - W k u^T would, u = C^-1 k / (k^T C^-1 k).

    Every key k' of the row gives W k' - W k (u^T k').
    """
    whitened = moment.solve(key.double().cpu())
    u = whitened / (whitened @ key.double().cpu())
    down = model.anatomy.down(layer).module
    lone = key.reshape(1, 1, -1)
    value = (down(lone) - down(torch.zeros_like(lone)))[0, 0]  # W k, whatever bias the module has
    seen: dict[str, Tensor] = {}

    def see(keys: Tensor) -> None:
        seen["shares"] = keys[row].double().cpu() @ u

    def take_out(values: Tensor) -> Tensor:
        changed = values.clone()
        changed[row] -= (seen["shares"][:, None] * value.double().cpu()).to(values)
        return changed

    return Tap(Site("key", layer), see), Tap(Site("value", layer), take_out)


def run_copies(model: Model, asked: Asked, rows: int, sites: Sequence[Site], taps: Sequence[Tap]) -> Ran:
    """A run of so many rows of one prompt, what is at `sites` kept."""
    ids = asked.encoded.ids
    batch = align([ids] * rows, [len(ids) - 1] * rows)
    return run_all(model, batch, sites, scored_tokens([asked] * rows), taps=lambda first: taps)


@torch.no_grad()
def reach(bench: Bench, fact: Fact) -> dict[str, Any]:
    """|h' - h| / |h| by layer at both roles: h the residual stream where the window ends, h' after a mean lesion of the window."""
    model, setting = bench.model, bench.setting
    patch = Patch(setting.place.module, 1 if setting.place.module == "state" else setting.place.window)
    windows = [patch.layers(l, model.n_layers) for l in setting.layers]
    ends = [Site("resid_out", window[-1]) for window in windows]
    with model.evaluating():
        asked = ask(model, fact, score=SCORE)
        pool = bench.pool
        others = swapped(model, fact, asked.encoded, pool, setting.samples, seed=setting.seed)
        sites = patch.donor_sites(model.n_layers)
        donor = run_corrupted(model, [asked], [others], sites).ran.states
        clean = run_corrupted(model, [asked], [Corrupted((asked.encoded.ids,), tuple(asked.subject))], ends).ran.states
        found: dict[str, Any] = {}
        for role, at in ((SUBJECT, asked.subject[-1]), (LAST, len(asked.encoded) - 1)):
            taps = [_put(Site(SITES[patch.kind], l), windows, at, donor) for l in range(model.n_layers)]
            moved = run_copies(model, asked, len(windows), ends, taps)
            shares = [
                float((moved.states[end][row, at] - clean[end][0, at]).norm() / clean[end][0, at].norm())
                for row, end in enumerate(ends)
            ]
            found[ROLES[role]] = rounded(shares)
    return found


def _put(site: Site, windows: Sequence[range], at: int, donor: Mapping[Site, Tensor]) -> Tap:
    """A tap that puts the donors' mean at one token of the rows whose window holds this layer."""
    rows = [row for row, window in enumerate(windows) if site.layer in window]

    def put(tensor: Tensor) -> Tensor:
        changed = tensor.clone()
        changed[rows, at] = donor[site][:, at].mean(0).to(changed)
        return changed

    return Tap(site, put)


def _evidence(setting: Setting, rows: Sequence[Row], table: Effects, facts: Mapping[str, Fact], by: str) -> Evidence:
    found = placed(table, setting)
    without = [row["without"][by] for row in rows if by in row["without"]]
    profiles = {
        ROLES[position]: one.profile(seed=setting.seed)
        for position in (SUBJECT, LAST)
        if len(one := table_of(rows, facts, setting, by, position))
    }
    site = (
        f"the key's slot in layer {setting.place.centre}" if by == "weights" else f"{setting.place.module} at the place"
    )
    return Evidence(
        experiment=Lesions.name,
        endpoint=f"lesion-{by}",
        criteria=() if by == "zero" else ("I1",),
        family="weights" if by == "weights" else "causal",
        mode="interventional",
        estimate=found.estimate,
        controls=(found.control,),
        contrast=found.contrast,
        p=found.p,
        note=f"Lesion of {site} over the total effect of {TOTALS[WHOLE[by]]}.{left_out(table.withheld)}"
        + (f" It could not be made for {len(without)} facts: {without[0]}" if without else ""),
        data={
            "profiles": profiles,
            "facts": dict(zip(table.names, rounded(table.at(setting.place.centre) / table.totals), strict=True)),
        },
    )


def _reached(setting: Setting, facts: Mapping[str, Fact], rows: Sequence[Row]) -> Evidence:
    kept = [row for row in rows if "reach" in row]
    column = setting.layers.index(setting.place.centre)
    shares = np.array([row["reach"][ROLES[setting.place.position]] for row in kept], dtype=float)
    clusters = clusters_of_rows(kept, facts)
    return Evidence(
        experiment=Lesions.name,
        endpoint="lesion-reach",
        criteria=("E1",),
        family="causal",
        mode="interventional",
        estimate=cluster_bootstrap(
            shares[:, column], clusters, seed=setting.seed, unit="share of the residual stream's norm"
        ),
        note="How far the mean lesion moves the residual stream where its window ends.",
        data={"layers": list(setting.layers), "profile": rounded(shares.mean(axis=0))},
    )


EXPERIMENT = Lesions
