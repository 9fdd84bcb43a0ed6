"""What erasing number costs smollm2, and what a random projection of equal rank costs; and associations that must go.

    PALIMPSEST_RECORDS=... python experiments/leace_smollm2.py run [PART]    # goes on where it stopped
    python experiments/leace_smollm2.py page                                 # docs/leace-on-smollm2.md

The parts are number (results/leace-smollm2.json) and unwanted (results/unwanted-smollm2.json).

Number: BLiMP's agreement of determiner and noun, 800 pairs, both grammatical numbers of each, read at the noun. Nouns are dealt to
fitting (three quarters) and testing, in all their forms. Every condition is one edit; inside it probes are trained on fitting nouns
and tested on the others, at layers below, at and above the erased one, and the model is asked what should suffer (sentences
whose grammar is number), what should not (other grammar, known facts) and to read text.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

import palimpsest as pal
from palimpsest.edit.artefact import Edit
from palimpsest.erase.leace import Concept, erase_concept, number_concept, states_of
from palimpsest.evaluate.suites.text import passages
from palimpsest.facts import Case, read_cases, read_facts, shipped_text
from palimpsest.locate.known import knowledge, passing
from palimpsest.model import Site
from palimpsest.runs import atomic_write
from palimpsest.statistics import cluster_bootstrap, paired_difference

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results" / "leace-smollm2.json"
LAYER = 15
PROBED = (5, 10, 15, 20, 25, 29)
FITTED = ("1", "irregular_1", "with_adj_irregular_1", "with_adjective_1")  # of determiner_noun_agreement
NUMBER = (
    "determiner_noun_agreement_2",
    "determiner_noun_agreement_irregular_2",
    "regular_plural_subject_verb_agreement_1",
    "distractor_agreement_relational_noun",
)
EACH_NUMBER, EACH_OTHER = 20, 6  # pairs of a paradigm
EVERY_PROBED = 3  # every so manieth text is probed
PASSAGES, KNOWN = 12, 40
CONDITIONS: Mapping[str, Callable[[pal.Model, Concept], Edit] | None] = {
    "unedited": None,
    "layer, LEACE as published": lambda model, concept: erase_concept(model, concept, layers=[LAYER], least="read"),
    "layer, LEACE": lambda model, concept: erase_concept(model, concept, layers=[LAYER]),
    "stream, LEACE": lambda model, concept: erase_concept(model, concept),
    "layer, random": lambda model, concept: erase_concept(model, concept, layers=[LAYER], control="random"),
    "stream, random": lambda model, concept: erase_concept(model, concept, control="random"),
    "stream, LEACE as published": lambda model, concept: erase_concept(model, concept, least="read"),
    "layer, permuted": lambda model, concept: erase_concept(model, concept, layers=[LAYER], control="permuted"),
}


def folder() -> Path:
    """BLiMP's files."""
    return Path(os.environ["PALIMPSEST_RECORDS"]) / "blimp"


def concept() -> Concept:
    """Number, of all pairs."""
    files = [read_facts(folder() / f"determiner_noun_agreement_{name}.jsonl") for name in FITTED]
    return number_concept([fact for file in files for fact in file.facts])


def pairs(number: bool) -> list[Case]:
    """Pairs of sentences whose grammar is number, or of every other paradigm at hand."""
    found: list[Case] = []
    for path in sorted(folder().glob("*.jsonl")):
        about = path.stem.startswith("determiner_noun") or path.stem in NUMBER
        if (path.stem in NUMBER) if number else not about:
            cases = read_cases(path, schema="blimp_pairs").cases
            found += cases[:: len(cases) // (EACH_NUMBER if number else EACH_OTHER)]
    return found


def probed(model: pal.Model, train: Concept, test: Concept) -> dict[str, Any]:
    """Per layer whether a probe trained on fitting nouns is right on each of the others, and its loss in training."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss

    sites = [Site("resid_out", layer) for layer in PROBED]
    parts = [
        states_of(model, Concept(part.name, part.texts[place::EVERY_PROBED]), sites)
        for part, place in ((train, 0), (test, 1))
    ]
    (fitted, labels, _), (asked, truth, nouns) = parts
    rows: dict[str, Any] = {}
    for site in sites:
        centre, spread = fitted[site].mean(0), fitted[site].std(0).clamp(min=1e-9)
        z, z_test = (((states[site] - centre) / spread).numpy() for states in (fitted, asked))
        probe = LogisticRegression(C=0.01, max_iter=2000).fit(z, labels)
        rows[str(site.layer)] = {
            "right": [float(a == b) for a, b in zip(probe.predict(z_test), truth, strict=True)],
            "loss": float(log_loss(labels, probe.predict_proba(z))),
        }
    return {"layers": rows, "nouns": list(nouns), "fitted": len(labels)}


def behaviour(model: pal.Model, facts: list[pal.Fact]) -> dict[str, Any]:
    """Every record's own number."""
    asked = {
        "number": ("blimp", "blimp_right", pairs(True)),
        "other": ("blimp", "blimp_right", pairs(False)),
        "text": ("text", "text_nll", list(passages(shipped_text())[::10][:PASSAGES])),
    }
    found = {}
    for name, (suite, metric, cases) in asked.items():
        records = pal.evaluate(model, cases, suite=suite).measured
        assert len(records) == len(cases)
        found[name] = [record["pre"][metric] for record in records]
    found["facts"] = [float(said.known) for said in knowledge(model, facts)]
    return found


def clusters(facts: list[pal.Fact]) -> dict[str, list[Any]]:
    """What the records of each measure are drawn by."""
    return {
        "number": [case.id.split("/")[1] for case in pairs(True)],
        "other": [case.id.split("/")[1] for case in pairs(False)],
        "text": list(range(PASSAGES)),
        "facts": [[fact.relation, fact.subject] for fact in facts],
    }


def estimates(found: Mapping[str, Any]) -> dict[str, Any]:
    """Every condition's means and differences from the unedited model, with intervals, from the records' numbers."""
    rows, plain = {}, found["conditions"]["unedited"]
    for name, part in found["conditions"].items():
        row: dict[str, Any] = {"probe": {}, "seconds": part["seconds"]}
        for layer, one in part["probe"]["layers"].items():
            row["probe"][layer] = cluster_bootstrap(one["right"], part["probe"]["nouns"]).to_json() | {
                "loss": one["loss"]
            }
        for measure, numbers in part["behaviour"].items():
            drawn = [tuple(c) if isinstance(c, list) else c for c in found["clusters"][measure]]
            unedited = plain["behaviour"][measure]
            row[measure] = cluster_bootstrap(numbers, drawn).to_json()
            row[f"{measure}_change"] = paired_difference(numbers, unedited, drawn).to_json()
        rows[name] = row
    return rows


def run_number() -> None:
    """Measure the conditions that are missing."""
    found = load()
    model = pal.load("smollm2")
    train, test = concept().split(0.75, seed=0)
    shipped = list(read_facts("shipped").facts)
    facts = passing(model, shipped[::4], "known", limit=KNOWN)
    held = found.setdefault("number", {"conditions": {}})
    held |= {
        "layer": LAYER,
        "texts": {"train": train.sizes, "test": test.sizes},
        "nouns": [len({t.group for t in part.texts}) for part in (train, test)],
        "facts": [fact.id for fact in facts],
        "clusters": clusters(facts),
        "width": model.anatomy.width,
        "weights": model.fingerprint(),
    }
    for name, make in CONDITIONS.items():
        if name in held["conditions"]:
            continue
        start = time.process_time()
        edit = None if make is None else make(model, train)
        with nullcontext() if edit is None else edit.applied(model):
            part = {"probe": probed(model, train, test), "behaviour": behaviour(model, facts)}
        held["conditions"][name] = part | {
            "sites": [] if edit is None else edit.notes["sites"],
            "seconds": time.process_time() - start,
        }
        save(found)
        print(name, {k: round(float(np.mean(v)), 3) for k, v in part["behaviour"].items()}, flush=True)


def load() -> dict[str, Any]:
    """What is measured already."""
    return json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}


def save(found: Mapping[str, Any]) -> None:
    """Write it, whole or not at all."""
    atomic_write(RESULTS, json.dumps(found, indent=1) + "\n")


def main() -> None:
    """`run`, one part of it, or `page`."""
    torch.set_num_threads(1)
    if sys.argv[1:2] == ["page"]:
        from leace_smollm2_page import write_page  # beside this file

        found = load()
        if "number" in found:
            found["number"]["estimates"] = estimates(found["number"])
        unwanted = RESULTS.with_name("unwanted-smollm2.json")
        return write_page(found | ({"unwanted": json.loads(unwanted.read_text())} if unwanted.is_file() else {}))
    if sys.argv[2:] in ([], ["number"]):
        run_number()
    if sys.argv[2:] in ([], ["unwanted"]):
        from leace_smollm2_unwanted import run_unwanted  # beside this file

        run_unwanted()
    return None


if __name__ == "__main__":
    main()
