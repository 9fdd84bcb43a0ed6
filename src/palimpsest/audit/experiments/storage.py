"""`Storage`: whether a fact is stored at the place, or the place only says who the subject is and the fact comes later.

    T1  sigma        log-odds the subject's other relations lose / the fact loses, when the output at S is exchanged whole
    T2  sigma_sub    the same when only what the fact's relation reads of it is exchanged
    T3  turn         1 - cos of the keys (each less the mean over other subjects) of relation-first and subject-first prompts
    T5  tau          how far the other relations move to the donor's answers / how far the fact does
    T6  rise         share of the relation's other answers below the right one by the lens at S, after the place minus before it
    T7  beta         slope of what an edit does to other prompts on its overlap with what their relations read

The lemma behind all: with a causal mask, in a prompt whose subject comes first, the state at the subject's last token cannot
depend on the relation. So relation-specific storage there can only mean directions in the value that one relation reads and the
others do not. A store has sigma_sub near 0 and an entity code near 1; the whole vector is lost to all relations in both.

`storage` is the sum of log10 likelihood ratios over tests (`storage_likelihood`) and its interval the range over leaving one
test out; T2 and T5 are one intervention read twice, so T5 is not counted. `sigma-subspace` is the same question without
organisms: below 0.3 a store, above 0.7 an entity.

Not here: T4 (names and types of entities are no part of a fact file) and T8 (`lesion-weights`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from palimpsest.audit.bench import Bench
from palimpsest.audit.evidence import Control, Evidence
from palimpsest.audit.experiment import Row, Rows
from palimpsest.audit.experiments.edit_reading import search_passes
from palimpsest.audit.experiments.instruments import certificate
from palimpsest.audit.experiments.interchange import (
    POOL,
    Span,
    Table,
    asked_of,
    donors_of,
    exchanged,
    known_answers,
    log_odds,
    place_sites,
    random_span,
    readable,
)
from palimpsest.audit.experiments.over_facts import clusters_of, clusters_of_rows
from palimpsest.audit.experiments.read_out import Question, answers_of, question
from palimpsest.audit.experiments.readout import share_below
from palimpsest.audit.experiments.storage_likelihood import calibration, likelihood, told_apart
from palimpsest.audit.setting import SUBJECT, Setting
from palimpsest.errors import FactError, InputError
from palimpsest.facts import Fact
from palimpsest.locate.reading.lens import decode
from palimpsest.model import Model, Site, pad
from palimpsest.statistics import Estimate, cluster_bootstrap, ratio_estimate
from palimpsest.statistics.regression import slope_intervals

STORE, ENTITY = 0.3, 0.7  # of sigma_sub
RELATION_FIRST = 0.6  # the subject ends in the last two fifths of the prompt
WORDINGS = 3
NEEDED = 2  # facts, for an interval


class Storage:
    """V4; see the module's text.

    Args:
        edits: whether T7 is measured, which edits every fact once.
    """

    name = "storage"
    criteria = ("V4",)
    needs: tuple[str, ...] = ()

    def __init__(self, edits: bool = True) -> None:
        self.edits = edits

    def units(self, setting: Setting) -> Sequence[str]:
        """The confirmation facts."""
        return setting.facts_for(self.name)

    def seconds(self, bench: Bench) -> float:
        """Five relations with three exchanges each, a backward pass for each answer, and the edit of the doses with its spans."""
        exchanges, spans = 5 * (3 + 1), POOL + 1
        return (exchanges + spans + (search_passes(bench) + spans if self.edits else 0)) * bench.seconds_a_pass

    def measure(self, bench: Bench, unit: str) -> Row:
        """Every test of one fact, at the place the setting names."""
        fact, sites, model = bench[unit], place_sites(bench), bench.model
        every = bench.pool
        table = known_answers(every)
        donors = donors_of(fact, table)
        if not donors:
            raise FactError(
                f"No other subject with another answer is told for {fact.prompt!r}; give more facts of the relation."
            )
        target = question(model, fact, answers_of(every, fact.relation), POOL)
        span = readable(model, target, sites)
        spans: dict[str, Span | None] = {"whole": None}
        if span is not None:
            spans |= {"readable": span, "random": random_span(span, fact, bench.setting.seed)}
        others = asked_of(fact, table)
        row: dict[str, Any] = {
            "centre": bench.setting.place.centre,
            "rank": span.rank if span else 0,
            "target": exchanged(model, fact, table, donors, sites, spans),
            "others": [found for one in others if (found := exchanged(model, one, table, donors, sites, spans))],
            "timing": _timing(model, target, bench),
            "turn": _turn(bench, fact, donors),
        }
        if self.edits and bench.setting.place.module == "mlp":
            row["bleed"] = _bleed(bench, fact, others, table)
        return row

    def conclude(self, setting: Setting, facts: Mapping[str, Fact], rows: Rows) -> Sequence[Evidence]:
        """`storage`, `sigma-subspace` and, as extensions, each test by itself."""
        mine = [row for row in rows.get(self.name, ()) if row["centre"] == setting.place.centre and row["target"]]
        tests = measured_tests(mine, facts, setting.seed)
        result = [_test(name, estimate) for name, estimate in tests.items()]
        result.insert(0, _interval_rule(mine, facts, tests, setting.seed))
        found = likelihood(tests, calibration())
        if found:
            result.insert(0, _verdict(found, tests, mine, setting))
        return result


def measured_tests(rows: Sequence[Row], facts: Mapping[str, Fact], seed: int = 0) -> dict[str, Estimate]:
    """The estimate of every test that the rows allow, by name."""
    found: dict[str, Estimate] = {}
    for how, part in (("whole", ""), ("readable", "-subspace"), ("random", "-random")):
        for name, top in (("sigma", "lost"), ("tau", "went")):
            pairs = ratios(rows, how, top)
            if len(pairs) >= NEEDED and _surely_lost(pairs, facts, seed):
                found[f"{name}{part}"] = ratio_estimate(
                    [above for _, above, _ in pairs],
                    [under for _, _, under in pairs],
                    clusters_of((name for name, _, _ in pairs), facts),
                    seed=seed,
                    unit="of what the fact loses" if top == "lost" else "of how far the fact moves",
                )
    for name, value in (("turn", "turn"), ("rise", "timing")):
        kept = [row for row in rows if row.get(value) is not None]
        if len(kept) >= NEEDED:
            numbers = [
                row["turn"] if name == "turn" else row["timing"]["after"] - row["timing"]["before"] for row in kept
            ]
            found[name] = cluster_bootstrap(numbers, clusters_of_rows(kept, facts), seed=seed)
    slope = _regression(rows, facts, seed)
    return found if slope is None else {**found, "bleed-slope": slope}


def _surely_lost(pairs: Sequence[tuple[str, float, float]], facts: Mapping[str, Fact], seed: int) -> bool:
    """Whether the facts themselves lose something: nothing can be divided by a loss that may be none."""
    under = [own for _, _, own in pairs]
    return cluster_bootstrap(under, clusters_of((name for name, _, _ in pairs), facts), seed=seed).low > 0


def ratios(rows: Sequence[Row], how: str, what: str) -> list[tuple[str, float, float]]:
    """(fact, mean over its other known relations, its own), of facts that have both."""
    found: list[tuple[str, float, float]] = []
    for row in rows:
        if how not in row["target"] or what not in row["target"][how]:
            continue
        others = [_part(one, how, what) for one in row["others"] if one["known"] and what in one.get(how, {})]
        if others:
            found.append((str(row["id"]), float(np.mean(others)), _part(row["target"], how, what)))
    return found


def account(above: float, under: float) -> str:
    """Which account one fact's sigma_sub speaks for; a fact that loses less than 0.1 log-odds itself speaks for none."""
    if under < 0.1:
        return "not readable here"
    sigma = above / under
    return "storage" if sigma < STORE else "entity" if sigma > ENTITY else "unresolved"


def _verdict(
    found: Mapping[str, float], tests: Mapping[str, Estimate], rows: Sequence[Row], setting: Setting
) -> Evidence:
    total = sum(found.values())
    without = {name: total - one for name, one in found.items()} if len(found) > 1 else {}
    ends = [total, *without.values()]
    n = max(tests[name].n for name in found)
    card = calibration()
    own = setting.weights in certificate()["bases"].values()
    counted = {side: len(card["organisms"][side]) for side in ("storage", "entity")}
    return Evidence(
        "storage",
        "storage",
        ("V4",),
        "causal",
        "interventional",
        Estimate(
            total,
            min(ends),
            max(ends),
            n,
            max(tests[name].clusters for name in found),
            method=f"sum of log10 likelihood ratios of {', '.join(found)}; range over leaving one test out",
            unit="log10 of storage : entity",
        ),
        (told_apart(card, tuple(found)),),
        level="model" if own else "instrument",
        note=f"Likelihoods of {counted['storage']} organisms with planted facts and {counted['entity']} with planted names of one "
        "small architecture; so few organisms allow no large ratio.",
        data={
            "tests": {name: tests[name].to_json() for name in found},
            "log10_likelihood_ratio": dict(found),
            "without": without,
            "organisms": card["organisms"],
            "auroc_on_organisms": card.get("auroc", {}),
            "calibration": card["tests"],
            "accounts": accounts(rows),
        },
    )


def accounts(rows: Sequence[Row]) -> dict[str, float]:
    """Share of facts that speak for each account, by their own sigma_sub."""
    said = [account(above, under) for _, above, under in ratios(rows, "readable", "lost")]
    return {name: said.count(name) / len(said) for name in sorted(set(said))}


def _interval_rule(
    rows: Sequence[Row], facts: Mapping[str, Fact], tests: Mapping[str, Estimate], seed: int
) -> Evidence:
    own = ratios(rows, "readable", "lost")
    lost: dict[str, Any] = {}
    for how in ("whole", "readable", "random"):
        kept = [row for row in rows if how in row["target"]]
        if kept:
            found = cluster_bootstrap(
                [float(row["target"][how]["lost"]) for row in kept],
                clusters_of_rows(kept, facts),
                unit="log-odds",
                seed=seed,
            )
            lost[how] = found.to_json()
    named = "sigma-subspace" in tests
    controls: tuple[Control, ...] = ()
    if named and "sigma-random" in tests:
        note = "random directions, as many as the readable part has"
        controls = (Control("N3", tests["sigma-random"].below(ENTITY), note),)
    if calibration():
        controls = (*controls, told_apart(calibration(), ("sigma-subspace",)))
    return Evidence(
        "storage",
        "sigma-subspace",
        ("V4",),
        "causal",
        "interventional",
        tests["sigma-subspace"].below(ENTITY)
        if named
        else Estimate.unknown("the facts themselves lose nothing for sure", len(own)),
        controls,
        note="0.4 or more is a store (sigma_sub below 0.3), below 0 an entity (above 0.7)"
        if named
        else "Exchanging what is readable at the place takes nothing from the facts for sure, so there is nothing to divide by: "
        "the place may carry too little, or one of several copies.",
        data={
            "sigma_subspace": tests["sigma-subspace"].to_json() if named else None,
            "lost": lost,
            "facts": {name: [above, under] for name, above, under in own},
            "accounts": accounts(rows),
        },
    )


def _test(name: str, estimate: Estimate) -> Evidence:
    return Evidence("storage", f"test-{name}", (), "causal", "interventional", estimate)


def _part(one: Mapping[str, Any], how: str, what: str) -> float:
    """What was lost, or the share of the way that was moved, kept in range where the way is short."""
    part = one[how]
    if what == "lost":
        return float(part["lost"])
    return float(np.clip(part["went"] / part["way"], -1.0, 2.0)) if abs(part["way"]) > 0.5 else 0.0


@torch.no_grad()
def _timing(model: Model, target: Question, bench: Bench) -> dict[str, float] | None:
    """Share of other answers below the right one by the lens at S: before the place, after it, and after the last layer."""
    if len(target.tokens) < 2:
        return None
    layers = bench.setting.place.layers(model.n_layers)
    sites = [Site("resid_in", layers[0]), Site("resid_out", layers[-1]), Site("resid_out", model.n_layers - 1)]
    with model.evaluating():
        states = model.record(pad([target.ids]), sites)
        stacked = torch.stack([states[site][0, target.at[SUBJECT]] for site in sites])
        logits = torch.cat(list(decode(model, stacked)))
    scores = logits[:, list(target.tokens.values())].double().cpu().numpy()  # (sites, answers)
    found = share_below(scores[:, 0], scores[:, 1:].T)
    return dict(zip(("before", "after", "last"), found.tolist(), strict=True))


def _turn(bench: Bench, fact: Fact, donors: Sequence[str]) -> float | None:
    """1 - mean cos of the subject's key in relation-first wordings and in the prompt, each less the mean over other subjects."""
    if bench.setting.place.module != "mlp":
        return None
    wordings = [text.replace(fact.subject, "{}") for text in fact.paraphrases if text.count(fact.subject) == 1]
    late = [text for text in wordings if text.index("{}") + 2 > RELATION_FIRST * len(text)]
    if not late or fact.prompt.index("{}") > 0:
        return None
    here, *there = (_own_key(bench, fact.subject, prompt, donors) for prompt in (fact.prompt, *late[:WORDINGS]))
    return float(1 - np.mean([float(torch.cosine_similarity(here, other, dim=0)) for other in there]))


def _own_key(bench: Bench, subject: str, prompt: str, donors: Sequence[str]) -> Float[Tensor, " width"]:
    keys = torch.stack([_key(bench, Fact(name, prompt)) for name in (subject, *donors)])
    return keys[0] - keys[1:].mean(dim=0)


def _key(bench: Bench, fact: Fact, kind: str = "key") -> Float[Tensor, " width"]:
    encoded, site = bench.model.encode(fact.text), Site(kind, bench.setting.place.centre)
    with bench.model.evaluating():
        state = bench.model.record(pad([encoded.ids]), [site])[site][0]
    return state[encoded.tokens_of(*fact.subject_span)[-1]].float().cpu()


def _bleed(bench: Bench, fact: Fact, others: Sequence[Fact], table: Table) -> list[dict[str, Any]]:
    """Per prompt that the edit should leave alone: what its answer lost, its overlap with the change, and its key's likeness."""
    model, centre = bench.model, bench.setting.place.centre
    near = [
        Fact(probe.subject, fact.prompt, probe.answer, relation=fact.prompt)
        for probe in fact.neighbours[:2]
        if probe.subject and probe.answer and table.get(fact.prompt, {}).get(probe.subject) == probe.answer
    ]
    asked = [(one, same) for group, same in ((others, True), (near, False)) for one in group]
    site = Site("mlp_out", centre)
    key, before = _key(bench, fact), _key(bench, fact, "value")
    found = []
    for one, same in asked:
        try:
            own = question(model, one, tuple(set(table.get(one.prompt, {}).values())), POOL)
        except InputError:
            continue
        span = readable(model, own, [site])
        if span is not None:
            like = float(torch.cosine_similarity(_key(bench, one), key, dim=0))
            found.append((own, span.of[site].float().cpu(), same, like, _answer_log_odds(model, own)))
    edit = bench.edit_at([fact], centre)
    with edit.applied(model):
        change = _key(bench, fact, "value") - before
        after = [_answer_log_odds(model, own) for own, *_ in found]
    size = float(change.norm()) or 1.0
    return [
        {
            "same_subject": same,
            "overlap": float((basis.T @ change).norm()) / size,
            "likeness": like,
            "lost": clean - now,
        }
        for (_, basis, same, like, clean), now in zip(found, after, strict=True)
    ]


def _answer_log_odds(model: Model, asked: Question) -> float:
    with torch.no_grad(), model.evaluating():
        logits = model.last_logits(pad([asked.ids]))[0].float().cpu()
    return log_odds(logits, next(iter(asked.tokens.values())))


def _regression(rows: Sequence[Row], facts: Mapping[str, Fact], seed: int) -> Estimate | None:
    """T7: standardised slope of what was lost on the overlap, beside the key's likeness and whether the subject is the same."""
    flat = [(str(row["id"]), one) for row in rows for one in row.get("bleed") or ()]
    if len(flat) < 8 or len({name for name, _ in flat}) < NEEDED:
        return None
    columns = {
        name: np.array([[float(one[name])] for _, one in flat]) for name in ("overlap", "likeness", "same_subject")
    }
    varied = {name: column for name, column in columns.items() if column.std() > 1e-9}
    if "overlap" not in varied:
        return None
    found = slope_intervals(
        varied,
        [one["lost"] for _, one in flat],
        {"all": tuple(varied)},
        clusters_of((name for name, _ in flat), facts),
        block="overlap",
        seed=seed,
    )
    return found["all"]


EXPERIMENT = Storage
