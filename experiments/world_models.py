"""What the models of the made world know, and where causal tracing points in them.

    python experiments/world_models.py recall [NAME ...]      # every fact in every wording; results/world/recall-NAME.json
    python experiments/world_models.py map [NAME ...]         # tracing of 60 facts in three kinds of wording; results/world/map-NAME.json
    python experiments/world_models.py page                   # docs/world-models.md

NAMEs are world, world-seed1, world-llama and world-plain; all when none is given. The models themselves come from `palimpsest world train NAME`.
The maps restore single layers (no windows), with 5 samples of subject noise at three times the spread of subjects.
"""

import json
import sys
from pathlib import Path
from random import Random
from typing import Any

import palimpsest as pal
from palimpsest.facts import Fact
from palimpsest.locate import survey
from palimpsest.locate.tracing.trace import Tracer
from palimpsest.model.packaged import NAMES
from palimpsest.runs import atomic_write
from palimpsest.runs.json_text import plain
from palimpsest.world import Triple, World, made_world, recalls, relations, world_knowledge

ROOT = Path(__file__).parents[1]
RUNS, RESULTS = ROOT / "run" / "world", ROOT / "results" / "world"
KINDS = ("plain", "relation-first", "long")
TRACED, SAMPLES, SEED = 60, 5, 7


def store(name: str, data: dict[str, Any]) -> None:
    RESULTS.mkdir(parents=True, exist_ok=True)
    atomic_write(RESULTS / f"{name}.json", json.dumps(plain(data), ensure_ascii=False, indent=1) + "\n")


def recall(name: str) -> None:
    """Recall and perplexity of one model."""
    model = pal.load(name)
    training = json.loads((Path(model.net.config._name_or_path) / "training.json").read_text("utf-8"))
    found = world_knowledge(model, made_world())
    print(
        name, "seen", found.seen, "own", found.own, "unseen", found.unseen, "perplexity", found.perplexity, flush=True
    )
    parameters = sum(weight.numel() for weight in model.net.parameters())
    store(f"recall-{name}", {"training": training, "parameters": parameters, **found.to_json()})


def asked(world: World, triple: Triple, kind: str) -> Fact:
    """A fact in the first of its seen wordings of a kind."""
    wording = next(wording for wording in relations()[triple.relation].seen if wording.kind == kind)
    return Fact(
        triple.subject, wording.text, triple.object, id=f"{kind}/{'/'.join(triple[:2])}", relation=triple.relation
    )


def traced_facts(model: pal.Model, world: World, kind: str) -> list[Fact]:
    """Known facts, relation after relation, in a drawn order that is the same for all kinds of wording."""
    order = Random(SEED).sample(world.facts, len(world.facts))
    queue = [asked(world, triple, kind) for triple in order]
    right = recalls(model, [fact.text for fact in queue], [str(fact.target_true) for fact in queue])
    by_relation: dict[str, list[Fact]] = {}
    for fact, known in zip(queue, right, strict=True):
        if known:
            by_relation.setdefault(fact.relation, []).append(fact)
    chosen: list[Fact] = []
    while len(chosen) < TRACED and any(by_relation.values()):
        chosen += [own.pop(0) for own in by_relation.values() if own]
    return chosen[:TRACED]


def map_(name: str) -> None:
    """Average indirect effects by role and layer, as shares of the total effect."""
    model, world, result = pal.load(name), made_world(), dict[str, Any]()
    for kind in KINDS:
        facts = traced_facts(model, world, kind)
        mappers = {
            what: Tracer.of(model, facts, kind=what, window=1, samples=SAMPLES) for what in ("state", "mlp", "attn")
        }
        found = survey(model, facts, mappers, out=RUNS / f"map-{name}-{kind}")
        result[kind] = {"n": len(facts), **{what: found.average(what).to_json() for what in mappers}}
        print(name, kind, len(facts), flush=True)
    store(f"map-{name}", result)


if __name__ == "__main__":
    if sys.argv[1] == "page":
        from world_models_page import write  # beside this file

        write(RESULTS)
    else:
        for one in sys.argv[2:] or NAMES:
            {"recall": recall, "map": map_}[sys.argv[1]](one)
