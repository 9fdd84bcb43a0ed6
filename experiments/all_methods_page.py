"""docs/all-methods-on-smollm2.md from results/all-methods/; `python experiments/all_methods.py page` runs it."""

import json
from pathlib import Path
from typing import Any

from all_methods import PARTS, RESULTS, SINGLE, SUITES, WAYS  # beside this file
from pages import cell, table
from palimpsest.runs import atomic_write

PAGE = Path(__file__).parents[1] / "docs" / "all-methods-on-smollm2.md"
SHOWN = {
    "counterfact": {
        "reliability": "gen_begins",
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
INTRO = """Made by

    PALIMPSEST_RECORDS=... python experiments/all_methods.py run && python experiments/all_methods.py page

Single edits are made one record at a time and undone; sequences are measured on the last model only, every fact of them. Brackets: 95 % intervals that resample relations and,
within them, subjects. Reliability on CounterFact is what the model writes by itself (it begins with the new answer); on zsRE the teacher-forced share of answer tokens, as in the tables of
the field, with free writing beside it. Locality on zsRE is agreement with the unedited model."""


def stored(data: str, part: str) -> dict[str, dict[str, Any]]:
    """Name of the way to its record, in the order of the table."""
    paths = {name: RESULTS / data / f"{name.replace(', ', '-')}-{part}.json" for name in WAYS}
    return {name: json.loads(path.read_text("utf-8")) for name, path in paths.items() if path.is_file()}


def scores(data: str, part: str) -> str:
    """A row a method; the unedited model first."""
    jobs, shown = stored(data, part), SHOWN[data]
    if not jobs:
        return ""
    plain = next(iter(jobs.values()))["pre"]
    rows = [["unedited", "", *(cell(plain.get(metric), 2) for metric in shown.values())]]
    rows += [
        [name, str(job["n"]), *(cell(job["post"].get(metric), 2) for metric in shown.values())]
        for name, job in jobs.items()
    ]
    title = (
        f"one edit a record, {SINGLE} records"
        if part == "single"
        else f"{part} edits in sequence, measured on the last model"
    )
    return f"### {title}\n\n{table(['method', 'n', *shown], rows)}"


def costs(data: str, part: str) -> str:
    """What an edit costs, and what a token costs after n of them."""
    rows = []
    for name, job in stored(data, part).items():
        cost = job["cost"]
        ratio = cost["latency"] / cost["unedited_latency"]
        rows.append([name, f"{cost['seconds_an_edit']:.1f}", f"{cost['bytes_an_edit'] / 1000:.1f}", f"{ratio:.2f}"])
    if not rows:
        return ""
    head = ["method", "seconds an edit", "kB an edit", f"time of a token after {part} edits over the unedited model's"]
    return f"### What {part} edits cost\n\n{table(head, rows)}"


def write() -> None:
    """The page, from what is there."""
    parts = [f"# Every way to change a fact, on smollm2\n\n{INTRO}"]
    for data in SUITES:
        found = [*(scores(data, part) for part in PARTS), *(costs(data, part) for part in PARTS[1:])]
        if any(found):
            parts.append("\n\n".join([f"## {data}", *(text for text in found if text)]))
    atomic_write(PAGE, "\n\n".join(parts) + "\n")
