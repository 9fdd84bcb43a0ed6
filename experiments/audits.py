"""The audits of `world` and `smollm2`, and the page over them.

    palimpsest audit world --size standard --out run/audits/world                      # resumable
    palimpsest audit smollm2 --size standard --minutes 120 --out run/audits/smollm2    # resumable
    python experiments/audits.py                                                       # docs/audits/

Of each audit that has ended `docs/audits/` keeps the page, its folder named as above, and the evidence without the numbers behind
its figures, and `results/audits/` its section of the page over them, with the criteria of all readings side by side: so that one
audit can be run again where the other's folder is not.
"""

import json
from pathlib import Path
from typing import Any

from pages import table  # beside this file
from palimpsest.runs import atomic_write

ROOT = Path(__file__).parents[1]
AUDITS, KEPT = ROOT / "run" / "audits", ROOT / "docs" / "audits"
PAGE = KEPT / "README.md"
SECTIONS = ROOT / "results" / "audits"
LEFT_OUT = ("data", "depends_on", "family", "mode", "split")  # of a record of evidence
COMMANDS = {
    "world": "palimpsest audit world --size standard --out run/audits/world",
    "smollm2": "palimpsest audit smollm2 --size standard --minutes 120 --out run/audits/smollm2",
}


def intro(models: list[str]) -> str:
    """What was run for the audits that are there."""
    commands = [COMMANDS[model] for model in models] + ["python experiments/audits.py"]
    return (
        "# Audits of ROME's claim\n\nWritten by\n\n"
        + "\n".join(f"    {command}" for command in commands)
        + "\n\nWhat the words mean is told in [audit](../audit.md). Open a report in a browser: it is a single file."
    )


def report(model: str) -> dict[str, Any] | None:
    """What the audit of a model ended in; None while it has not."""
    path = AUDITS / model / "report.json"
    return json.loads(path.read_text("utf-8")) if path.is_file() else None


def keep(model: str, found: dict[str, Any]) -> None:
    """The page and the evidence of an audit below `docs/audits/`, and its section of the page over them."""
    folder = KEPT / model
    folder.mkdir(parents=True, exist_ok=True)
    page = (AUDITS / model / "report.html").read_text("utf-8")
    page = page.replace(str(AUDITS), "run/audits")  # no path of the machine it was made on
    atomic_write(folder / "report.html", page)
    lines = [
        json.dumps({name: value for name, value in one.items() if name not in LEFT_OUT}, ensure_ascii=False)
        for one in found["evidence"]
    ]
    atomic_write(folder / "evidence.jsonl", "\n".join(lines) + "\n")
    SECTIONS.mkdir(parents=True, exist_ok=True)
    atomic_write(SECTIONS / f"{model}.md", section(model, found) + "\n")


def section(model: str, found: dict[str, Any]) -> str:
    """One audit: what was measured, how far each reading gets, and every criterion."""
    setting, nulls = found["setting"], found["nulls"]
    place = setting["place"]
    counts = found["readings"][0]["counts"]
    facts = f"{len(setting['confirmation'])} facts report, {len(setting['discovery'])} others chose the place"
    rate = nulls["rate"]
    parts = [
        f"## `{model}`",
        f"[Report]({model}/report.html), [evidence]({model}/evidence.jsonl). {facts}: {place['module']} of layer {place['centre']} of "
        f"{setting['n_layers']} (a window of {place['window']}), at the {place['position']}. The plan expected "
        f"{found['plan']['estimated']:.0f} minutes; {took(model):.0f} lie between its first file and its report, pauses and other work of the machine included.",
        "\n".join(f"* {sentence}" for sentence in found["plan"]["left_out"]),
        f"Of {counts['criteria']} criteria {counts['measured']} are measured, {fewest_and_most(found)} of them underpowered in a reading. "
        f"Empty claims pass {sum(one['passed'] for one in nulls['criteria'])} of {rate['n']} matched criteria "
        f"({100 * rate['value']:.1f} % [{100 * rate['low']:.1f}, {100 * rate['high']:.1f}]).",
        table(
            ["reading", "reaches", "what may be said", "what blocks it first"], [line(one) for one in found["readings"]]
        ),
        criteria(found),
        underpowered(found),
    ]
    return "\n\n".join(part for part in parts if part)


def took(model: str) -> float:
    """Minutes from the first file of an audit to its report."""
    first, last = (AUDITS / model / name for name in ("claim.json", "report.json"))
    return (last.stat().st_mtime - first.stat().st_mtime) / 60


def underpowered(found: dict[str, Any]) -> str:
    """Of each criterion that is underpowered in some reading, how many records its deciding endpoint has and how many it needs."""
    rows: dict[str, list[str]] = {}
    for reading in found["readings"]:
        for name, one in reading["criteria"].items():
            if one["underpowered"] and one["n_needed"] is not None:
                ends = [end for end in one["endpoints"] if end["n_needed"] == one["n_needed"]]
                said = [
                    ", ".join(end["endpoint"] for end in ends),
                    ", ".join(str(end["estimate"]["n"]) for end in ends),
                ]
                rows[name] = [f"{name} {one['name']}", *said, f"{one['n_needed']:,}"]
    if not rows:
        return ""
    return (
        "Of the underpowered ones, the records (facts, wordings, relations, organisms or models, as the endpoint counts) with which the interval of "
        "the endpoint that decides would be as narrow as the band from its floor to its bar:\n\n"
        + table(["criterion", "endpoint", "n", "n needed"], list(rows.values()))
    )


def fewest_and_most(found: dict[str, Any]) -> str:
    """How many criteria are underpowered, over the readings."""
    numbers = [reading["counts"]["underpowered"] for reading in found["readings"]]
    return str(numbers[0]) if len(set(numbers)) == 1 else f"{min(numbers)} to {max(numbers)}"


def line(reading: dict[str, Any]) -> list[str]:
    """The verdict of a reading."""
    verdict = reading["verdict"]
    blocked = [reason for rung in verdict["ladder"] if not rung["reached"] for reason in rung["blocked_by"]]
    reached = verdict["tier"] + (f" ({verdict['lateral'].lower()})" if verdict["lateral"] else "")
    first = verdict["lateral_reason"] or (blocked[0] if blocked else "nothing")
    return [reading["reading"], reached, reading["wording"]["licensed"], first]


def criteria(found: dict[str, Any]) -> str:
    """Criterion by criterion, a column a reading; an asterisk where more facts could decide it."""
    readings = found["readings"]
    rows = []
    for name, first in readings[0]["criteria"].items():
        published = (first["published"] or {}).get("status", "")
        cells = [status(one["criteria"][name]) for one in readings]
        rows.append([f"{name} {first['name']}", published, *cells])
    head = ["criterion", "published case study", *(one["reading"] for one in readings)]
    return table(head, rows) + "\n\nAn asterisk: underpowered; more facts could decide it."


def status(result: dict[str, Any]) -> str:
    """A status in a cell."""
    return result["status"].replace("_", " ").lower() + ("*" if result["underpowered"] else "")


def main() -> None:
    """Keep what has ended, and write the page."""
    for model in COMMANDS:
        if (found := report(model)) is not None:
            keep(model, found)
    kept = {
        model: path.read_text("utf-8").strip() for model in COMMANDS if (path := SECTIONS / f"{model}.md").is_file()
    }
    atomic_write(PAGE, "\n\n".join([intro(list(kept)), *kept.values()]) + "\n")


if __name__ == "__main__":
    main()
