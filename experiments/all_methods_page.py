"""docs/all-methods-on-smollm2.md and its figure, from results/all-methods/; `python experiments/all_methods.py page` runs it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from all_methods import MANY, MEASURED, PARTS, RESULTS, RETAINED, SINGLE, SUITES, WAYS, file_of  # beside this file
from pages import cell, table
from palimpsest.runs import atomic_write
from palimpsest.statistics import Estimate, clustered_proportion

DOCS = Path(__file__).parents[1] / "docs"
PAGE, FIGURE = DOCS / "all-methods-on-smollm2.md", DOCS / "figures" / "all-methods-retention.png"
SHOWN = {
    "counterfact": {
        "reliability": "tf_exact",
        "ES": "es",
        "generalisation (PS)": "ps",
        "locality (NS)": "ns",
    },
    "zsre": {
        "reliability": "zsre_efficacy",
        "generalisation": "zsre_paraphrase",
        "locality": "zsre_specificity",
        "portability": "zsre_portability",
        "written freely": "zsre_gen_efficacy",
    },
}
CALLED = {
    "es": "ES",
    "tf_exact": "reliability",
    "zsre_efficacy": "reliability",
    "zsre_gen_efficacy": "written freely",
}
AGES = {"100": 25, "1000": 200}  # edits after a fact's own that one point of the retention curve takes together
KINDS = {  # rows of the figure
    "a change solved for": ("rome", "memit", "emmet", "alphaedit", "overwrite", "random"),
    "weights trained, or an editor": ("ft", "ft-l", "attention", "joint", "neurons", "mend", "ke"),
    "memories": ("grace", "wise", "in-context, bm25", "in-context, keys", "in-context, encoder", "serac"),
}
INTRO = f"""Made by

    PALIMPSEST_RECORDS=... python experiments/all_methods.py run && python experiments/all_methods.py page

Single edits are made one record at a time and undone, on the first {SINGLE} records of each data set. Sequences are measured on the last model only: all of 10 facts, and of
longer ones facts at even distances, {MEASURED["counterfact"]} on CounterFact and {MEASURED["zsre"]} on zsRE. Rows with another n say so; a method that is missing from a table is named below it. Brackets: 95 % intervals that resample relations
and, within them, subjects; CounterFact's flat file names no relations. With {SINGLE} records, or 10, they are wide, and a difference inside them says nothing; where all
records agree they have no width, and the rule of three still allows another value in up to 3 / n of all records. In the tables of what is left of a fact every fact is a
cluster of its own, and the rule of three is in the brackets.

MEND and KE were trained on zsRE questions ([how](train-zsre.md)), of other subjects than these; on CounterFact they meet prompts of a kind they never saw.

Reliability on CounterFact is whether every token of the new answer is the likeliest one (for an answer of one token, what greedy writing begins with); on zsRE the share of such tokens, as
in the tables of the field, with free writing beside it. Locality on zsRE is agreement with the unedited model. Settings are those of the other pages where there is one; nothing was chosen on these records."""


def stored(data: str, part: str) -> dict[str, dict[str, Any]]:
    """Name of the way to its record, in the order of the table."""
    paths = {name: RESULTS / data / f"{file_of(name)}-{part}.json" for name in WAYS}
    return {name: json.loads(path.read_text("utf-8")) for name, path in paths.items() if path.is_file()}


def title(data: str, part: str) -> str:
    """What a table is about; how many edits there truly were (zsRE's file has fewer usable records than its name says)."""
    if part == "single":
        return f"one edit a record, {SINGLE} records"
    return f"{length(data, part)} edits in sequence, measured on the last model"


def length(data: str, part: str) -> int:
    """Edits in the longest sequence of this part."""
    return max(job["facts"] for job in stored(data, part).values())


def scores(data: str, part: str) -> str:
    """A row a method; the unedited model first."""
    jobs, shown = stored(data, part), SHOWN[data]
    if not jobs:
        return ""
    plain = next(iter(jobs.values()))["pre"]
    rows = [["unedited", "", *(cell(plain.get(metric), 2) for metric in shown.values())]]
    rows += [[name, counted(job), *(cell(job["post"].get(m), 2) for m in shown.values())] for name, job in jobs.items()]
    note = "".join(f"\n\n{said}: {', '.join(names)}." for said, names in absent(data, part).items() if names)
    return f"### {title(data, part)}\n\n{table(['method', 'n', *shown], rows)}{note}"


def absent(data: str, part: str) -> dict[str, list[str]]:
    """Which methods have no row, by the reason."""
    none = [name for name in WAYS if name not in stored(data, part)]
    long = [name for name in none if part != "single" and int(part) > WAYS[name].longest.get(data, MANY)]
    return {"An edit takes a second or more": long, "Not run yet": [name for name in none if name not in long]}


def counted(job: dict[str, Any]) -> str:
    """Facts measured, and how many of the sequence could not be written."""
    lost = job.get("facts", 0) - job.get("written", 0)
    failed = f", {job['failed']} failed" if job["failed"] else ""
    return f"{job['n']}{failed}" + (f", {lost} of {job['facts']} not written" if lost else "")


def costs(data: str, part: str) -> str:
    """What an edit costs, and what a prompt and a token cost after n of them."""
    rows = []
    for name, job in stored(data, part).items():
        cost = job["cost"]
        ratios = [f"{cost[f'{what}_edited'] / cost[f'{what}_unedited']:.2f}" for what in ("prompt", "token")]
        rows.append([name, f"{cost['seconds_an_edit']:.1f}", f"{cost['bytes_an_edit'] / 1000:.1f}", *ratios])
    if not rows:
        return ""
    head = ["method", "seconds an edit", "kB an edit", "time of a prompt", "time of a token more"]
    return (
        f"### What they cost: {title(data, part)}\n\nSeconds of one processor (by the clock for the first ten edits of some, beside other work); times over the unedited model's after all edits, by the clock and beside other work."
        f"\n\n{table(head, rows)}"
    )


def ages(job: dict[str, Any], metric: str, width: int) -> list[Estimate]:
    """The mean of a metric over the facts of each age, the youngest first; every fact is a record of its own."""
    told = job["retention"]
    found = []
    for first in range(0, job["facts"], width):
        some = [
            v for a, v in zip(told["after"], told[metric], strict=True) if first <= a < first + width and v is not None
        ]
        found.append(clustered_proportion([float(v) for v in some], range(len(some))))
    return found


def retention(data: str, part: str) -> str:
    """What is left on the last model, by how many edits came after a fact's own."""
    jobs, width = stored(data, part), AGES[part]
    if not jobs:
        return ""
    most = length(data, part)
    spans = [f"{first} to {min(first + width, most) - 1} after" for first in range(0, most, width)]
    parts = [f"### What is left of a fact, by how many edits came after its own ({most} edits)"]
    for metric in RETAINED[data]:
        rows = [[name, *(cell(one.to_json(), 2) for one in ages(job, metric, width))] for name, job in jobs.items()]
        parts.append(f"{CALLED[metric]}:\n\n{table(['method', *spans], rows)}")
    return "\n\n".join(parts)


def figure(panels: Sequence[tuple[str, str]]) -> str:
    """A row a kind of method and a column a sequence: the first retained metric by age, with its interval."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print("no figure: plotting needs matplotlib")
    else:
        drawn = Figure(figsize=(4.2 * len(panels) + 2, 2.6 * len(KINDS)), layout="constrained")
        rows = drawn.subplots(len(KINDS), len(panels), sharex="col", sharey=True, squeeze=False)
        for row, (kind, names) in zip(rows, KINDS.items(), strict=True):
            lines: dict[str, Any] = {}
            for axes, (data, part) in zip(row, panels, strict=True):
                jobs = stored(data, part)
                for i, name in enumerate(name for name in names if name in jobs):
                    found = ages(jobs[name], RETAINED[data][0], AGES[part])
                    aside = (i - (len(names) - 1) / 2) * 0.03 * AGES[part]  # so that equal ones are seen
                    at = [AGES[part] * (age + 0.5) + aside for age in range(len(found))]
                    means = [one.value for one in found]
                    off = [[one.value - one.low for one in found], [one.high - one.value for one in found]]
                    style = {"marker": ".", "linewidth": 1.2, "elinewidth": 0.6, "color": f"C{names.index(name)}"}
                    lines[name] = axes.errorbar(at, means, off, **style)
            row[0].set_ylabel(kind, fontsize=8)
            row[-1].legend(list(lines.values()), list(lines), loc="upper left", bbox_to_anchor=(1, 1), fontsize=7)
        for axes, (data, part) in zip(rows[0], panels, strict=True):
            called = CALLED[RETAINED[data][0]]
            axes.set_title(f"{data}, {length(data, part)} edits: {called} on the last model", fontsize=8)
        for axes in rows[-1]:
            axes.set_xlabel("edits after the fact's own")
        FIGURE.parent.mkdir(parents=True, exist_ok=True)
        drawn.savefig(FIGURE, dpi=110)
    return f"![what is left of a fact by its age](figures/{FIGURE.name})" if FIGURE.is_file() else ""


def write() -> None:
    """The page, from what is there."""
    parts = [f"# Every way to change a fact, on smollm2\n\n{INTRO}"]
    if panels := [(data, part) for data in SUITES for part in AGES if stored(data, part)]:
        parts.append(figure(panels))
    for data in SUITES:
        found = [scores(data, part) for part in PARTS]
        found += [made(data, part) for part in AGES for made in (retention, costs)]
        if any(found):
            parts.append("\n\n".join([f"## {data}", *(text for text in found if text)]))
    atomic_write(PAGE, "\n\n".join(parts) + "\n")
