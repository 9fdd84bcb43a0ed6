"""Every way to change a fact in one table: editors that solve, editors that learned, memories; single edits and sequences. smollm2.

    PALIMPSEST_RECORDS=... python experiments/all_methods.py run [DATA/METHOD/PART ...]   # resumable; results/all-methods/
    python experiments/all_methods.py page                                               # docs/all-methods-on-smollm2.md

DATA is counterfact or zsre, the first 100 records of each; PART is single (one edit a record, undone before the next), 10 or 100
(edits in sequence, all measured on the *last* model). Methods that write many facts at once write ten a step of a sequence, others
one. The learned editors need `experiments/train_mend.py`'s and are left out while there are none.

Beside what every method does to the facts stand what it costs: seconds an edit, bytes an edit, and the latency of a token after n
edits over that of the unedited model, measured in the same process.
"""

import json
import os
import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

import palimpsest as pal
from edit_methods import CHOSEN, CONTEXTS, REPORT, WEIGHT, records  # beside this file
from palimpsest.edit import EditSequence
from palimpsest.errors import PalimpsestError
from palimpsest.facts import Fact, read_facts
from palimpsest.model import Model
from palimpsest.runs import atomic_write
from palimpsest.runs.json_text import plain

ROOT = Path(__file__).parents[1]
RESULTS, WORK = ROOT / "results" / "all-methods", ROOT / "run" / "all-methods"
LEARNED = ROOT / "run" / "train-zsre"
SUITES = {"counterfact": "counterfact+teacher_forcing+generation", "zsre": "zsre"}
SINGLE, MANY, STEP = 30, 100, 10
PASSES = 15  # forward passes of one token after a prefix that a latency is the median of


@dataclass(frozen=True)
class Way:
    """A method as the table has it: how many facts it writes at once in a sequence, and its settings."""

    method: str
    step: int = 1
    settings: dict[str, Any] = field(default_factory=dict)


WAYS = {
    "rome": Way("rome", 1, {"contexts": CONTEXTS}),
    "memit": Way("memit", STEP, {**CHOSEN, "moment_weight": WEIGHT}),
    "emmet": Way("emmet", STEP, {"contexts": CONTEXTS}),
    "alphaedit": Way("alphaedit", STEP, CHOSEN),
    "overwrite": Way("overwrite", STEP),
    "ft": Way("ft"),
    "ft-l": Way("ft", 1, {"preset": "ft-l"}),
    "attention": Way("attention"),
    "joint": Way("joint"),
    "neurons": Way("neurons"),
    "mend": Way("mend", STEP, {"editor": LEARNED / "mend" / "editor.safetensors"}),
    "ke": Way("ke", STEP, {"editor": LEARNED / "ke" / "editor.safetensors"}),
    "grace": Way("grace"),
    "wise": Way("wise", STEP),
    "in-context, bm25": Way("in-context", STEP, {"retriever": "bm25"}),
    "in-context, keys": Way("in-context", STEP, {"retriever": "keys"}),
    "in-context, encoder": Way("in-context", STEP, {"retriever": "encoder"}),
    "random": Way("random", 1, {"like": "rome", "contexts": CONTEXTS}),
}
PARTS = ("single", "10", "100")


def facts_of(data: str) -> list[Fact]:
    """The records of one data set, in the order of its file."""
    if data == "counterfact":
        return records(REPORT, MANY)
    path = Path(os.environ["PALIMPSEST_RECORDS"]) / "zsre" / "zsre_mend_eval.json"
    return list(read_facts(path).facts[:MANY])


def run(job: str) -> None:
    """One job, unless it is finished."""
    data, name, part = job.split("/")
    stored = RESULTS / data / f"{name.replace(', ', '-')}-{part}.json"
    way = WAYS[name]
    needed = way.settings.get("editor")
    if stored.is_file() or (needed is not None and not Path(needed).is_file()):
        return
    model, facts = pal.load("smollm2"), facts_of(data)
    folder = WORK / data / name.replace(", ", "-")
    settings = {**way.settings, "resume": folder / "values"}
    began = time.perf_counter()
    if part == "single":
        scores = pal.evaluate(
            model,
            facts[:SINGLE],
            method=way.method,
            suite=SUITES[data],
            out=folder / part,
            progress=show,
            **way.settings,
        )
        cost: dict[str, Any] = {"seconds": (time.perf_counter() - began) / SINGLE}
    else:
        line, seconds = sequence(model, facts[: int(part)], way, settings)
        assert line.edit is not None
        scores = pal.evaluate(model, facts[: int(part)], edit=line.edit, suite=SUITES[data], out=folder / part)
        cost = {
            "seconds_an_edit": seconds / int(part),
            "bytes_an_edit": line.edit.size / int(part),
            "latency": latency(model, facts[0], line.edit),
            "unedited_latency": latency(model, facts[0], None),
        }
    record = {"n": len(scores.measured), "failed": len(scores.failed), **scores.summary(), "cost": cost}
    stored.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(stored, json.dumps(plain(record), indent=1) + "\n")
    print(job, *[f"{row['metric']} {row.get('after') or row['before']}" for row in scores.table()], flush=True)


def sequence(model: Model, facts: list[Fact], way: Way, settings: dict[str, Any]) -> tuple[EditSequence, float]:
    """The facts written one step after the other, and the seconds it took; a fact that cannot be written is passed over."""
    line, began = EditSequence(model, way.method, **settings), time.perf_counter()
    for at in range(0, len(facts), way.step):
        try:
            line.extend(facts[at : at + way.step])
        except PalimpsestError as error:
            print(f"  {facts[at].id}: {error}", flush=True)
        if at % 10 == 0:
            show(at, len(facts), way.method)
    return line, time.perf_counter() - began


def latency(model: Model, fact: Fact, edit: Any) -> float:
    """Seconds of one token after a prefix with cached keys and values, the median of some; with `edit` applied."""
    ids = list(model.encode(fact.text).ids)
    with edit.applied(model) if edit is not None else model.evaluating(), model.evaluating(), torch.no_grad():
        times = []
        for _ in range(PASSES):
            cache = model.net(torch.tensor([ids[:-1]]), use_cache=True).past_key_values
            began = time.perf_counter()
            model.net(torch.tensor([ids[-1:]]), past_key_values=cache, use_cache=True)
            times.append(time.perf_counter() - began)
    return statistics.median(times)


def show(done: int, total: int, label: str) -> None:
    if done % 10 == 0:
        print(f"  {done}/{total} {label}", flush=True)


def main() -> None:
    """`run` or `page`."""
    if sys.argv[1:2] == ["page"]:
        from all_methods_page import write  # beside this file

        return write()
    every = [f"{data}/{name}/{part}" for part in PARTS for data in SUITES for name in WAYS]
    for job in sys.argv[2:] or every:
        try:
            run(job)
        except PalimpsestError as error:
            print(f"{job} failed: {error}", flush=True)
    return None


if __name__ == "__main__":
    main()
