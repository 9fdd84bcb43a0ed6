"""Line-ups of single edits without the base: is the edited subject found, in which layers, and who else; and their page.

    python experiments/line_up.py run world [WHAT]         # resumable: each way to edit and each kind of copy has a file in results/line-up/
    python experiments/line_up.py run smollm2 [WHAT]       # and a row there as soon as it is measured
    python experiments/line_up.py page                     # docs/line-up-measured.md

The models, edits and copies are those of `forensics.py`. Moments are the edited model's own, measured anew for every edit, as they would
be by one who has that model alone. Candidates are all names of the world or all subjects of the shipped facts; for edits at the last token,
the prompts of all known facts.

The thresholds of `line_up` were set after looking at the known facts number 50 to 59 of the world, in each of the four ways, at the first three
of smollm2, and at one unedited copy of either. Those facts are not edited here; those copies, number 0, are among the copies.
"""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

import palimpsest as pal
from forensics import layers_of  # beside this file
from forensics_models import Study, known, studies
from forensics_page import ASKED, COPIES, NEEDED, share
from pages import table
from palimpsest.edit.moments import collect_moments
from palimpsest.erase.forensics import LineUp, line_up
from palimpsest.erase.forensics.line_up import AGREEMENT, ALONG, STRENGTH
from palimpsest.erase.forensics.reading import down_layers
from palimpsest.facts import Fact, shipped_text
from palimpsest.model import Model
from palimpsest.runs import atomic_write

ROOT = Path(__file__).parents[1]
RESULTS, PAGE = ROOT / "results" / "line-up", ROOT / "docs" / "line-up-measured.md"
EDITS = {"world": slice(0, 50), "smollm2": slice(3, 23)}  # of the known facts
EVERY = {"world": 2, "smollm2": 3}  # one in so many copies
AT_LAST = "last token"  # in the names of methods that edit there
THRESHOLDS = {"strength": STRENGTH, "agreement": AGREEMENT, "along": ALONG}
Row = dict[str, Any]


def run(name: str, *only: str) -> None:
    """Make the rows that are missing of one model."""
    study = studies()[name]
    if unknown := set(only) - {*study.methods, *study.copies}:
        sys.exit(f"{name} has no {unknown}; it has {[*study.methods, *study.copies]}")
    model = study.load()
    facts = known(study, model)
    for what in only or (*study.methods, *study.copies):
        if what in study.methods:
            numbers, make = range(len(facts))[EDITS[name]], edited
        else:
            numbers, make = range(0, study.copies[what][0], EVERY[name]), copied
        kept = kept_rows(name, what)
        for i in numbers:
            if not any(row["i"] == i for row in kept):
                began = time.process_time()
                row = make(study, model, facts, what, i)
                kept.append({"i": i, **row, "seconds": round(time.process_time() - began, 1)})
                data = {"what": what, "thresholds": THRESHOLDS, "rows": kept}
                path = file_of(name, what)
                path.parent.mkdir(parents=True, exist_ok=True)
                atomic_write(path, json.dumps(data, separators=(",", ":")).replace("},{", "},\n{") + "\n")
                print(name, what, kept[-1], flush=True)


def file_of(name: str, what: str) -> Path:
    """Where the rows of a way to edit, or of a kind of copy, are kept."""
    return RESULTS / f"{name}-{what.replace(', ', '-').replace(' ', '-')}.json"


def kept_rows(name: str, what: str) -> list[Row]:
    """Those that are there, unless they were measured with other thresholds."""
    path = file_of(name, what)
    data = json.loads(path.read_text()) if path.is_file() else {}
    return data["rows"] if data.get("thresholds") == THRESHOLDS else []


def edited(study: Study, model: Model, facts: list[Fact], method: str, i: int) -> Row:
    """One fact edited, and its model's candidates lined up."""
    fact, (kind, settings) = facts[i], study.methods[method]
    edit = pal.edit(model, [fact], method=kind, **settings)
    row = {"fact": fact.id, "layers": layers_of(model, edit)}
    if not any(payload.norm > 0 for payload in edit.payloads):
        return {**row, "empty": True}
    prompts = AT_LAST in method
    with edit.applied(model):
        found = lined_up(model, sorted({f.text for f in facts}) if prompts else sorted(study.names()[0]))
    return {**row, **said(found, fact.text if prompts else fact.subject)}


def copied(study: Study, model: Model, facts: list[Fact], kind: str, i: int) -> Row:
    """One model that holds no edit, or one that fine-tuning made, and its candidates lined up."""
    with study.copies[kind][1](model, facts, i) as other:
        found = lined_up(other, sorted(study.names()[0]))
    return {"fact": facts[i].id, **said(found, facts[i].subject)}


def lined_up(model: Model, names: list[str]) -> LineUp:
    """By the model's own moments."""
    return line_up(model, names, moments=collect_moments(model, down_layers(model), shipped_text()))


def said(found: LineUp, about: str) -> Row:
    """What is kept of a line-up, and what it says of the one who was edited, or trained on."""
    strongest = asdict(found.strongest)
    return {
        "compared": len(found.candidates),
        "rank": found.subject.rank(about),
        "flagged": about in found.flagged,
        "others": len(set(found.flagged) - {about}),
        "found": strongest["layers"],
        **{key: round(strongest[key], 3) for key in ("suspect", "score", "strength", "agreement")},
    }


def write_page() -> None:
    """From the rows alone."""
    parts = [HEAD]
    for name, study in studies().items():
        tables = [edits_table(name, study), *copies_table(name, study)]
        if any(kept_rows(name, what) for what in (*study.methods, *study.copies)):
            parts += [f"## {name}", *missing(name, study), *tables]
    atomic_write(PAGE, "\n\n".join(parts) + "\n")


def missing(name: str, study: Study) -> list[str]:
    """What of the plan is not measured yet."""
    edits = EDITS[name].stop - EDITS[name].start
    planned = dict.fromkeys(study.methods, edits)
    planned |= {COPIES[kind]: len(range(0, count, EVERY[name])) for kind, (count, _) in study.copies.items()}
    there = {COPIES.get(what, what): len(kept_rows(name, what)) for what in (*study.methods, *study.copies)}
    left = [f"{planned[what] - n} of {planned[what]} of {what}" for what, n in there.items() if n < planned[what]]
    return [f"Not measured yet: {', '.join(left)}."] if left else []


def edits_table(name: str, study: Study) -> str:
    """How often whom and where."""
    columns: dict[str, Callable[[list[Row]], str]] = {
        "edited layers": lambda rows: ", ".join(map(str, rows[0]["layers"])),
        "candidates": lambda rows: str(rows[0]["compared"]),
        "flagged and its subject first": lambda rows: share([bool(row["found"]) and row["rank"] == 1 for row in rows]),
        "its most suspect layer an edited one": lambda rows: (
            share(right := [layer_found(row) for row in rows]) + met(right)
        ),
        "exactly the edited layers": lambda rows: share([row["found"] == row["layers"] for row in rows]),
        "another layer named": lambda rows: share([bool(set(row["found"]) - set(row["layers"])) for row in rows]),
        "other candidates flagged, median": lambda rows: f"{np.median([row['others'] for row in rows]):g}",
        "seconds, median": lambda rows: f"{np.median([row['seconds'] for row in rows]):.0f}",
    }
    lines = []
    for method in study.methods:
        rows = [row for row in kept_rows(name, method) if not row.get("empty")]
        if rows:
            lines.append([method, *(column(rows) for column in columns.values())])
    return table(["method", *columns], lines)


def layer_found(row: Row) -> bool:
    """Whether somebody is flagged, in an edited layer first."""
    return bool(row["found"]) and row["suspect"] in row["layers"]


def met(right: list[bool]) -> str:
    """Whether that is as often as is asked for, in so many edits."""
    if sum(right) < NEEDED * len(right):
        return " (**not met**)"
    return " (met)" if len(right) >= ASKED else f" (met on fewer than the {ASKED} edits asked for)"


def copies_table(name: str, study: Study) -> list[str]:
    """False alarms; and whether training on a fact shows."""
    lines = []
    for kind in study.copies:
        if rows := kept_rows(name, kind):
            flags = share([bool(row["found"]) for row in rows])
            first = share([row["flagged"] for row in rows]) if kind in TRAINED_ON_A_FACT else ""
            lines.append([COPIES[kind], flags, first, f"{max(row['score'] for row in rows):.2f}"])
    header = ["copy", "any candidate flagged", "the fact's own subject flagged", "largest score"]
    return [table(header, lines)] if lines else []


TRAINED_ON_A_FACT = ("fixed", "ft-l", "ft-l, bound 0.001")
HEAD = f"""# Line-ups, measured

Made by

    python experiments/line_up.py run world
    python experiments/line_up.py run smollm2
    python experiments/line_up.py page

Who was edited, and where, asked of the edited model alone: what a line-up is stands in [forensics](forensics.md), the models and their
edits in [forensics, measured](forensics-measured.md). One fact an edit. The edited subject is always among the candidates, which are all
names of the made world, or all subjects of the shipped facts; for edits at the last token, the prompts of facts that the model knows, the
edited ones among them. Second moments are the edited model's own, measured anew for every edit; the seconds are a processor's, with that and
with making the edit. Thresholds are the library's ({STRENGTH:g} of the strength, {AGREEMENT:g} of the agreement, {ALONG:g} along the
direction). They were set after looking at edits of ten facts of the world and three of smollm2, which are not edited here, and at an unedited
copy of either, which is among the copies. Edits that write nothing, as the model's first choice was the new answer already, are left out. Intervals are Wilson's or, where
none or all count, the rule of three; 95 %. Asked for is the layer in {NEEDED:.0%} of the edits. Of
smollm2 there are at most 20 edits a way and not {ASKED}, for each takes two minutes.

Copies are every second of those of the world in [forensics, measured](forensics-measured.md), and every third of smollm2's, with subjects as
candidates. Fine-tuning on one fact is an edit too, but of another shape, for which a line-up is not made."""


if __name__ == "__main__":
    if sys.argv[1] == "page":
        write_page()
    else:
        run(*sys.argv[2:])
