"""results/propagate-*.json and docs/propagate-measured.md, from the lines in run/propagate/ alone."""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from pages import cell, table  # beside this file
from palimpsest.runs import atomic_write
from palimpsest.runs.json_text import plain
from palimpsest.statistics import Estimate, cluster_bootstrap, paired_difference

ROOT = Path(__file__).parents[1]
WORK, RESULTS, PAGE = ROOT / "run" / "propagate", ROOT / "results", ROOT / "docs" / "propagate-measured.md"
ARMS = ("before", "alone", "with")
SCORES = ("forced", "says")
NAMES = {"world-1": "The made world", "knowedit": "KnowEdit", "mquake": "MQuAKE"}
BYSTANDERS = ("same_subject", "neighbours", "far")
BAR = 0.03
TRIED = 14  # edits of the world on which one wording and two were compared; they chose, and do not report


def write_page() -> None:
    """Sum up every set that was measured, then write the page from what was summed up."""
    for path in sorted(WORK.glob("*.jsonl")):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        summary = world(lines[TRIED:]) if path.stem.startswith("world") else benchmark(lines)
        atomic_write(RESULTS / f"propagate-{path.stem}.json", json.dumps(plain(summary), indent=1) + "\n")
    parts = [HEAD]
    if left := [name for key, name in NAMES.items() if not (RESULTS / f"propagate-{key}.json").is_file()]:
        parts.append(f"Not measured yet: {', '.join(left)}.\n")
    for key, name in NAMES.items():
        if (path := RESULTS / f"propagate-{key}.json").is_file():
            parts.append(section(name, json.loads(path.read_text())))
    atomic_write(PAGE, "\n".join(parts))


def world(lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Shares right by class and wording, and the derived plans against the truth."""
    good = [line for line in lines if "failed" not in line]
    cells: dict[str, Any] = {}
    for kind in ("edit", "entailed", "lost", "same_subject", "neighbours", "far"):
        for seen in (True, False):
            rows = [
                (line, {arm: float(line["said"][arm][i]) for arm in ARMS})
                for line in good
                for i, one in enumerate(line["asked"])
                if one["class"] == kind and one["seen"] == seen
            ]
            if rows:
                cells[f"{kind}, {'seen' if seen else 'unseen'} wordings"] = compared(rows)
    plans = {kind: [sum(line["plan"][kind][i] for line in good) for i in range(3)] for kind in ("entailed", "lost")}
    return {"n": len(good), "failed": failures(lines), "plans": plans, "cells": cells, "guard": guard(good)}


def benchmark(lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Shares right by the benchmark's own kinds, under teacher forcing and in what is written."""
    good = [line for line in lines if "failed" not in line]
    cells: dict[str, Any] = {}
    for kind in dict.fromkeys(one["class"] for line in good for one in line["asked"]):
        for score in SCORES:
            rows = [
                (line, {arm: line["said"][arm][i][score] for arm in ARMS})
                for line in good
                for i, one in enumerate(line["asked"])
                if one["class"] == kind
            ]
            cells[f"{kind}, {'forced' if score == 'forced' else 'written'}"] = compared(rows)
    derived = [sum(step["kind"] == "entailed" for step in line["steps"]) for line in good]
    return {"n": len(good), "failed": failures(lines), "entailed": sum(derived), "cells": cells, "guard": guard(good)}


def compared(rows: Sequence[tuple[dict[str, Any], dict[str, float]]]) -> dict[str, Any]:
    """Every arm with its interval, and with minus alone, paired; clusters are relation and subject."""
    clusters = [(line["relation"], line["subject"]) for line, _ in rows]
    values = {arm: [row[arm] for _, row in rows] for arm in ARMS}
    found: dict[str, Estimate] = {arm: cluster_bootstrap(values[arm], clusters) for arm in ARMS}
    found["difference"] = paired_difference(values["with"], values["alone"], clusters)
    found["from unedited"] = paired_difference(values["with"], values["before"], clusters)
    return {name: estimate.to_json() for name, estimate in found.items()}


def failures(lines: Iterable[dict[str, Any]]) -> dict[str, str]:
    """Facts that could not be measured, and why."""
    return {line["id"]: line["failed"] for line in lines if "failed" in line}


def guard(lines: Sequence[dict[str, Any]]) -> dict[str, int]:
    """How often the guard dropped something, and how many statements."""
    return {
        "edits": sum(line["guard"]["dropped"] > 0 for line in lines),
        "statements": sum(line["guard"]["dropped"] for line in lines),
        "unguarded": sum(line["guard"]["kept"] is None for line in lines),
    }


def section(name: str, found: dict[str, Any]) -> str:
    """One set of the page."""
    rows = [
        [kind, str(one["alone"]["n"]), *(cell(one[arm]) for arm in (*ARMS, "difference"))]
        for kind, one in found["cells"].items()
    ]
    lines = [
        f"## {name}, {found['n']} edits",
        "",
        *verdicts(found["cells"]),
        "",
        table(["class", "n", "unedited", "edit alone", "with its consequences", "gain (paired)"], rows),
        "",
    ]
    if "plans" in found:
        for kind, (true, said, both) in found["plans"].items():
            lines.append(f"Of {true} {kind} facts {both} were derived, and {said - both} that are none.")
    else:
        lines.append(f"The rules and the model's own second hops gave {found['entailed']} entailed facts.")
    guarded = found["guard"]
    lines.append(
        f"The guard dropped {guarded['statements']} statements of {guarded['edits']} edits; {guarded['unguarded']} edits had no "
        f"bystander to ask. {len(found['failed'])} facts could not be measured."
    )
    return "\n".join([*lines, ""])


def verdicts(cells: dict[str, Any]) -> list[str]:
    """What was gained, what the bystanders lost, and what got worse."""
    told = [f"* Gained: {one}." for one in changed(cells, lambda low, _: low > 0)]
    told += [f"* Worse than the edit alone: {one}." for one in changed(cells, lambda _, high: high < 0)]
    names = [name for name in cells if name.startswith(BYSTANDERS)]
    if names:
        drop, where = max((cells[name]["before"]["value"] - cells[name]["with"]["value"], name) for name in names)
        paired = cells[where].get("from unedited")  # not kept of what was measured first
        least, there = min((cells[name]["difference"]["low"], name) for name in names)
        met = "**not met**" if drop > BAR else "met by the point estimates"
        told.append(
            f"* The bystanders' drop is to be {BAR} at most: {met}. The largest from the unedited model is {drop:.3f} ({where}"
            f"{'' if paired is None else '; ' + cell(paired)}); from the edit alone no interval reaches further down than {least:.3f} ({there})."
        )
    return told or ["* Nothing differs from the edit alone by more than its interval."]


def changed(cells: dict[str, Any], wanted: Callable[[float, float], bool]) -> list[str]:
    """Classes whose paired difference has such an interval; *lost* facts gain where they are said less."""
    found = []
    for name, one in cells.items():
        low, high = one["difference"]["low"], one["difference"]["high"]
        if low is None:
            continue
        if name.startswith("lost"):
            low, high = -high, -low
        if wanted(low, high):
            found.append(f"{name} {cell(one['difference'])}")
    return found


HEAD = """# Propagation, measured

Made by

    python experiments/propagate.py world --limit 134 --wordings 1
    PALIMPSEST_RECORDS=... python experiments/propagate.py smollm2 --limit 20
    python experiments/propagate.py page

Each fact is edited twice by MEMIT on the unedited model: alone, and with what it entails, written in the first wording of its
relation beside the anchors of the guard (see [propagate](propagate.md)). In brackets: 95 % intervals, bootstrap over relations and, within them,
subjects. Second hops are the unedited model's own answers; no benchmark answer was read before judging.

The layers, the token and the search are the defaults measured for each model ([editing the made world](editing-world.md)). The first 14
edits of the world served to choose how many wordings a consequence is written in (one; the same command with `--limit 14 --wordings 2` gives the
other lines in run/propagate/) and are not counted.

On the world, an answer counts where it is written whole; of a *lost* fact the share that is still said is shown, so less is better.
Bystanders are `same_subject`, `neighbours` and `far`. On smollm2 the rules are those of `experiments/propagate_rules.json`, in wordings that are not the
benchmarks' test prompts; "forced" is token accuracy under teacher forcing, "written" whether the continuation says the answer.
"""
