"""Choose the bounds of FT-L and of the attention edit, and the lambdas of the neuron edit, on smollm2.

    PALIMPSEST_RECORDS=... python experiments/fine_tuning_choose.py bounds      # results/fine-tuning/choose.json
    PALIMPSEST_RECORDS=... python experiments/fine_tuning_choose.py neurons     # results/fine-tuning/choose-neurons.json
    python experiments/fine_tuning_choose.py tables                             # into docs/fine-tuning.md and docs/neuron-edits.md

The facts are the first eligible ones among records 2000 to 2100 of counterfact_flat.json, which nothing else is measured
on. Each is edited by itself. A choice is by S (the harmonic mean of ES, PS and NS); with so few facts it is coarse, and what
is reported of a method anywhere is measured on other facts.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from palimpsest.edit import editor
from palimpsest.edit.artefact import Edit, versions
from palimpsest.evaluate import evaluate
from palimpsest.facts import Fact, read_facts
from palimpsest.locate import passing
from palimpsest.model import Model, load

RESULTS = Path(__file__).parents[1] / "results" / "fine-tuning"
BEGIN, END = "<!-- found -->", "<!-- end -->"
BOUNDS: dict[str, dict[str, Any]] = {
    "unedited": {},
    "ft": {"method": "ft"},
    **{f"ft-l {e:g}": {"method": "ft", "preset": "ft-l", "epsilon": e} for e in (1e-3, 2e-3, 4e-3, 8e-3)},
    **{f"attention {e:g}": {"method": "attention", "epsilon": e} for e in (2e-3, 5e-3, 1e-2)},
    "joint": {"method": "joint"},
}
NEURONS: dict[str, dict[str, Any]] = {
    "dai-2022": {"preset": "dai-2022"},
    "eleuther": {"preset": "eleuther"},
    **{
        f"fixed {old:g} {new:g} most {most}": {"lambda_old": old, "lambda_new": new, "most": most}
        for old, new in (
            (0.1, 0.1),
            (0.2, 0.2),
            (0.2, 0.4),
            (0.4, 0.4),
            (0.4, 0.8),
            (1, 1),
            (1, 2),
            (1, 4),
            (2, 8),
            (4, 16),
        )
        for most in (5, 20)
    },
    **{
        f"fixed {old:g} {new:g} most {most} unsigned": {
            "lambda_old": old,
            "lambda_new": new,
            "most": most,
            "signed": False,
        }
        for old, new, most in ((0.4, 0.4, 5), (0.4, 0.8, 5), (1, 1, 5), (1, 4, 20))
    },
}


def split(model: Model, count: int) -> list[Fact]:
    """The facts that choose."""
    folder = Path(os.environ["PALIMPSEST_RECORDS"]) / "counterfact"
    return passing(model, read_facts(folder / "counterfact_flat.json").facts[2000:2100], "eligible", limit=count)


def scored(records: list[dict[str, Any]]) -> dict[str, float]:
    """Means over facts of what each record says, and S."""
    mean = {name: sum(r[name] for r in records) / len(records) for name in ("es", "ps", "ns")}
    harmonic = 3 / sum(1 / value for value in mean.values()) if all(mean.values()) else 0.0
    return {**mean, "s": harmonic}


def bounds(count: int = 12) -> None:
    """Each bound on the same facts; what the file holds already is not measured again."""
    model, before = load("smollm2"), RESULTS / "choose.json"
    facts = split(model, count)
    found = json.loads(before.read_text())["found"] if before.is_file() else {}
    for name, settings in BOUNDS.items():
        if name in found:
            continue
        begun = time.perf_counter()
        records = evaluate(model, facts, **settings).records
        side = "post" if settings else "pre"
        found[name] = scored([record[side] for record in records]) | {
            "seconds": (time.perf_counter() - begun) / len(facts)
        }
        print(name, found[name], flush=True)
        write("choose.json", facts, found)


def neurons(count: int = 8) -> None:
    """Neurons are found once for each selection, and written in every way."""
    model, before, places = load("smollm2"), RESULTS / "choose-neurons.json", {}
    facts = split(model, count)
    found = json.loads(before.read_text())["found"] if before.is_file() else {}
    if "unedited" not in found:
        found = {"unedited": scored([record["pre"] for record in evaluate(model, facts).records])} | found
        write("choose-neurons.json", facts, found)
    for name, settings in NEURONS.items():
        if name in found:
            continue
        made = editor(model, "neurons", **settings)
        selection = made.settings.selection
        if selection not in places:
            places[selection] = [made.find(fact) for fact in facts]
        edits: list[Edit | None] = [made.write([one]) if one.neurons else None for one in places[selection]]
        records = [
            evaluate(model, fact, edit=edit).records[0]["post" if edit else "pre"]
            for fact, edit in zip(facts, edits, strict=True)
        ]
        norms = [edit.norm for edit in edits if edit]
        found[name] = scored(records) | {"norm": sum(norms) / len(norms)}
        print(name, found[name], flush=True)
        write("choose-neurons.json", facts, found)


def tables() -> None:
    """Put what was found between the marks in the two pages."""
    for page, name in (("fine-tuning.md", "choose.json"), ("neuron-edits.md", "choose-neurons.json")):
        record, path = json.loads((RESULTS / name).read_text()), RESULTS.parents[1] / "docs" / page
        rows = [f"| {record['n']} facts | ES | PS | NS | S |", "|---|---|---|---|---|"]
        for label, found in record["found"].items():
            rows.append(
                f"| {label} | " + " | ".join(f"{found[column]:.2f}" for column in ("es", "ps", "ns", "s")) + " |"
            )
        before, _, rest = path.read_text().partition(BEGIN)
        path.write_text(before + BEGIN + "\n\n" + "\n".join(rows) + "\n\n" + END + rest.partition(END)[2])


def write(name: str, facts: list[Fact], found: dict[str, Any]) -> None:
    """One file: what was tried, on what, and what came out."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    ids = [fact.id for fact in facts]
    record = {"model": "smollm2", "versions": versions(), "n": len(facts), "facts": ids, "found": found}
    (RESULTS / name).write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    {"bounds": bounds, "neurons": neurons, "tables": tables}[sys.argv[1]]()
