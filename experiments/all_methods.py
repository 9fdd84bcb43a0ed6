"""Every way to change a fact in one table: editors that solve, editors that learned, memories; single edits and sequences. smollm2.

    PALIMPSEST_RECORDS=... python experiments/all_methods.py run [DATA/METHOD/PART ...]   # resumable; results/all-methods/
    python experiments/all_methods.py page                                               # docs/all-methods-on-smollm2.md

DATA is counterfact or zsre; PART is single (one edit a record, undone before the next), 10, 100 or 1000 (edits in sequence, all measured
on the *last* model, with what is left of each fact by how many edits came after it; 1000 where an edit takes less than a second, and on
CounterFact alone, because zsRE's file of held-out questions has 98 that can be used). Methods that write many facts at once write ten
a step of a sequence, others one. The learned editors need `experiments/train_zsre.py`'s and are left out while there are none.

Beside what every method does to the facts stand what it costs: processor seconds an edit, bytes an edit, and after n edits the time of
reading a prompt and of one token more over that of the unedited model, measured in the same process. Sequences that
`lifelong_smollm2.py` made on the same records are measured again, not made again; their seconds an edit are those of `edit_methods.py`.
"""

import json
import os
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

import palimpsest as pal
from edit_methods import CHOSEN, CONTEXTS, REPORT, WEIGHT, records  # beside this file
from palimpsest.edit import Edit, EditSequence
from palimpsest.errors import PalimpsestError
from palimpsest.facts import Fact, read_facts
from palimpsest.model import Model
from palimpsest.runs import atomic_write, check_writable
from palimpsest.runs.json_text import plain

ROOT = Path(__file__).parents[1]
RESULTS, WORK = ROOT / "results" / "all-methods", ROOT / "run" / "all-methods"
LEARNED = ROOT / "run" / "train-zsre"
SUITES = {"counterfact": "counterfact+teacher_forcing", "zsre": "zsre"}
SINGLE, MANY, STEP = 12, 100, 10
# Facts of a sequence that are measured: all of 10, and of more this many at even distances (a question of zsRE takes five times as long).
MEASURED = {"counterfact": 50, "zsre": 20}
PASSES = 7  # readings of a prompt that a latency is the median of
SAVED_EVERY = 20  # facts
LONG = {"counterfact": 1000}  # of ways that take less than a second an edit


@dataclass(frozen=True)
class Way:
    """A method as the table has it: how many facts it writes at once in a sequence, and its settings.

    `earlier` names a sequence of `edit_methods.py` with the same records and settings; `longest` is the longest sequence of a data
    set that a way is run for, where that is not `MANY`.
    """

    method: str
    step: int = 1
    settings: dict[str, Any] = field(default_factory=dict)
    earlier: str = ""
    longest: Mapping[str, int] = field(default_factory=dict)


WAYS = {
    "rome": Way("rome", 1, {"contexts": CONTEXTS, "memory": False}, "rome"),
    "memit": Way("memit", STEP, {**CHOSEN, "moment_weight": WEIGHT, "memory": True}, "memit with a memory"),
    "emmet": Way("emmet", STEP, {"contexts": CONTEXTS}),
    "alphaedit": Way("alphaedit", STEP, CHOSEN, "alphaedit"),
    "overwrite": Way("overwrite", STEP),
    "ft": Way("ft", STEP),
    "ft-l": Way("ft", STEP, {"preset": "ft-l"}),
    "attention": Way("attention", STEP, longest=LONG),
    "joint": Way("joint", STEP),
    "neurons": Way("neurons", STEP),
    "mend": Way("mend", STEP, {"editor": LEARNED / "mend" / "editor.safetensors"}, longest=LONG),
    "ke": Way("ke", STEP, {"editor": LEARNED / "ke" / "editor.safetensors"}, longest=LONG),
    "grace": Way("grace", STEP, longest=LONG),
    "wise": Way("wise", STEP),
    "in-context, bm25": Way("in-context", STEP, {"retriever": "bm25"}, longest=LONG),
    "in-context, keys": Way("in-context", STEP, {"retriever": "keys"}, longest=LONG),
    "in-context, encoder": Way("in-context", STEP, {"retriever": "encoder"}, longest=LONG),
    "serac": Way("serac", STEP, {"retriever": "encoder"}, longest=LONG),
    "random": Way("random", STEP, {"like": "memit", **CHOSEN, "moment_weight": WEIGHT}),
}
RETAINED = {"counterfact": ("tf_exact", "es"), "zsre": ("zsre_efficacy", "zsre_gen_efficacy")}
SAID = {
    "counterfact": ("tf_exact", "es", "ps", "ns"),
    "zsre": ("zsre_efficacy", "zsre_paraphrase", "zsre_specificity"),
}
PARTS = ("single", "10", "100", "1000")


def facts_of(data: str, count: int) -> list[Fact]:
    """So many records of one data set, or as many as it has, in the order of its file."""
    if data == "counterfact":
        return records(REPORT, count)
    path = Path(os.environ["PALIMPSEST_RECORDS"]) / "zsre" / "zsre_mend_eval.json"
    return list(read_facts(path).facts[:count])


def run(job: str) -> None:
    """One job, unless it is finished, its editor is not trained, or it is longer than its way can afford."""
    data, name, part = job.split("/")
    stored, way = RESULTS / data / f"{file_of(name)}-{part}.json", WAYS[name]
    needed = way.settings.get("editor")
    if stored.is_file() or (needed is not None and not Path(needed).is_file()):
        return
    count = SINGLE if part == "single" else int(part)
    if count > way.longest.get(data, MANY):
        return
    began, model, facts = time.process_time(), pal.load("smollm2"), facts_of(data, count)
    folder, kept = check_writable(WORK / data / file_of(name)), WORK / data / "unedited"
    asks: dict[str, Any] = {"suite": SUITES[data], "out": folder / f"scores-{part}", "cache": kept, "progress": show}
    if part == "single":
        scores = pal.evaluate(model, facts, method=way.method, **asks, **way.settings)
        record: dict[str, Any] = {}
    else:
        edit, seconds = written(model, facts, way, folder, data, part)
        most = min(MEASURED[data], len(facts))
        places = [round((i + 0.5) * len(facts) / most - 0.5) for i in range(most)]
        scores = pal.evaluate(model, [facts[i] for i in places], edit=edit, **asks)
        cost = {"seconds_an_edit": seconds, "bytes_an_edit": edit.size / len(facts), **latencies(model, facts[0], edit)}
        record = {"facts": len(facts), "written": len(edit.facts), "cost": cost}
        record["retention"] = retention(scores, {facts[i].id: len(facts) - 1 - i for i in places}, RETAINED[data])
    summary = {"n": len(scores.measured), "failed": len(scores.failed), **scores.summary(), **record}
    summary["cpu_minutes"] = round((time.process_time() - began) / 60, 2)
    stored.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(stored, json.dumps(plain(summary), indent=1) + "\n")
    says = {m: round(found["value"], 3) for m in SAID[data] if (found := summary["post"].get(m))}
    print(job, says, f"{summary['cpu_minutes']} CPU-minutes", flush=True)


def file_of(name: str) -> str:
    """The name of a way in those of files."""
    return name.replace(", ", "-")


def retention(scores: pal.Scores, after: dict[str, int], metrics: Sequence[str]) -> dict[str, list[Any]]:
    """Of each fact that was measured, how many edits came after its own, and its metrics on the last model."""
    rows = scores.measured
    return {"after": [after[row["id"]] for row in rows], **{m: [row["post"].get(m) for row in rows] for m in metrics}}


def written(model: Model, facts: list[Fact], way: Way, folder: Path, data: str, part: str) -> tuple[Edit, float]:
    """The whole sequence as one edit, and the seconds an edit: as an earlier run made it, or made now."""
    if data == "counterfact" and way.earlier:
        made = ROOT / "run" / "lifelong" / file_of(way.earlier).replace(" ", "-") / f"edit-{part}.safetensors"
        timed = ROOT / "results" / "edit-methods" / "sequence" / f"{way.earlier}.json"
        if made.is_file() and timed.is_file():
            return Edit.load(made), float(json.loads(timed.read_text())["seconds_per_fact"])
    whole, timed = folder / f"edit-{part}.safetensors", folder / f"seconds-{part}.json"
    if not (whole.is_file() and timed.is_file()):  # a sequence of 100 goes on with that of 10
        line, seconds = sequence(model, facts, way, folder)
        assert line.edit is not None, f"{way.method} wrote none of {len(facts)} facts"
        line.edit.save(whole)
        atomic_write(timed, json.dumps(round(seconds / len(facts), 3)))
    return Edit.load(whole), float(json.loads(timed.read_text()))


def sequence(model: Model, facts: list[Fact], way: Way, folder: Path) -> tuple[EditSequence, float]:
    """The facts written one step after the other, and the processor seconds it took; a fact that cannot be written is passed over.

    A step that cannot be written whole is written fact by fact. It is kept every few facts and goes on from there.
    """
    state = folder / "done.json"
    at, seconds = json.loads(state.read_text()) if state.is_file() else (0, 0.0)
    at, seconds = (at, seconds) if at <= len(facts) else (0, 0.0)  # a longer one is there: begin anew
    begin = EditSequence.load if at else EditSequence
    line: EditSequence = begin(model, *([folder] if at else [way.method]), **way.settings)
    while at < len(facts):
        some, began = facts[at : at + way.step], time.process_time()  # one thread; a run may be stopped for a while
        extend(line, some)
        at, seconds = at + len(some), seconds + time.process_time() - began
        show(at, len(facts), way.method)
        if line.edit is not None and (at % SAVED_EVERY == 0 or at == len(facts)):
            line.save(folder)
            atomic_write(state, json.dumps([at, seconds]))
    return line, seconds


def extend(line: EditSequence, facts: list[Fact]) -> None:
    """Write one step; where that is refused, what of it can be written alone."""
    try:
        line.extend(facts)
    except PalimpsestError as error:
        if len(facts) == 1:
            print(f"  {facts[0].id}: {error}", flush=True)
            return
        for fact in facts:
            extend(line, [fact])


def latencies(model: Model, fact: Fact, edit: Edit) -> dict[str, float]:
    """Seconds of a prompt and of one token more from its cached keys and values, medians, with the edit and without.

    The two take turns, so that what else the machine does meets both; the first turn warms up and is not counted.
    """
    times: dict[str, list[float]] = {}
    for _ in range(PASSES + 1):
        for label, put in (("unedited", nullcontext()), ("edited", edit.applied(model))):
            with put, model.evaluating(), torch.no_grad():
                began = time.perf_counter()
                ids = torch.tensor([model.encode(fact.text).ids])  # a memory of texts acts here
                cache = model.net(ids, use_cache=True).past_key_values
                between = time.perf_counter()
                model.net(ids[:, -1:], past_key_values=cache, use_cache=True)
                times.setdefault(f"prompt_{label}", []).append(between - began)
                times.setdefault(f"token_{label}", []).append(time.perf_counter() - between)
    return {name: statistics.median(some[1:]) for name, some in times.items()}


def show(done: int, total: int, label: str) -> None:
    if done % 10 == 0:
        print(f"  {done}/{total} {label}", flush=True)


def main() -> None:
    """`run` or `page`."""
    if sys.argv[1:2] == ["page"]:
        from all_methods_page import write  # beside this file

        return write()
    torch.set_num_threads(1)  # as every measured second of the other pages
    every = [f"{data}/{name}/{part}" for part in PARTS for data in SUITES for name in WAYS]
    for job in sys.argv[2:] or every:
        try:
            run(job)
        except PalimpsestError as error:
            print(f"{job} failed: {error}", flush=True)
    return None


if __name__ == "__main__":
    main()
