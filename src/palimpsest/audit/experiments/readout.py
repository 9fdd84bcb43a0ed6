"""`Readout`: whether what a layer writes at a token says the fact's answer rather than another answer of the relation.

    a_l(s, x) = < d logit_x / d h , v_l(s) >        v_l = W_out g(k_s), the output of layer l for the subject's key
    A(s) = share of other answers x of the relation with a(s, o) > a(s, x)          (ties count half; 1/2 by chance)

A structure that could hold the fact must at least have it written: weights and one key (C2 of the audit's protocol). The direct
read-out takes d logit / d h through the final norm and the head alone; a value need not be written in the output's own basis, so
the same is also read `through` the rest of the model (`read_out`).

Nulls: the answer of s looked for in the values of other subjects of the relation, their own answers left out (N7: what the
answer's being frequent alone gives), and all other layers (N1). That the answer can be read is no sign that the model reads it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from palimpsest.audit.bench import Bench
from palimpsest.audit.evidence import Control, Evidence
from palimpsest.audit.experiments.over_facts import clusters_of
from palimpsest.audit.experiments.read_out import answers_of, direct, output_sites, question, through
from palimpsest.audit.experiments.roles import rounded
from palimpsest.audit.setting import POSITIONS, Place, Setting
from palimpsest.facts import Fact
from palimpsest.locate.tracing.patching import Patch
from palimpsest.model import Site, pad
from palimpsest.statistics import Estimate, cluster_bootstrap, of_means, paired_difference, sign_flip_p

OTHERS = 8  # answers of the relation beside the fact's own
KINDS = ("direct", "through")
MODULES = ("mlp", "attn")
UNIT = "share of other answers below"


class Readout:
    """C2: the answer among the relation's answers, in what each layer writes."""

    name = "readout"
    criteria = ("C2",)
    needs: tuple[str, ...] = ()

    def units(self, setting: Setting) -> Sequence[str]:
        """The confirmation facts."""
        return setting.facts_for(self.name)

    def seconds(self, bench: Bench) -> float:
        """Short prompts, a backward pass for each answer and position: each about half of a pass of 64 tokens."""
        return (OTHERS + 4) * bench.seconds_a_pass

    def measure(self, bench: Bench, unit: str) -> Mapping[str, Any]:
        """a of every answer, [answer][layer], for both kinds of read-out, both modules and both positions."""
        model, fact = bench.model, bench[unit]
        asked = question(model, fact, answers_of(bench.pool, fact.relation), OTHERS)
        modules = [module for module in MODULES if _has(bench, module)]
        sites = [site for module in modules for site in output_sites(model, module)]
        top = Site("resid_out", model.n_layers - 1)
        states = model.record(pad([asked.ids]), [top])[top][0]
        scores: dict[str, Any] = {}
        for position in POSITIONS:
            values, slopes = through(model, asked, sites, position)
            plain = direct(model, states[asked.at[position]], list(asked.tokens.values()))
            for kind, a in (("through", (slopes * values).sum(-1)), ("direct", plain @ values.T)):
                for i, module in enumerate(modules):
                    own = a[:, i * model.n_layers : (i + 1) * model.n_layers]
                    scores[_key(kind, module, position)] = rounded(own.double().cpu())
        return {"answers": list(asked.tokens), "scores": scores}

    def conclude(
        self, setting: Setting, facts: Mapping[str, Fact], rows: Mapping[str, Sequence[Mapping[str, Any]]]
    ) -> Sequence[Evidence]:
        """`readout` and `readout-rank` directly, and `readout-through` through the rest of the model."""
        measured, place = rows.get(self.name, ()), setting.place
        return [
            evidence
            for kind in KINDS
            for evidence in _evidence(measured, facts, place, setting.n_layers, kind, setting.seed)
        ]


def layer_profile(
    rows: Sequence[Mapping[str, Any]], place: Place, n_layers: int, kind: str = "direct"
) -> tuple[list[str], Float[np.ndarray, "facts layers"]]:
    """(ids, A of each fact at each centre of a window), of the facts that have another answer to be told from."""
    names, found = list[str](), list[np.ndarray]()
    for row in rows:
        score = _windowed(row, place, n_layers, kind)
        if score is not None and len(score) > 1:
            names.append(str(row["id"]))
            found.append(share_below(score[0], score[1:]))
    return names, np.array(found).reshape(-1, n_layers)


def share_below(
    own: Float[np.ndarray, " layers"], others: Float[np.ndarray, "others layers"]
) -> Float[np.ndarray, " layers"]:
    """A: the share of others that lie below, ties counting half."""
    return ((own > others) + 0.5 * (own == others)).mean(axis=0)


def permuted(
    rows: Sequence[Mapping[str, Any]], facts: Mapping[str, Fact], place: Place, n_layers: int, kind: str = "direct"
) -> dict[str, Float[np.ndarray, " layers"]]:
    """N7 by fact: its answer among the others, in the values of other subjects of its relation whose answer differs."""
    tables = {str(row["id"]): (row["answers"], _windowed(row, place, n_layers, kind)) for row in rows}
    found: dict[str, np.ndarray] = {}
    for name, (answers, _) in tables.items():
        nulls = []
        for other, (named, score) in tables.items():
            same = facts[other].relation == facts[name].relation and facts[other].subject != facts[name].subject
            if not same or score is None or named[0] == answers[0] or answers[0] not in named or len(named) < 3:
                continue
            at = named.index(answers[0])
            rest = [i for i in range(1, len(named)) if i != at]  # the subject's own answer, at 0, would be no chance
            nulls.append(share_below(score[at], score[rest]))
        if nulls:
            found[name] = np.mean(nulls, axis=0)
    return found


def rank_share(means: Float[np.ndarray, " layers"], centre: int) -> float:
    """1 - rank / L, the largest having rank 1; layers that tie share their ranks."""
    rank = 1 + (means > means[centre]).sum() + 0.5 * ((means == means[centre]).sum() - 1)
    return float(1 - rank / len(means))


def _evidence(
    rows: Sequence[Mapping[str, Any]], facts: Mapping[str, Fact], place: Place, n_layers: int, kind: str, seed: int
) -> list[Evidence]:
    names, table = layer_profile(rows, place, n_layers, kind)
    left_out = len(rows) - len(names)
    if not names:
        return []
    clusters = clusters_of(names, facts)
    inside = [l for l in range(n_layers) if set(_window(place, l, n_layers)) & set(place.layers(n_layers))]
    outside = [l for l in range(n_layers) if l not in inside] or [l for l in range(n_layers) if l != place.centre]
    own = table[:, place.centre]
    estimate = cluster_bootstrap(own, clusters, unit=UNIT, seed=seed)
    other_layers = cluster_bootstrap(table[:, outside].mean(axis=1), clusters, unit=UNIT, seed=seed)
    null = permuted(rows, facts, place, n_layers, kind)
    paired = [i for i, name in enumerate(names) if name in null]
    shuffled: Estimate | None = None
    contrast, p = None, None
    if paired:
        chance = np.array([null[names[i]][place.centre] for i in paired])
        of = [clusters[i] for i in paired]
        shuffled = cluster_bootstrap(chance, of, unit=UNIT, seed=seed)
        contrast = paired_difference(own[paired], chance, of, seed=seed)
        p = sign_flip_p(own[paired] - chance, of, flip="inner", alternative="greater", seed=seed)
    controls = [Control("N1", other_layers, "mean over windows that do not touch the place")]
    if shuffled is not None:
        told = "the answer in the values of other subjects of the relation"
        controls.insert(0, Control("N7", shuffled, told, _near_half(shuffled)))
    note = f"{len(names)} facts" + (f"; {left_out} have no other answer in their relation" if left_out else "")
    note += "" if paired else "; N7 could not be had, for no two facts are of one relation and have answers that differ"
    profile = [cluster_bootstrap(table[:, l], clusters, unit=UNIT, seed=seed).to_json() for l in range(n_layers)]
    whole = {
        "profile": {"layers": list(range(n_layers)), "estimates": profile},
        "facts": dict(zip(names, own.tolist(), strict=True)),
    }
    first = Evidence(
        "readout",
        "readout" if kind == "direct" else "readout-through",
        ("C2",) if kind == "direct" else (),
        "weights",
        "observational",
        estimate,
        tuple(controls),
        contrast,
        p,
        note=note,
        data=whole,
    )
    if kind != "direct":
        return [first]
    rank = of_means(
        table,
        clusters,
        lambda means: rank_share(means, place.centre),
        name="1 - rank of the place among layers / layers",
        seed=seed,
    )
    return [first, Evidence("readout", "readout-rank", ("C2",), "weights", "observational", rank, note=note)]


def _near_half(null: Estimate) -> bool:
    """Whether a null whose truth is 1/2 came out as one: its interval holds it, or comes within 0.1 of it."""
    return null.low <= 0.6 and null.high >= 0.4


def _windowed(
    row: Mapping[str, Any], place: Place, n_layers: int, kind: str
) -> Float[np.ndarray, "answers layers"] | None:
    """Scores of windows: what modules write adds up, and so do their scores."""
    key = _key(kind, "mlp" if place.module == "state" else place.module, place.position)
    if key not in row["scores"]:
        return None
    single = np.array(row["scores"][key], dtype=np.float64)
    return np.stack([single[:, list(_window(place, l, n_layers))].sum(axis=1) for l in range(n_layers)], axis=1)


def _window(place: Place, centre: int, n_layers: int) -> range:
    return Patch(place.module, place.window).layers(centre, n_layers)


def _key(kind: str, module: str, position: str) -> str:
    return f"{kind}/{module}/{position}"


def _has(bench: Bench, module: str) -> bool:
    layers = bench.model.anatomy.layers
    return all((layer.mlp if module == "mlp" else layer.attention) is not None for layer in layers)


EXPERIMENT = Readout
