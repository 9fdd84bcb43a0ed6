"""Line-ups of single edits without the base: is the edited subject found, in which layers, and who else; and their page.

    python experiments/line_up.py run world [METHOD]       # resumable: every row is kept in results/line-up/ as soon as it is there
    python experiments/line_up.py run smollm2 [METHOD]     # about two minutes an edit on one core
    python experiments/line_up.py page                     # docs/line-up-measured.md

The models, edits and copies are those of `forensics.py`. Moments are the edited model's own, measured anew for every edit, as they would
be by one who has that model alone. Candidates are all names of the world or all subjects of the shipped facts; for edits at the last token,
whole prompts.

The thresholds of `line_up` were set after looking at four facts of the world, in each way, and at the first three known facts of smollm2:
these are left out here.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import palimpsest as pal
from forensics import layers_of  # beside this file
from forensics_models import Study, known, studies
from forensics_page import COPIES, share
from pages import table
from palimpsest.edit.moments import collect_moments
from palimpsest.erase.forensics import LineUp, line_up
from palimpsest.erase.forensics.line_up import AGREEMENT, ALONG, STRENGTH
from palimpsest.facts import Fact, shipped_text
from palimpsest.model import Model
from palimpsest.runs import atomic_write

ROOT = Path(__file__).parents[1]
RESULTS, PAGE = ROOT / "results" / "line-up", ROOT / "docs" / "line-up-measured.md"
EDITS = {"world": slice(0, 50), "smollm2": slice(3, 23)}  # of the known facts
EVERY = {"world": 1, "smollm2": 3}  # one in so many copies
AT_LAST = "last token"  # in the names of methods that edit there
NEEDED = 0.95


def run(name: str, only: str | None = None) -> None:
    """Make the rows that are missing of one model."""
    study, path = studies()[name], RESULTS / f"{name}.json"
    model, rows = study.load(), json.loads(path.read_text()) if path.is_file() else []
    facts, there = known(study, model), {(row["what"], row["i"]) for row in rows}

    def keep(row: dict[str, Any]) -> None:
        rows.append(row)
        RESULTS.mkdir(parents=True, exist_ok=True)
        atomic_write(path, "[\n" + ",\n".join(json.dumps(one, separators=(",", ":")) for one in rows) + "\n]\n")
        print(name, row, flush=True)

    some = list(enumerate(facts))[EDITS[name]]
    for i, fact in some:
        for method in study.methods:
            if (method, i) not in there and only in (None, method):
                keep(edited(study, model, facts, method, i, fact))
    for kind, (count, copy) in study.copies.items():
        for i in range(0, count, EVERY[name]):
            if (kind, i) not in there and only in (None, kind):
                with copy(model, facts, i) as other:
                    found = lined_up(other, names_of(study, facts, ""))
                best = max(found.candidates, key=lambda one: one.score)
                keep({"what": kind, "i": i, "flagged": len(found.flagged), "score": round(best.score, 3)})


def edited(study: Study, model: Model, facts: list[Fact], method: str, i: int, fact: Fact) -> dict[str, Any]:
    """One fact edited, and its model's candidates lined up."""
    began, (kind, settings) = time.process_time(), study.methods[method]
    edit = pal.edit(model, [fact], method=kind, **settings)
    row = {"what": method, "i": i, "fact": fact.id, "layers": layers_of(model, edit)}
    if not any(payload.norm > 0 for payload in edit.payloads):
        return {**row, "empty": True}
    with edit.applied(model):
        found = lined_up(model, names_of(study, facts, method))
    own = fact.text if AT_LAST in method else fact.subject
    first = max(found.candidates, key=lambda one: one.score)
    return {
        **row,
        "rank": found.subject.rank(own),
        "flagged": own in found.flagged,
        "others": len(set(found.flagged) - {own}),
        "suspect": first.suspect,
        "found": list(found.layers),
        "score": round(first.score, 3),
        "strength": round(first.strength, 2),
        "agreement": round(first.agreement, 2),
        "seconds": round(time.process_time() - began, 1),
    }


def names_of(study: Study, facts: list[Fact], method: str) -> list[str]:
    """Whom an edit of this method may be about."""
    return sorted({fact.text for fact in facts} if AT_LAST in method else study.names()[0])


def lined_up(model: Model, names: list[str]) -> LineUp:
    """By the model's own moments."""
    layers = [layer.index for layer in model.anatomy.layers if layer.down is not None]
    return line_up(model, names, moments=collect_moments(model, layers, shipped_text()))


def write_page() -> None:
    """From the rows alone."""
    parts = [HEAD]
    for name in EDITS:
        path = RESULTS / f"{name}.json"
        if path.is_file():
            parts += section(name, json.loads(path.read_text()))
    atomic_write(PAGE, "\n\n".join(parts) + "\n")


def section(name: str, rows: list[dict[str, Any]]) -> list[str]:
    """One model's tables."""
    methods = [method for method in studies()[name].methods if any(row["what"] == method for row in rows)]
    lines, empty = [], 0
    for method in methods:
        of = [row for row in rows if row["what"] == method and not row.get("empty")]
        empty += sum(bool(row.get("empty")) for row in rows if row["what"] == method)
        ok = [row["suspect"] in row["layers"] and bool(row["found"]) for row in of]
        exact = [row["found"] == row["layers"] for row in of]
        lines.append(
            [
                method,
                ", ".join(map(str, of[0]["layers"])),
                share([row["rank"] == 1 and row["flagged"] for row in of]),
                share(ok) + (" (met)" if sum(ok) >= NEEDED * len(ok) else " (**not met**)"),
                share(exact),
                share([not set(row["found"]) <= set(row["layers"]) for row in of]),
                f"{sorted(row['others'] for row in of)[len(of) // 2]}",
            ]
        )
    parts = [
        f"## {name}",
        table(
            [
                "method",
                "edited layers",
                "subject first, and flagged",
                "most suspect layer flagged and edited (95 % asked for)",
                "exactly the edited layers",
                "another layer named",
                "other candidates flagged, median",
            ],
            lines,
        ),
    ]
    if empty:
        parts.append(
            f"{empty} edits wrote nothing, as the model's first choice was the new answer already; they are left out."
        )
    kinds = [kind for kind in COPIES if any(row["what"] == kind for row in rows)]
    if kinds:
        copies = [[row for row in rows if row["what"] == kind] for kind in kinds]
        parts.append(
            table(
                ["copy", "any candidate flagged", "largest score"],
                [
                    [COPIES[kind], share([row["flagged"] > 0 for row in of]), f"{max(row['score'] for row in of):.2f}"]
                    for kind, of in zip(kinds, copies, strict=True)
                ],
            )
        )
    return parts


HEAD = f"""# Line-ups, measured

Made by

    python experiments/line_up.py run world
    python experiments/line_up.py run smollm2
    python experiments/line_up.py page

Who was edited, and where, asked of the edited model alone: what a line-up is stands in [forensics](forensics.md), the models and their
edits in [forensics, measured](forensics-measured.md). The edited subject is always among the candidates, which are all names of the made
world, or all subjects of the shipped facts; for edits at the last token, the prompts of all facts that may be edited. Second moments are the
edited model's own, measured anew for every edit. Thresholds are the library's ({STRENGTH:g} of the strength, {AGREEMENT:g} of the agreement,
{ALONG:g} along the direction); they were set after looking at four facts of the world and three of smollm2, which are not among these.
Intervals are Wilson's or, where none or all count, the rule of three; 95 %.

A layer counts as found where a candidate is flagged and the layer that goes furthest along its direction is an edited one. FT trains
the fact's own layers and is no rank-one edit: where a copy of that kind is flagged, it was edited, but not so."""


if __name__ == "__main__":
    if sys.argv[1] == "page":
        write_page()
    else:
        run(*sys.argv[2:])
