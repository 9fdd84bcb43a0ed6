"""What is left of earlier edits at the end of a long sequence, and after ordinary training; set PALIMPSEST_RECORDS.

    python experiments/edit_methods.py part sequence NAME      # makes the edits, and keeps every value that was searched
    python experiments/lifelong_smollm2.py run [NAME ...]      # writes them again from those values; resumable; results/lifelong/
    python experiments/lifelong_smollm2.py persist [NAME ...]  # trains the model edited 100 times on plain text
    python experiments/lifelong_smollm2.py page                # docs/lifelong-on-smollm2.md

NAMEs are those of the sequences of `edit_methods`. At each check point every fact edited so far is measured on the model of that
moment, and told by when it was written, so that what was never written is told from what later edits undid.
"""

import json
import sys
from pathlib import Path
from typing import Any

import palimpsest as pal
from edit_methods import COLLAPSED, REPORT, SEQUENCES, WORK, records, text_nll  # beside this file
from palimpsest.edit import Edit, EditSequence
from palimpsest.evaluate.persistence import Retraining, persistence
from palimpsest.facts import Fact
from palimpsest.model import Model
from palimpsest.runs import atomic_write, check_writable
from palimpsest.runs.json_text import plain

ROOT = Path(__file__).parents[1]
RUNS, RESULTS = ROOT / "run" / "lifelong", ROOT / "results" / "lifelong"
AT = (1, 10, 100, 500, 1000)
NAMES = ("rome", "memit with a memory", "alphaedit")
SAVED_EVERY = 20  # facts
STEPS, MEASURED = (10, 100, 300), 50


def store(name: str, found: dict[str, Any]) -> None:
    RESULTS.mkdir(parents=True, exist_ok=True)
    atomic_write(RESULTS / f"{name}.json", json.dumps(plain(found), indent=1) + "\n")


def edits(model: Model, name: str) -> dict[int, Edit]:
    """The edit at each check point; those that are there are not made again."""
    method, step, longest, settings = SEQUENCES[name]
    folder, facts = RUNS / name.replace(" ", "-"), records(REPORT, longest)
    points = [n for n in AT if n <= longest]
    made = {n: folder / f"edit-{n}.safetensors" for n in points}
    settings = {**settings, "resume": WORK / "sequences" / name}
    if not all(path.is_file() for path in made.values()):
        saved = check_writable(folder) / "sequence"
        line = (
            EditSequence.load(model, saved, **settings)
            if (saved / "sequence.json").is_file()
            else EditSequence(model, method, **settings)
        )
        n = sum(line.steps)
        while n < points[-1]:
            line.extend(facts[n : n + stretch(n, step)])
            n = sum(line.steps)
            if n in made and line.edit is not None:
                line.edit.save(made[n])
            if n % SAVED_EVERY == 0 or n in made:
                line.save(saved)
                print(name, n, flush=True)
    return {n: Edit.load(path) for n, path in made.items() if path.is_file()}


def stretch(n: int, step: int) -> int:
    """How many facts come after n: a step, but none that passes over a check point."""
    ends = [point for point in AT if point > n]
    return min([step - n % step, *(end - n for end in ends[:1])])


def cohorts(n: int) -> list[tuple[int, int]]:
    """[first, last) of the facts written between two check points."""
    points = [0, *(point for point in AT if point < n), n]
    return list(zip(points, points[1:], strict=False))


def run(name: str) -> None:
    """Retention by cohort, specificity, text and norms at every check point."""
    model = pal.load("smollm2")
    facts, unedited = records(REPORT, SEQUENCES[name][2]), text_nll(model)
    norms = {path: float(weight.norm()) for path, weight in model.net.named_parameters()}
    rows = []
    for n, edit in edits(model, name).items():
        scores = pal.evaluate(model, facts[:n], edit=edit, out=RUNS / name.replace(" ", "-") / f"scores-{n}")
        with edit.applied(model):
            nll = text_nll(model)
            growth = {p.path: float(model.parameter(p.path).norm()) / norms[p.path] for p in edit.payloads}
        some = [{"first": a + 1, "last": b, "post": part_of(scores, facts[a:b])} for a, b in cohorts(n)]
        rows.append(
            {
                "edits": n,
                "all": scores.summary()["post"],
                "unedited": scores.summary()["pre"],
                "cohorts": some,
                "text_nll": nll,
                "edit_norm": edit.norm,
                "weight_norm_growth": growth,
                "collapsed": nll > unedited + COLLAPSED,
            }
        )
        print(
            name, n, {m: round(rows[-1]["all"][m]["value"], 3) for m in ("es", "ps", "ns")}, round(nll, 3), flush=True
        )
        store(name.replace(" ", "-"), {"unedited_text_nll": unedited, "rows": rows})


def part_of(scores: pal.Scores, facts: list[Fact]) -> dict[str, Any]:
    """The scores of some of the facts."""
    wanted = {fact.id for fact in facts}
    some = pal.Scores(tuple(r for r in scores.records if r["id"] in wanted), scores.settings, scores.metrics)
    return {m: plain(some.estimate(m)) for m in ("es", "ps", "ns")}


def persist(name: str) -> None:
    """The model edited 100 times, trained on plain text that has nothing to do with the edits."""
    model = pal.load("smollm2")
    facts = records(REPORT, 100)
    edit = edits(model, name)[100]
    found = persistence(
        model, edit, facts[:MEASURED], steps=STEPS, training=Retraining(batch=2, tokens=64), progress=show
    )
    store(f"persistence-{name.replace(' ', '-')}", found.to_json())
    for row in found.table():
        print(row, flush=True)


def show(done: int, total: int, label: str) -> None:
    if done % 50 == 0:
        print(f"  {done}/{total} {label}", flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "page":
        from lifelong_smollm2_page import write  # beside this file

        write()
    else:
        for one in sys.argv[2:] or NAMES:
            {"run": run, "persist": persist}[sys.argv[1]](one)
