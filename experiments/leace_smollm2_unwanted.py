"""Half of the shipped associations are removed from smollm2; both halves are attacked, and bystanders asked. `leace_smollm2.py` runs it.

The other half is the control: it is attacked in the same ways and must stay as it was.
"""

import json
import time
from contextlib import nullcontext
from typing import Any

import palimpsest as pal
from leace_smollm2 import KNOWN, PASSAGES, ROOT  # beside this file
from palimpsest.edit.artefact import Edit
from palimpsest.erase.unwanted import elicit, remove, shipped_associations
from palimpsest.evaluate.suites.text import passages
from palimpsest.facts import read_facts, shipped_text
from palimpsest.locate.known import knowledge, passing
from palimpsest.runs import atomic_write
from palimpsest.statistics import cluster_bootstrap, paired_difference

RESULTS = ROOT / "results" / "unwanted-smollm2.json"


def run_unwanted() -> None:
    """Measure, unless it is measured already."""
    if RESULTS.is_file():
        return
    model = pal.load("smollm2")
    everything = shipped_associations()
    gone, stays = everything[::2], everything[1::2]
    facts = passing(model, list(read_facts("shipped").facts)[::4], "known", limit=KNOWN)
    start = time.process_time()
    edit = remove(model, gone)
    seconds = time.process_time() - start
    tried = {name: elicit(model, some, edit).to_json() for name, some in (("removed", gone), ("kept", stays))}
    before, after = (_bystanders(model, facts, one) for one in (None, edit))
    found = {
        "weights": model.fingerprint(),
        "settings": dict(edit.settings),
        "steps": edit.notes["steps"],
        "seconds": seconds,
        "associations": list(edit.notes["associations"]),
        "ids": {"removed": [one.id for one in gone], "kept": [one.id for one in stays]},
        "elicitation": tried,
        "bystanders": {
            name: {
                "before": cluster_bootstrap(before[name], drawn).to_json(),
                "after": cluster_bootstrap(after[name], drawn).to_json(),
                "change": paired_difference(after[name], before[name], drawn).to_json(),
            }
            for name, drawn in (
                ("text", list(range(PASSAGES))),
                ("facts", [(fact.relation, fact.subject) for fact in facts]),
            )
        },
    }
    atomic_write(RESULTS, json.dumps(found, indent=1) + "\n")
    for name, one in tried.items():
        for attack, row in one["attacks"].items():
            print(name, attack, {key: {w: round(e["value"], 4) for w, e in row[key].items()} for key in ("p", "base")})


def _bystanders(model: pal.Model, facts: list[pal.Fact], edit: Edit | None) -> dict[str, list[Any]]:
    with nullcontext() if edit is None else edit.applied(model):
        # every 10th passage from the 6th: others than those that erasing number is measured on
        cases = list(passages(shipped_text())[5::10][:PASSAGES])
        records = pal.evaluate(model, cases, suite="text").measured
        return {
            "text": [record["pre"]["text_nll"] for record in records],
            "facts": [float(said.known) for said in knowledge(model, facts)],
        }
