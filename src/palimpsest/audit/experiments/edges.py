"""Edges of the explanation graph: MLPs at S -> state at S -> state at F -> output, each cut or restored by itself.

S is the last subject token, F the last token of the prompt, l the centre of a window of layers.

    S-mlp->output       restoring the window's MLPs at S                                     NIE / TE
    S-mlp->S-state      restoring the state that enters the window at S, less the same with all later MLPs at S held at their
                        corrupted outputs: what the MLPs from there on make of it (Meng et al. 2022, figure 3)       / TE
    S-state->output     restoring the state that leaves the window at S                      NIE / TE
    S-state->F-state    keeping F from attending to S in all layers after the window, in the clean run: N / TE
                        (attention knock-out, Geva et al. 2023, section 5); null N2: another token between S and F in the place of S
    F-state->output     restoring the state at F at three quarters of the depth              NIE / TE

Each has the other layers as null N1, another subject's values as N4 where values are put in, and as N6 the same in a re-initialised
model: its raw effects, over the total effects of the trained one, because it has none of its own.

    solid         lower end of the share >= 0.05, and that of the paired contrast with the other layers above 0 where there is one
    false-edges   minus the number of edges that are solid in the untrained model; where there are any, solid means little
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from palimpsest.audit.bench import NOISE_SPREADS, Bench
from palimpsest.audit.evidence import Control, Evidence
from palimpsest.audit.experiment import Row, Rows
from palimpsest.audit.experiments.over_facts import cluster_by_name
from palimpsest.audit.experiments.roles import (
    SCORE,
    Effects,
    cells,
    left_out,
    rounded,
    scored,
    seconds_of_maps,
    total,
    traced,
    tracer,
)
from palimpsest.audit.setting import LAST, SUBJECT, Setting
from palimpsest.errors import AnatomyError, FactError
from palimpsest.facts import Fact
from palimpsest.locate.reading.attention_edges import attention_blocked, check_attention_obeys
from palimpsest.locate.tracing.asked import ask
from palimpsest.locate.tracing.corruption import embedding_spread
from palimpsest.locate.tracing.patching import Patch, score
from palimpsest.model import Model, align
from palimpsest.statistics import Estimate

SAMPLES = 4  # noise draws
UNTRAINED = 12  # facts that are also asked of a re-initialised model
SOLID = 0.05
READ_AT = 0.75  # of the depth: where the state at F is restored
S_MLP, MEDIATED, S_STATE, ATTENTION, F_STATE = (
    "S-mlp->output",
    "S-mlp->S-state",
    "S-state->output",
    "S-state->F-state (attention)",
    "F-state->output",
)
EDGES = (S_MLP, MEDIATED, S_STATE, ATTENTION, F_STATE)
AROUND = "around"  # the knock-out of another token: null N2 of the attention edge
SHUFFLED = "shuffled"  # another subject's values: null N4 of the edges that restore


class Edges:
    """See the module's text."""

    name = "edges"
    criteria = ()
    needs = ()

    def __init__(self) -> None:
        self._levels: dict[str, float] = {}

    def units(self, setting: Setting) -> Sequence[str]:
        """One a fact."""
        return setting.facts_for(self.name)

    def seconds(self, bench: Bench) -> float:
        """Four maps, one of them of more layers, and the knock-outs; nearly as much for those asked of an untrained model too."""
        units = max(1, len(self.units(bench.setting)))
        maps = 10 + 5 * min(1.0, UNTRAINED / units)
        return seconds_of_maps(bench, min(SAMPLES, bench.setting.samples), maps)

    def measure(self, bench: Bench, unit: str) -> Row:
        """By edge the effects by layer; the total effect; for the first facts the same of an untrained model."""
        fact = bench[unit]
        row: dict[str, Any] = {
            "layers": list(bench.setting.layers),
            **_effects(bench, bench.model, fact),
        }
        if unit in self.units(bench.setting)[:UNTRAINED]:
            row["untrained"] = _effects(bench, bench.untrained[0], fact, noise_level=self._level(bench))
        return row

    def _level(self, bench: Bench) -> float:
        """Noise of the same strength for the re-initialised model's own embeddings."""
        weights = bench.setting.weights
        if weights not in self._levels:
            self._levels[weights] = NOISE_SPREADS * embedding_spread(bench.untrained[0], list(bench.facts.values()))
        return self._levels[weights]

    def conclude(self, setting: Setting, facts: Mapping[str, Fact], rows: Rows) -> Sequence[Evidence]:
        """One piece of evidence an edge, and the number of edges that an untrained model has."""
        mine = rows[self.name]
        found, false = [], []
        for edge in EDGES:
            table = table_of(mine, facts, edge)
            if not len(table):
                continue
            held = judged(table, edge, setting)
            null = table_of([row for row in mine if "untrained" in row], facts, edge, untrained=True)
            untrained = judged(null, edge, setting) if len(null) else None
            if untrained is not None and untrained.solid:
                false.append(edge)
            found.append(_evidence(setting, facts, mine, edge, table, held, untrained))
        if asked := [row["id"] for row in mine if "untrained" in row]:
            found.append(_false_edges(false, len(found), len(asked)))
        return found


@dataclass(frozen=True)
class Judged:
    """One edge at the place's layer, and whether a graph draws it solid."""

    estimate: Estimate
    null: Estimate | None
    contrast: Estimate | None

    @property
    def solid(self) -> bool:
        """Whether its share is surely large enough, and surely larger than elsewhere."""
        return bool(self.estimate.low >= SOLID) and (self.contrast is None or bool(self.contrast.low > 0))


def judged(table: Effects, edge: str, setting: Setting) -> Judged:
    """One edge; the null is the median over the other layers, for those edges that are of one place among many.

    A state, and attention in all later layers, hold what came before them, so that the other layers are no null of theirs.
    """
    layer, seed = layer_of(edge, setting), setting.seed
    here = table.at(layer)
    if edge not in (S_MLP, MEDIATED) or len(table.layers) < 2:
        return Judged(table.share(here, seed=seed), None, None)
    there = table.elsewhere(layer)
    return Judged(table.share(here, seed=seed), table.share(there, seed=seed), table.share(here - there, seed=seed))


def layer_of(edge: str, setting: Setting) -> int:
    """The measured layer at which an edge is read: the place's; for the state at F that nearest to `READ_AT` of the depth."""
    if edge != F_STATE:
        return setting.place.centre
    return min(setting.layers, key=lambda l: abs(l - READ_AT * (setting.n_layers - 1)))


def table_of(rows: Sequence[Row], facts: Mapping[str, Fact], name: str, *, untrained: bool = False) -> Effects:
    """Effects of one edge over the total effects of the trained model."""
    held = {row["id"]: (row["untrained"] if untrained else row).get(name) for row in rows}
    withheld = {row["id"]: row["withheld"] for row in rows if row["withheld"] and held[row["id"]] is not None}
    return Effects.of_lines(
        {unit: line for unit, line in held.items() if line is not None},
        {row["id"]: row["total"] for row in rows},
        cluster_by_name(held, facts),
        rows[0]["layers"] if rows else (),
        withheld,
    )


def _effects(bench: Bench, model: Model, fact: Fact, *, noise_level: float | None = None) -> dict[str, Any]:
    """Raw effects of every edge by the setting's layers; null N4 for the bench's own model only."""
    setting, other = bench.setting, None if model is bench.model else model
    samples = min(SAMPLES, setting.samples)
    given = {} if noise_level is None else {"noise_level": noise_level}
    mlp = traced(tracer(bench, "mlp", samples, other, **given), model, fact)
    entering, leaving = _around(setting)

    def states(layers: set[int], **settings: Any) -> Callable[[str, Sequence[int]], Float[np.ndarray, "layers"]]:
        """Restorations of the state at some layers, to be read by role."""
        wanted = tuple(sorted(layers))
        made = replace(tracer(bench, "state", samples, other, **given, **settings), layers=wanted)
        row = traced(made, model, fact)
        return lambda role, which: cells(row, role).mean(axis=1)[[wanted.index(l) for l in which]]

    clean, severed = states({*entering, *leaving, *setting.layers}), states(set(entering), severed="mlp")
    found: dict[str, Any] = {
        "total": rounded(total(mlp)),
        "withheld": mlp["withheld"][SCORE],
        S_MLP: rounded(cells(mlp, SUBJECT).mean(axis=1)),
        MEDIATED: rounded(clean(SUBJECT, entering) - severed(SUBJECT, entering)),
        S_STATE: rounded(clean(SUBJECT, leaving)),
        F_STATE: rounded(clean(LAST, setting.layers)),
    }
    try:
        found |= knocked_out(model, fact, [l + 1 for l in leaving])
    except AnatomyError as error:
        found["without"] = str(error)
    if other is None:
        try:
            shuffled = traced(tracer(bench, "mlp", samples, other, donor="shuffled-subject"), model, fact)
            found[SHUFFLED] = rounded(cells(shuffled, SUBJECT).mean(axis=1))
        except FactError as error:
            found["no donor"] = str(error)
    return found


def _around(setting: Setting) -> tuple[list[int], list[int]]:
    """For each measured window, the layer whose state enters it (the first one where nothing comes before), and its last layer."""
    windows = [Patch("mlp", setting.place.window).layers(l, setting.n_layers) for l in setting.layers]
    return [max(0, window[0] - 1) for window in windows], [window[-1] for window in windows]


@torch.no_grad()
def knocked_out(model: Model, fact: Fact, firsts: Sequence[int]) -> dict[str, Any]:
    """Clean minus knocked-out logit difference where F cannot attend to S from each of these layers on; and to a token between.

    A prompt that ends with its subject has no such edge; one without a token between has no null.

    Raises:
        AnatomyError: the network takes no mask of attention that could be changed.
    """
    asked = ask(model, fact, score=SCORE)
    last, subject = len(asked.encoded) - 1, asked.subject[-1]
    if subject == last:
        return {}
    between = [t for t in range(1, last) if t not in asked.subject]
    sources = {ATTENTION: subject, **({AROUND: between[len(between) // 2]} if between else {})}
    cut = [(name, first) for name in sources for first in firsts]
    one = align([asked.encoded.ids] * (1 + len(cut)), [0] * (1 + len(cut))).to(model.device)
    blocked = torch.zeros(model.n_layers, len(one), last + 1, dtype=torch.bool, device=model.device)
    for row, (name, first) in enumerate(cut, start=1):
        blocked[first:, row, sources[name]] = True
    with model.evaluating():
        check_attention_obeys(model, asked.encoded.ids)
        (prefix,) = model.run_prefixes(one, [last])
        at = torch.full((len(one), 1), last, device=model.device)
        with attention_blocked(model, blocked):
            logits = model.run(one, prefix=prefix, at=at)
    margins = scored(score(logits, torch.tensor([asked.scored] * len(one))), SCORE)
    effects = (margins[0] - margins[1:]).reshape(len(sources), len(firsts))
    return {name: rounded(effects[i]) for i, name in enumerate(sources)}


def _evidence(
    setting: Setting,
    facts: Mapping[str, Fact],
    rows: Sequence[Row],
    edge: str,
    table: Effects,
    held: Judged,
    untrained: Judged | None,
) -> Evidence:
    layer, controls = layer_of(edge, setting), []
    if held.null is not None:
        controls.append(Control("N1", held.null, "median of the other layers"))
    for name, kind, note in (
        (SHUFFLED, "N4", "another subject's outputs"),
        (AROUND, "N2", "a token between them cut off instead"),
    ):
        if edge == {SHUFFLED: S_MLP, AROUND: ATTENTION}[name] and len(null := table_of(rows, facts, name)):
            share = null.share(null.at(layer), seed=setting.seed)
            controls.append(Control(kind, share, note, bool(share.value < SOLID)))
    if untrained is not None:
        note = "raw effects in a re-initialised model over the trained one's total effects"
        controls.append(Control("N6", untrained.estimate, note, not untrained.solid))
    return Evidence(
        experiment=Edges.name,
        endpoint="edge",
        criteria=(),
        family="causal",
        mode="interventional",
        estimate=held.estimate,
        controls=tuple(controls),
        contrast=held.contrast,
        about=edge,
        note=f"At layer {layer}; {'solid' if held.solid else 'not solid'}.{left_out(table.withheld)}",
        data={"solid": held.solid, "layer": layer, "profile": table.profile(seed=setting.seed)},
    )


def _false_edges(false: Sequence[str], edges: int, n: int) -> Evidence:
    """A count of what was found, which has no interval of its own: it ends where it stands."""
    count = -float(len(false))
    return Evidence(
        experiment=Edges.name,
        endpoint="false-edges",
        criteria=(),
        family="causal",
        mode="interventional",
        estimate=Estimate.exact(count, n, n, method="count", unit="edges, sign turned"),
        note=f"{len(false)} of {edges} edges are solid in a re-initialised model"
        + (f": {', '.join(false)}." if false else "."),
        data={"edges": list(false)},
    )


EXPERIMENT = Edges
