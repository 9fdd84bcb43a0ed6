"""What is decided before anything counts: facts, layers, the place the claim is tested at, and the plan; and kept.

A claim whose place says "discover" is tested where its own instrument points: the centre is the layer whose restoration, at the
claim's position, is largest over the *discovery* facts, among the layers at the depths that the claim speaks of. Those facts report
nothing.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from transformers import AutoTokenizer

from palimpsest.audit.bench import Bench
from palimpsest.audit.choosing import Chosen, choose
from palimpsest.audit.claim import Claim, ClaimedPlace
from palimpsest.audit.experiment import Experiment, chosen_experiments
from palimpsest.audit.gates import environment, facts_gate, split_gate
from palimpsest.audit.planning import AuditPlan, layers_of, planned, with_cuts
from palimpsest.audit.running import concluded, run_rows
from palimpsest.audit.setting import Place, Setting
from palimpsest.errors import SettingError
from palimpsest.facts import Fact, read_facts
from palimpsest.model import Model
from palimpsest.model.packaged import packaged_folder
from palimpsest.runs import Progress, atomic_write
from palimpsest.runs.json_text import plain
from palimpsest.world import made_world

SAMPLES = {"smoke": 4, "standard": 10, "full": 20}
WINDOW = 3
CHOOSING = "tracing"  # whose restoration chooses the place
UNTRAINED_FACTS = {"smoke": 4, "standard": 16, "full": 40}
LOCATING = ("tracing", "lesion")  # experiments that a model that was never trained is asked for too
SETTING, DISCOVER = "setting.json", "discover"


@dataclass(frozen=True)
class Prepared:
    """What an audit works with.

    Attributes:
        bench: model, facts, setting.
        chosen: the facts, and those that failed a gate.
        plan: experiments, units, minutes.
        gates: G0, G1 and G4: "" or what failed.
    """

    bench: Bench
    chosen: Chosen
    plan: AuditPlan
    gates: Mapping[str, str]


def prepare(
    model: Model,
    facts: Sequence[Fact] | None,
    claim: Claim,
    experiments: Mapping[str, Experiment],
    folder: Path,
    *,
    size: str,
    minutes: float | None,
    seed: int,
    dry: bool = False,
    progress: Progress | None = None,
) -> Prepared:
    """Decide, or read what was decided when this audit began.

    Args:
        facts: None for those that ship with the model.
        dry: choose no place and store nothing: what a plan needs.
        model, claim, experiments, folder, size, minutes, seed, progress: as in `palimpsest.audit.audit.audit`.

    Raises:
        InputError: too few facts for this size.
        SettingError: the folder holds an audit of another model, claim, size, seed or other facts.
    """
    began = perf_counter()
    pool = list(facts) if facts is not None else facts_of(model)
    asked = {"claim": claim.id, "size": size, "seed": seed, "minutes": minutes, "pool": len(pool)}
    stored = None if dry else _stored(folder, model, asked)
    if stored is None:
        chosen = choose(model, pool, size, seed=seed, progress=progress)
        setting = _first_setting(model, claim, chosen, size, seed)
    else:
        setting = Setting.from_json(stored["setting"])
        chosen = _chosen_before(stored, setting, pool, folder)
    relations = {fact.relation for fact in chosen.confirmation}
    bench = Bench(model, chosen.facts, setting, folder, [fact for fact in pool if fact.relation in relations])
    if stored is None:
        besides = perf_counter() - began + _besides(bench, experiments, claim.place.centre is None)
        plan = planned(bench, experiments, minutes, besides / 60)
        bench.setting = setting = with_cuts(setting, plan)
        if not dry:
            centre = claim.place.centre
            bench.setting = setting.at(discovered(bench, claim.place, folder, progress) if centre is None else centre)
            told = {"left_out": dict(chosen.left_out), "asked_facts": chosen.asked}
            _store(folder, {"asked": asked, "setting": bench.setting.to_json(), "plan": plan.to_json(), **told})
    else:
        plan = _plan_with_later(bench, stored, experiments, folder)
    gates = (
        {}
        if dry
        else {"G0 environment": environment(bench), "G1 facts": facts_gate(chosen), "G4 split": split_gate(chosen)}
    )
    return Prepared(bench, chosen, plan, gates)


def _besides(bench: Bench, experiments: Mapping[str, Experiment], discover: bool) -> float:
    """Seconds for choosing the place, where it is discovered, and for the untrained model of the null audit."""
    setting = bench.setting
    choosing = experiments[CHOOSING].seconds(bench) * len(setting.discovery) if discover else 0.0
    untrained = min(UNTRAINED_FACTS[setting.size], len(setting.confirmation))
    return choosing + untrained * sum(experiments[name].seconds(bench) for name in LOCATING)


def _first_setting(model: Model, claim: Claim, chosen: Chosen, size: str, seed: int) -> Setting:
    """The setting before its place is discovered: a layer in the middle of those the claim speaks of stands in for it."""
    layers = layers_of(model.n_layers)
    able = claim.place.within(layers, model.n_layers)
    place = Place(claim.place.module, able[len(able) // 2], claim.place.window or WINDOW, claim.place.position)
    return Setting(
        model.name,
        model.fingerprint(),
        model.n_layers,
        place,
        layers,
        tuple(fact.id for fact in chosen.discovery),
        tuple(fact.id for fact in chosen.confirmation),
        SAMPLES[size],
        seed,
        size,
    )


def _chosen_before(stored: Mapping[str, Any], setting: Setting, pool: Sequence[Fact], folder: Path) -> Chosen:
    """The facts that an audit was begun with."""
    by_id = {fact.id: fact for fact in pool}
    missing = [name for name in (*setting.discovery, *setting.confirmation) if name not in by_id]
    if missing:
        raise SettingError(
            f"The audit in {folder} measures the fact {missing[0]!r}, which is not among those given; give the same."
        )
    return Chosen(
        tuple(by_id[name] for name in setting.discovery),
        tuple(by_id[name] for name in setting.confirmation),
        stored["left_out"],
        stored["asked_facts"],
    )


def _plan_with_later(
    bench: Bench, stored: Mapping[str, Any], experiments: Mapping[str, Experiment], folder: Path
) -> AuditPlan:
    """The stored plan, and after it experiments that are asked for now and were not when the audit was begun."""
    plan = AuditPlan.from_json(stored["plan"], bench.setting.layers, bench.setting.n_layers)
    there = {step.experiment for step in plan.steps}
    if later := {name: made for name, made in experiments.items() if name not in there}:
        plan = replace(plan, steps=(*plan.steps, *planned(bench, later, None).steps))
        _store(folder, {**stored, "plan": plan.to_json()})
    return plan


def facts_of(model: Model) -> list[Fact]:
    """The made world's facts where the model's vocabulary is that of the world's models; the shipped facts else."""
    world = AutoTokenizer.from_pretrained(packaged_folder("world"))
    if model.tokenizer.get_vocab() != world.get_vocab():
        return list(read_facts("shipped").facts)
    return list(_world_facts())


@cache
def _world_facts() -> tuple[Fact, ...]:
    """All of them; made once, for it takes seconds and several audits of one process ask for them."""
    return tuple(made_world().records())


def discovered(bench: Bench, place: ClaimedPlace, folder: Path, progress: Progress | None) -> int:
    """The measured layer, of those the claim speaks of, whose restoration is largest over the discovery facts."""
    setting = bench.setting
    choosing = replace(setting, confirmation=setting.discovery, discovery=(), cuts=None)
    made = chosen_experiments([CHOOSING])[CHOOSING]
    rows = run_rows(
        made, Bench(bench.model, bench.facts, choosing, bench.folder, bench.pool), folder / DISCOVER, progress
    )
    values = {}
    able = place.within(setting.layers, setting.n_layers)
    for layer in able:
        found, _ = concluded(made, choosing.at(layer), bench.facts, {CHOOSING: rows})
        values[layer] = next((one.estimate.value for one in found if one.endpoint == "restoration"), float("nan"))
    known = {layer: value for layer, value in values.items() if not np.isnan(value)}
    return max(known, key=lambda layer: known[layer]) if known else setting.place.centre


def begun(folder: Path) -> bool:
    """Whether a folder holds evidence: rows that chose the place, or the setting that everything after was measured in."""
    return (folder / SETTING).is_file() or (folder / DISCOVER).is_dir()


def _store(folder: Path, record: Mapping[str, Any]) -> None:
    atomic_write(folder / SETTING, json.dumps(plain(record), indent=1) + "\n")


def _stored(folder: Path, model: Model, asked: Mapping[str, Any]) -> dict[str, Any] | None:
    path = folder / SETTING
    if not path.is_file():
        return None
    stored: dict[str, Any] = json.loads(path.read_text("utf-8"))
    if stored["setting"]["weights"] != model.fingerprint():
        raise SettingError(
            f"The evidence in {folder} is of other weights ({stored['setting']['model']}); give another folder."
        )
    for name, value in asked.items():
        if stored["asked"].get(name) != value:
            raise SettingError(
                f"The audit in {folder} was begun with {name} {stored['asked'].get(name)!r}, got {value!r}; give another folder."
            )
    return stored
