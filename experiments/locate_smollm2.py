"""Causal tracing, lesions and their controls on 60 facts that smollm2 knows, and on minimal pairs and reasoning.

    PALIMPSEST_RECORDS=../shared/data python experiments/locate_smollm2.py PART ...      # resumable; into run/ and results/locate/
    python experiments/locate_smollm2.py digest PART ...      # results/locate/ again, from the maps in run/
    python experiments/locate_smollm2.py page                                         # docs/locate-on-smollm2.md

Parts: reliability, noise, swap, shuffled, lesion, untrained, syntax, reasoning, reading, knockout, reading-untrained, neurons, neurons-heldout, neurons-pairs,
neurons-reasoning, neurons-untrained. Cut for two cores, and the page says so: every
second layer, 4 samples (3 in swaps, lesions and controls), prompts of at most 14 tokens, 40 minimal pairs, every fourth layer for reasoning,
neurons of 40 facts.
"""

import json
import os
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

import palimpsest as pal
from palimpsest.facts import Fact, other_number
from palimpsest.locate import (
    Survey,
    average,
    decisive_by_length,
    decisive_roles,
    eligible,
    knockout_profile,
    knowledge,
    knowledge_neurons,
    lens_profile,
    neuron_effects,
    probe,
    separability,
    share_of_total,
    survey,
    what_neurons_write,
)
from palimpsest.locate.neuron.effects import summarise
from palimpsest.locate.neuron.survey import NeuronWork
from palimpsest.locate.tracing.controls import against_other_layers, against_random_sites, reinitialised
from palimpsest.locate.tracing.lesion import Lesioner
from palimpsest.locate.tracing.maps import SCORES
from palimpsest.locate.tracing.trace import Tracer
from palimpsest.runs import Plan, Run, atomic_write, load_samples
from palimpsest.runs.json_text import plain
from palimpsest.statistics import icc_2_1, icc_2_k, proportion

ROOT = Path(__file__).parents[1]
RUNS, RESULTS = ROOT / "run" / "locate", ROOT / "results" / "locate"
RECORDS = Path(os.environ.get("PALIMPSEST_RECORDS", ROOT.parent / "shared" / "data"))
LAYERS = (*range(0, 30, 2), 29)
LONGEST = 14
EARLY, LATE = range(0, 10), range(20, 30)  # named before any map of these facts was looked at
SEED = 7


def show(done: int, total: int, label: str) -> None:
    print(f"{done}/{total} {label}", flush=True)


def known_facts(model: pal.Model) -> tuple[list[Fact], tuple[Fact, ...]]:
    """30 shipped facts over all relations and 30 of known_1000, whose own prompt is answered right; and all of both files."""
    shipped = pal.read_facts("shipped").facts
    known_1000 = pal.read_facts(str(RECORDS / "known_1000" / "known_1000.json")).facts
    stored = RESULTS / "facts.json"
    if stored.is_file():
        by_id = {fact.id: fact for fact in (*shipped, *known_1000)}
        return [by_id[name] for name in json.loads(stored.read_text("utf-8"))["ids"]], (*shipped, *known_1000)
    order = np.random.default_rng(SEED)
    chosen: list[Fact] = []
    for facts in (shipped, known_1000):
        queue = [facts[i] for i in order.permutation(len(facts))]
        relations: dict[str, list[Fact]] = {}
        for fact, found in zip(queue, knowledge(model, queue), strict=True):
            if found.known and found.right[0] and len(model.encode(fact.text)) <= LONGEST:
                relations.setdefault(fact.relation, []).append(fact)
        picked: list[Fact] = []
        while len(picked) < 30:
            picked += [own.pop(0) for own in relations.values() if own]
        chosen += picked[:30]
    store("facts", {"ids": [fact.id for fact in chosen], "seed": SEED, "longest": LONGEST})
    return chosen, (*shipped, *known_1000)


def pairs(model: pal.Model) -> list[Fact]:
    """40 determiner-noun pairs of four paradigms that the model gets right and whose nouns begin with different tokens."""
    result: list[Fact] = []
    for name in ("1", "irregular_1", "with_adjective_1", "with_adj_irregular_1"):
        facts = pal.read_facts(str(RECORDS / "blimp" / f"determiner_noun_agreement_{name}.jsonl")).facts
        queue = [facts[i] for i in np.random.default_rng(SEED).permutation(len(facts))]
        usable = [
            fact
            for fact, right in zip(queue, eligible(model, queue), strict=True)
            if right and len({first_token(model, fact, str(word)) for word in (fact.target_true, fact.target_new)}) == 2
        ]
        result += usable[:10]
    return result


def first_token(model: pal.Model, fact: Fact, word: str) -> int:
    ids, begin = model.encode_answer(fact.text, word)
    return ids[begin]


class ByPair:
    """A tracer that swaps in, for each pair, the determiner of the other number."""

    def __init__(self, model: pal.Model, pool: list[Fact], **settings: Any) -> None:
        self.made = {
            word: Tracer.of(model, pool, swap_with=[other_number(word)], **settings)
            for word in {fact.subject for fact in pool}
        }

    @property
    def card(self) -> dict[str, object]:
        return next(iter(self.made.values())).card | {"swap_with": "the determiner of the other number"}

    def each(self, model: pal.Model, facts: list[Fact], *, progress: Any = None) -> list[Any]:
        return [self.made[fact.subject].each(model, [fact])[0] for fact in facts]


def store(name: str, data: dict[str, Any]) -> None:
    RESULTS.mkdir(parents=True, exist_ok=True)
    atomic_write(RESULTS / f"{name}.json", json.dumps(data, ensure_ascii=False, indent=1) + "\n")


def digest(found: Any, *, bands: bool = True) -> dict[str, Any]:
    """What is kept of a survey: averages by role and score, decisive roles, separability, contrasts with controls."""
    result: dict[str, Any] = {"failed": found.failed, "unknown": found.unknown, "withheld": found.withheld, "maps": {}}
    for label in found.records:
        maps = found.maps(label)
        own: dict[str, Any] = {"n": len(maps), "settings": maps[0]["settings"]}
        own["settings"] = {k: v for k, v in own["settings"].items() if k not in ("swapped", "donors", "swap_with")}
        own["facts"] = [
            {
                "id": record["fact"]["id"],
                "known": record["known"],
                "total_effect": record["total_effect"],
                "subject_tokens": record["subject"][1] - record["subject"][0],
                "tokens": len(record["tokens"]),
                "averaged": record["known"] and record["subject"][1] < len(record["tokens"]),
                "samples": len(record["settings"].get("swapped", [])) or record["settings"]["samples"],
            }
            for record in maps
        ]
        for score in SCORES:
            # where the subject is the last token, its early and its late site are one place
            able = [
                r for r in maps if (score == r["score"] or score in r["also"]) and r["subject"][1] < len(r["tokens"])
            ]
            if not any(record["known"] for record in able):
                continue
            entry: dict[str, Any] = {"average": average(able, label=label, score=score).to_json()}
            try:
                entry["decisive"] = {role: e.to_json() for role, e in decisive_roles(able, score=score).items()}
            except pal.errors.InputError as error:
                entry["decisive"] = {"withheld": str(error)}
            by_length = decisive_by_length(able, score=score)
            entry["decisive_by_length"] = {
                name: {role: e.to_json() for role, e in shares.items()} for name, shares in by_length.items()
            }
            entry["early_share_by_length"] = early_share(able, score)
            if maps[0]["what"] == "indirect effect":
                try:
                    entry["separability"] = {k: e.to_json() for k, e in separability(able, score=score).items()}
                except pal.errors.InputError as error:
                    entry["separability"] = {"withheld": str(error)}
            if bands:
                entry["controls"] = {}
                for role, layers in (("last subject", EARLY), ("last", LATE)):
                    gap, p = against_random_sites(able, role, layers, score=score)
                    other = against_other_layers(able, role, layers, score=score)
                    entry["controls"][role] = {
                        "layers": list(layers),
                        "minus other layers": other.to_json(),
                        "minus random sites": gap.to_json(),
                        "p": p,
                    }
            own[score] = entry
        result["maps"][label] = own
    return result


def early_share(maps: list[dict[str, Any]], score: str) -> dict[str, Any]:
    """Effect at each of the subject's roles in the early layers as a share of the total effect, by the subject's length."""
    result: dict[str, Any] = {}
    layers = [l for l in maps[0]["layers"] if l in EARLY]
    for name, low, high in (("1", 1, 1), ("2", 2, 2), ("3 or more", 3, 99)):
        some = [r for r in maps if low <= r["subject"][1] - r["subject"][0] <= high]
        for role in ("first subject", "middle subject", "last subject"):
            try:
                share, out = share_of_total(some, role, layers, score=score)
            except pal.errors.InputError:
                continue
            result.setdefault(name, {})[role] = share.to_json() | {"left_out": len(out)}
    return result


def reliability(model: pal.Model) -> None:
    """ICC over cells between noise samples, of 12 facts, and how well S samples agree with the rest."""
    facts, _ = known_facts(model)
    chosen = facts[:6] + facts[30:36]
    result: dict[str, Any] = {"samples": 20, "layers": list(LAYERS[::2]), "facts": []}
    for i, fact in enumerate(chosen):
        for kind in ("state", "mlp"):
            found = pal.trace(
                model, fact, kind=kind, samples=20, layers=LAYERS[::2], spread_of=facts, score="probability"
            )
            first = found.subject[0]
            for score in ("probability", "log-probability"):
                cells = found.scored(score).effects[first:].reshape(-1, 20)
                entry = {
                    "fact": fact.id,
                    "kind": kind,
                    "score": score,
                    "total_effect": found.scored(score).total_effect,
                }
                entry["icc_1"] = icc_2_1(cells).value
                entry["icc_k"] = {k: spearman_brown_of(cells, k) for k in (1, 2, 3, 5, 10, 20)}
                entry["same_peak"] = {k: same_peak(cells, k) for k in (1, 2, 3, 5, 10)}
                result["facts"].append(entry)
        show(i + 1, len(chosen), fact.id)
    result["icc_20"] = icc_2_k(cells).value
    store("reliability", result)


def spearman_brown_of(cells: np.ndarray, k: int) -> float:
    one = max(icc_2_1(cells).value, 0.0)
    return k * one / (1 + (k - 1) * one)


def same_peak(cells: np.ndarray, k: int) -> dict[str, float]:
    """Share of 200 random halves of k samples that have their peak where all other samples have theirs."""
    draw, hits = np.random.default_rng(0), 0
    for _ in range(200):
        order = draw.permutation(cells.shape[1])
        hits += cells[:, order[:k]].mean(1).argmax() == cells[:, order[k:]].mean(1).argmax()
    share = proportion(int(hits), 200)
    return {"share": share.value, "low": share.low, "high": share.high}


def reading(model: pal.Model) -> None:
    """Logit lens and attention knock-out on the 60 facts, probes on three relations."""
    facts, _ = known_facts(model)
    result: dict[str, Any] = {}
    for name, profile in (
        ("lens", lens_profile(model, facts, progress=show)),
        ("knockout", knockout_profile(model, facts, progress=show)),
    ):
        curves = {curve: [e.to_json() for e in profile.estimates(curve)] for curve in profile.values}
        result[name] = {"curves": curves, "settings": profile.settings, "failures": dict(profile.failures)}
    result["probes"] = {}
    for relation in ("continent", "profession", "mythology"):
        own = [fact for fact in pal.read_facts("shipped").facts if fact.relation == relation]
        found = probe(model, own, layers=(0, 6, 12, 18, 24, 29), permutations=9, controls=3)
        result["probes"][relation] = found.to_json()
        show(len(result["probes"]), 3, relation)
    store("reading", plain(result))


def knockouts(model: pal.Model) -> None:
    """Attention knock-out with windows of 9 and of 1, and apart for facts that begin with their subject."""
    facts, _ = known_facts(model)
    opening = [fact for fact in facts if model.encode(fact.text).tokens_of(*fact.subject_span)[0] == 0]
    groups = {"subject later": [f for f in facts if f not in opening], "subject first": opening}
    result: dict[str, Any] = {}
    for window in (9, 1):
        for group, some in groups.items():
            profile = knockout_profile(model, some, window=window)
            own: dict[str, Any] = {"n": len(some), "curves": {}, "contrast": {}}
            for source in ("subject", "subject_last", "other", "first", "control"):
                own["curves"][source] = [e.to_json() for e in profile.estimates(f"relative/{source}")]
            contrast = profile.contrast("relative/subject", "relative/control")
            own["contrast"] = [e.to_json() for e in contrast]
            result[f"window {window}, {group}"] = own
            show(len(result), 4, group)
    store("knockout", plain(result))


def untrained_reading(model: pal.Model) -> None:
    """Logit lens, probe and knock-out on a re-initialised model: what they find where nothing was learned."""
    facts, _ = known_facts(model)
    fresh = reinitialised(model, seed=1)
    lens = lens_profile(fresh, facts[:20])
    edges = knockout_profile(fresh, facts[:20])
    own = [fact for fact in pal.read_facts("shipped").facts if fact.relation == "continent"]
    found = probe(fresh, own, gate="all", layers=(0, 12, 24, 29), permutations=9, controls=3)
    result = {
        "lens": [e.to_json() for e in lens.estimates("reciprocal_rank/last", group="all")],
        "knockout": [e.to_json() for e in edges.estimates("relative/subject", group="all")],
        "probe": found.to_json(),
    }
    store("reading-untrained", plain(result))


def held_out(model: pal.Model) -> None:
    """Neurons found on two wordings of a fact, suppressed on its others."""
    facts = known_facts(model)[0][:20]
    rows, effects = [], []
    found = {}
    for i, fact in enumerate(facts):
        found[fact.id] = knowledge_neurons(model, fact, texts=fact.wordings[:2], keep=False)
        show(i + 1, len(facts), fact.id)
    for fact, other in zip(facts, [*facts[1:], facts[0]], strict=True):
        neurons = found[fact.id].neurons
        if not neurons or len(fact.wordings) < 3:
            continue
        made = neuron_effects(model, fact, neurons, other=found[other.id].neurons, texts=fact.wordings[2:])
        effects.append(made)
        rows.append({"fact": fact.id, "neurons": len(neurons), "wordings": len(fact.wordings) - 2})
    store("neurons-heldout", plain({"facts": rows, "summary": summarise(effects)}))


def neuron_part(name: str, model: pal.Model) -> None:
    """Knowledge neurons of 40 of the 60 facts, of 20 minimal pairs, and of 6 facts on a re-initialised model."""
    settings: dict[str, Any] = {}
    gate = "known"
    if name == "neurons-pairs":
        facts, settings, gate = pairs(model)[::2], {"score": "logit-difference"}, "eligible"
    elif name == "neurons-reasoning":
        facts = pal.read_facts("reasoning").facts[::4]
    else:
        facts, _ = known_facts(model)
        facts = facts[:20] + facts[30:50]
    if name == "neurons-untrained":
        model, facts, gate = reinitialised(model, seed=1), facts[:6], "all"
    work = NeuronWork(model, facts, settings, gate=gate)
    plan = {"model": model.name, "weights": model.fingerprint(), "settings": settings, "gate": gate}
    plan["facts"] = sha256(json.dumps([fact.to_json() for fact in facts]).encode()).hexdigest()
    with Run(RUNS / name, Plan(work.items, plan)) as run:
        records = run.map(lambda item: work.do(str(item), run.records), show)
        result = plain(work.results(records))
        run.finish(result)
    neurons_of = {r["id"][8:]: r for r in records if r["id"].startswith("neurons:") and "error" not in r}
    result["facts"] = [
        {key: record[key] for key in ("known", "neurons", "completeness", "complete", "total", "largest")}
        | {"id": fact}
        for fact, record in neurons_of.items()
    ]
    if name == "neurons":
        result["writing"] = writing(model, facts, neurons_of)
    store(name, result)


def writing(model: pal.Model, facts: list[Fact], neurons_of: dict[str, Any]) -> list[dict[str, Any]]:
    """What the neurons of each fact promote, and the rank there of its own answer and of the next fact's."""
    able = [fact for fact in facts if neurons_of.get(fact.id, {}).get("neurons")]
    rows = []
    for fact, other in zip(able, [*able[1:], able[0]], strict=True):
        places = neurons_of[fact.id]["neurons"]
        where, keys = [(p["layer"], p["neuron"]) for p in places], [p["key"] for p in places]
        ranks = []
        for answer in (first_token(model, one, str(one.target_true)) for one in (fact, other)):
            written = what_neurons_write(model, where, keys=keys, answer=answer, count=5)
            ranks.append([one.rank for one in written])
        promoted = [[token for token, _ in one.promoted] for one in written]
        rows.append({"fact": fact.id, "neurons": where, "promoted": promoted, "rank": ranks[0], "rank_other": ranks[1]})
    return rows


def part(name: str, model: pal.Model) -> None:
    if name == "reliability":
        return reliability(model)
    if name == "reading":
        return reading(model)
    if name == "knockout":
        return knockouts(model)
    if name == "reading-untrained":
        return untrained_reading(model)
    if name == "neurons-heldout":
        return held_out(model)
    if name.startswith("neurons"):
        return neuron_part(name, model)
    if name in ("syntax", "reasoning"):
        facts = pairs(model) if name == "syntax" else pal.read_facts("reasoning").facts
        pool: Any = facts
    else:
        facts, pool = known_facts(model)
    if name == "untrained":
        model, facts = reinitialised(model, seed=1), facts[:8] + facts[30:38]
    shared: dict[str, Any] = {"layers": LAYERS, "samples": 4 if name == "noise" else 3}
    if name in ("noise", "untrained"):
        mappers: dict[str, Any] = {
            "state": Tracer.of(model, facts, kind="state", **shared),
            "mlp": Tracer.of(model, facts, kind="mlp", **shared),
            "attn": Tracer.of(model, facts, kind="attn", **shared),
        }
        if name == "noise":
            mappers["state, mlp severed"] = Tracer.of(model, facts, kind="state", severed="mlp", **shared)
            mappers["state, attn severed"] = Tracer.of(model, facts, kind="state", severed="attn", **shared)
    elif name == "swap":
        shared["corruption"] = "swap"
        mappers = {kind: Tracer.of(model, pool, kind=kind, **shared) for kind in ("state", "mlp", "attn")}
        mappers["state, mlp severed"] = Tracer.of(model, pool, kind="state", severed="mlp", **shared)
    elif name == "shuffled":
        level = Tracer.of(model, facts).corruption.noise_level
        shared |= {"donor": "shuffled-subject", "noise_level": level}
        mappers = {kind: Tracer.of(model, pool, kind=kind, **shared) for kind in ("state", "mlp")}
    elif name == "lesion":
        mappers = {kind: Lesioner.of(model, pool, kind=kind, **shared) for kind in ("state", "mlp", "attn")}
    elif name == "syntax":
        shared |= {"score": "logit-difference", "gate": "foil"}
        mappers = {kind: Tracer.of(model, facts, kind=kind, **shared) for kind in ("state", "mlp", "attn")}
        swap = shared | {"corruption": "swap"}
        mappers["state, swap"] = ByPair(model, facts, kind="state", **swap)
    else:  # reasoning, whose prompts are long
        shared["layers"] = LAYERS[::2]
        mappers = {kind: Tracer.of(model, facts, kind=kind, **shared) for kind in ("state", "mlp", "attn")}
    survey(model, facts, mappers, out=RUNS / name, progress=show)
    return digest_part(name)


def digest_part(name: str) -> None:
    """results/locate/NAME.json from the maps of a finished run, which stay in run/."""
    records: dict[str, list[dict[str, Any]]] = {}
    for record in load_samples(RUNS / name):
        records.setdefault(record["id"].split("/", 1)[0], []).append(record)
    store(name, digest(Survey(records), bands=name != "untrained"))


def main() -> None:
    """Run the parts that are named, in order; or write the page."""
    if sys.argv[1:2] == ["digest"]:
        for name in sys.argv[2:]:
            digest_part(name)
        return
    if sys.argv[1:] == ["page"]:
        from locate_smollm2_page import write

        write()
        return
    model = pal.load("smollm2")
    for name in sys.argv[1:]:
        part(name, model)


if __name__ == "__main__":
    main()
