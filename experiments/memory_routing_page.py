"""docs/memory-routing.md and its figure, from results/memory-routing.json alone; `python experiments/memory_routing.py page` runs it."""

import json
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

from memory_routing import EDITED, MEMORIES, RESULTS  # beside this file
from pages import cell, table
from palimpsest.runs import atomic_write
from palimpsest.statistics import Estimate, auroc_estimate, wilson

ROOT = Path(__file__).parents[1]
PAGE, FIGURE = ROOT / "docs" / "memory-routing.md", ROOT / "docs" / "figures" / "memory-routing.png"
WANTED, UNWANTED = ("edited", "paraphrase"), ("neighbourhood", "not edited")
KINDS = (*WANTED, *UNWANTED)
AS_DISTANCE = ("grace",)  # whose score is small where the memory answers

Row = tuple[str, str, float, bool]  # kind, record, likeness in units of the threshold, whether it answered


def rows_of(name: str, stored: Any) -> list[Row]:
    """Every prompt of one memory; the larger its number, the likelier an answer."""
    sign = -1.0 if name in AS_DISTANCE else 1.0
    return [
        (kind, record, sign * score, bool(answered))
        for kind in KINDS
        for record, score, answered in zip(*(stored[kind][key] for key in ("record", "score", "answered")), strict=True)
    ]


def wrong(rows: Sequence[Row], kind: str, answers: Sequence[bool]) -> Estimate:
    """How often a kind was decided wrongly: silence where an answer was wanted, or an answer where none was."""
    decided = [answer for row, answer in zip(rows, answers, strict=True) if row[0] == kind]
    return wilson(sum(answer != (kind in WANTED) for answer in decided), len(decided))


def best_threshold(rows: Sequence[Row]) -> float:
    """The least mean of both error rates, prompts that should be answered and prompts that should not weighing alike.

    Between two neighbouring numbers the middle is taken; of several equally good places, the middle one.
    """
    numbers = sorted({row[2] for row in rows})
    places = [(a + b) / 2 for a, b in zip(numbers, numbers[1:], strict=False)]
    wanted, unwanted = ([row[2] for row in rows if row[0] in kinds] for kinds in (WANTED, UNWANTED))

    def errors(place: float) -> float:
        return sum(x < place for x in wanted) / len(wanted) + sum(x >= place for x in unwanted) / len(unwanted)

    found = [errors(place) for place in places]
    best = [place for place, error in zip(places, found, strict=True) if error == min(found)]
    return best[len(best) // 2]


def crossed(rows: Sequence[Row]) -> tuple[list[bool], tuple[float, float]]:
    """Answers where each half of the records is held against the threshold that the other half chose, and the two thresholds."""
    names = sorted({row[1] for row in rows})
    Random(0).shuffle(names)
    first = set(names[: len(names) // 2])
    chosen = [best_threshold([row for row in rows if (row[1] in first) == half]) for half in (True, False)]
    return [row[2] >= chosen[row[1] in first] for row in rows], (chosen[0], chosen[1])


def area(rows: Sequence[Row], kind: str) -> Estimate:
    """AUROC of one wanted kind against all unwanted prompts; records are drawn whole."""
    some = [row for row in rows if row[0] == kind or row[0] in UNWANTED]
    return auroc_estimate([row[2] for row in some], [row[0] == kind for row in some], [row[1] for row in some])


def errors(found: dict[str, Any]) -> str:
    """Error rates at the memory's own threshold, and at the one another half of the records chose."""
    lines = []
    for name, one in found.items():
        rows = rows_of(name, one["prompts"])
        own, (better, chosen) = [row[3] for row in rows], crossed(rows)
        where = " and ".join(f"{abs(place):.2f}" for place in chosen)
        lines.append([name, "its own", *(cell(wrong(rows, kind, own).to_json(), 2) for kind in KINDS)])
        lines.append([name, where, *(cell(wrong(rows, kind, better).to_json(), 2) for kind in KINDS)])
    counts = {kind: len(next(iter(found.values()))["prompts"][kind]["record"]) for kind in KINDS}
    head = [f"{kind}: {'silent' if kind in WANTED else 'answered'} (n = {counts[kind]})" for kind in KINDS]
    return table(["memory", "threshold", *head], lines)


def areas(found: dict[str, Any]) -> str:
    """AUROC, and how many of the paraphrases that were answered were answered with their own fact."""
    lines = []
    for name, one in found.items():
        rows, told = rows_of(name, one["prompts"]), one["prompts"]["paraphrase"]
        own = [own for own, answered in zip(told["own"], told["answered"], strict=True) if answered]
        right = cell(wilson(sum(own), len(own)).to_json(), 2) if own else "none answered"
        cost = [f"{one['seconds_an_edit']:.1f}", f"{one['bytes'] / 1000 / EDITED:.1f}"]
        lines.append([name, *(cell(area(rows, kind).to_json(), 2) for kind in WANTED), right, *cost])
    head = ["memory", *(f"AUROC, {kind}" for kind in WANTED), "own fact, of paraphrases answered"]
    return table([*head, "seconds an edit", "kB an edit"], lines)


def figure(found: dict[str, Any]) -> str:
    """One panel a memory: every prompt's score by kind, the threshold as a line, and those two halves chose as dotted ones."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print("no figure: plotting needs matplotlib")
    else:
        drawn = Figure(figsize=(3.1 * len(found), 3.0), layout="constrained")
        panels = drawn.subplots(1, len(found), sharey=True, squeeze=False)[0]
        for axes, (name, one) in zip(panels, found.items(), strict=True):
            jitter, rows = Random(0), rows_of(name, one["prompts"])
            for i, kind in enumerate(KINDS):
                at = [abs(row[2]) for row in rows if row[0] == kind]
                heights = [i + jitter.uniform(-0.3, 0.3) for _ in at]
                axes.scatter(at, heights, s=7, alpha=0.5, linewidths=0, color=f"C{i}")
            axes.axvline(1, color="black", linewidth=1)
            for place in crossed(rows)[1]:
                axes.axvline(abs(place), color="black", linewidth=0.8, linestyle=":")
            axes.set_title(name, fontsize=9)
            axes.set_yticks(range(len(KINDS)), KINDS)
            measure = (
                "distance / radius (left: answered)" if name in AS_DISTANCE else "score / threshold (right: answered)"
            )
            axes.set_xlabel(measure, fontsize=8)
        panels[0].invert_yaxis()  # of all, since they share it
        FIGURE.parent.mkdir(parents=True, exist_ok=True)
        drawn.savefig(FIGURE, dpi=110)
    return (
        "![scores of edited, paraphrased and unrelated prompts](figures/memory-routing.png)" if FIGURE.is_file() else ""
    )


def write() -> None:
    """The page, from what is there."""
    stored = json.loads(RESULTS.read_text())
    found = {name: stored[name] for name in MEMORIES if name in stored}
    text = f"""# Where memories answer

    PALIMPSEST_RECORDS=... python experiments/memory_routing.py run && python experiments/memory_routing.py page

Memories of the same {EDITED} CounterFact records on smollm2, each with the settings and steps it has in the table of all methods, none of them tuned on these records
or on others of CounterFact. Each is asked about the edited prompts, their paraphrases, the neighbourhood prompts of the same records (the same relation, another
subject), and prompts of records that were not edited. The first two should be answered, the last two should not; none of these is an
example that taught SERAC or WISE.

{figure(found)}

Every point is a prompt. The line at 1 is the threshold each memory uses; the dotted ones are the best two halves of the records would choose.

## How often the decision is wrong

The first row of a memory has its own threshold. In the second, half of the records choose the threshold with the least mean of both error rates and the other half is
held against it, both ways round (the two thresholds are in units of the memory's own). Brackets: Wilson's 95 % intervals over prompts; in the second rows they do not
count that the threshold itself was chosen.

{errors(found)}

## How well the scores tell them apart

AUROC of the edited prompts, or the paraphrases, against all prompts that should not be answered, with 95 % intervals that draw records whole; 0.5 is chance. It does not depend on
any threshold. A paraphrase that is answered can still be answered with another fact; WISE writes ten facts into one side memory, and any of its ten counts as the right one.

{areas(found)}
"""
    atomic_write(PAGE, text)
