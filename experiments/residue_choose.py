"""Settings of `overwrite` for a hundred facts in one edit, chosen on other facts than those that judge them.

    python experiments/residue_choose.py [world|smollm2]     # resumable: results/residue-choose/MODEL.json has a row a setting

At a hundred facts an edit, `overwrite` with its usual settings kept ES, PS or NS less well than was asked (docs/residue-measured.md). Here a
hundred facts are written in one edit with weaker suppression or another price of ordinary keys, and by MEMIT. The rule was written down
before anything was run, and settings were added while choosing: of the settings that keep all three (ES at least 0.97, PS and NS at most
0.02 below MEMIT's, which is 0.02 and 0.03 inside what is asked), the strongest suppression, and there the setting whose worst of the three
is best, the first of equals; where none does, the one whose worst is best. No residue is read here. What is chosen is `overwrite-chosen` of
`experiments/residue.py`.

The facts are others than those whose residue is measured, a hundred an edit. Of the world they are three hundred: a first choice, on one
hundred, did not keep PS on the facts that report it, and was made again on more because of that. Of smollm2 they are one hundred, for the
search for their values takes twenty minutes a suppression; the strongest one keeps all three there, so that the rule asks for no weaker
one. Before that, each half of the facts that report chose for the other half, and the two differed.
"""

import json
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import palimpsest as pal
from palimpsest.edit import editor
from palimpsest.evaluate import counterfact_scores
from palimpsest.runs import atomic_write

ROOT = Path(__file__).parents[1]
RESULTS, VALUES = ROOT / "results" / "residue-choose", ROOT / "run" / "residue-choose"
COUNT = {"world": 300, "smollm2": 100}
EDIT = 100  # facts
CHOSEN = "overwrite-chosen"  # what `residue.py` calls overwrite with these settings
METRICS = ("es", "ps", "ns")
LEAST = {"es": 0.97, "ps": -0.02, "ns": -0.02}  # ES itself, the others less MEMIT's
GRID: dict[str, list[dict[str, float]]] = {
    "world": [
        {"suppress": suppress, "moment_weight": weight}
        for suppress in (0.25, 0.1, 0.05, 0.02)
        for weight in (1000.0, 1500.0, 2000.0, 2500.0, 3000.0, 4000.0, 8000.0)
    ],
    "smollm2": [{"suppress": 0.25, "moment_weight": weight} for weight in (3000.0, 4000.0, 5000.0, 6000.0, 8000.0)],
}


def main(name: str) -> None:
    """Write the rows that are missing, MEMIT's first."""
    from residue import Experiment, spread  # beside this file

    experiment = Experiment(name)
    used = {fact.id for fact in (*experiment.facts, *experiment.unknown)}
    facts = spread([fact for fact in experiment.data.editable if fact.id not in used], COUNT[name])
    rows = kept(name)
    for settings in ({}, *GRID[name]):
        if not any(row["settings"] == settings for row in rows):
            rows.append(scored(experiment.model, facts, settings))
            RESULTS.mkdir(parents=True, exist_ok=True)
            atomic_write(file_of(name), json.dumps(rows).replace('}, {"settings', '},\n{"settings') + "\n")
            print(name, {key: rows[-1][key] for key in ("settings", *METRICS, "seconds")}, flush=True)
    print(name, "chosen", told(name))


def scored(model: pal.Model, facts: list[pal.Fact], settings: dict[str, float]) -> dict[str, Any]:
    """By overwrite with some settings, or by MEMIT with none."""
    began, scores = time.process_time(), []
    method = editor(model, "overwrite" if settings else "memit", resume=VALUES, **settings)
    for begin in range(0, len(facts), EDIT):
        with method.edit(facts[begin : begin + EDIT]).applied(model):
            scores += counterfact_scores(model, facts[begin : begin + EDIT])
    by_fact = {metric: [round(float(row[metric]), 4) for row in scores] for metric in METRICS}
    means = {metric: round(float(np.nanmean(own)), 4) for metric, own in by_fact.items()}
    seconds = round(time.process_time() - began, 1)
    return {"settings": settings, **means, "seconds": seconds, "facts": [fact.id for fact in facts], "by_fact": by_fact}


def file_of(name: str) -> Path:
    """The rows of a model."""
    return RESULTS / f"{name}.json"


def kept(name: str) -> list[dict[str, Any]]:
    """Rows that are there."""
    return json.loads(file_of(name).read_text()) if file_of(name).is_file() else []


def missing(name: str) -> int:
    """How many rows are not there yet."""
    found = [row["settings"] for row in kept(name)]
    return sum(settings not in found for settings in ({}, *GRID[name]))


def told(name: str) -> str:
    """What was chosen, or why nothing was."""
    if left := missing(name):
        return f"none yet, for {left} of {len(GRID[name]) + 1} are not measured"
    return ", ".join(f"{setting} {value:g}" for setting, value in chosen(name).items())


@cache
def chosen(name: str) -> dict[str, float]:
    """The settings that the rule takes; none while rows are missing."""
    if missing(name):
        return {}
    rows = {json.dumps(row["settings"]): row for row in kept(name)}
    tried = [rows[json.dumps(settings)] for settings in GRID[name]]
    room = {id(row): margin(row, rows["{}"]) for row in tried}
    holding = [row for row in tried if room[id(row)] >= 0]
    strongest = max((row["settings"]["suppress"] for row in holding), default=None)
    among = [row for row in holding if row["settings"]["suppress"] == strongest] or tried
    return dict(max(among, key=lambda row: room[id(row)])["settings"])


def margin(row: dict[str, Any], memit: dict[str, Any]) -> float:
    """How far the worst of the three scores is above the least that is wanted."""
    above = {"es": row["es"], "ps": row["ps"] - memit["ps"], "ns": row["ns"] - memit["ns"]}
    return min(above[metric] - LEAST[metric] for metric in METRICS)


if __name__ == "__main__":
    for which in sys.argv[1:] or GRID:
        main(which)
