"""results/forensics-*.json, the kept readings made small, and docs/forensics-measured.md from those files alone.

Of the readings of all layers six numbers are kept: the largest gap and evenness among the layers an edit changed, and among the
others, and the energy of the one that scores most. A layer is flagged where either reading is above its threshold, so they say for any pair
of thresholds whether an edited layer is flagged, whether another one is, and which stands out most.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pages import cell, table  # beside this file
from palimpsest.erase.forensics.scan import EVENNESS, GAP
from palimpsest.runs import atomic_write
from palimpsest.statistics import cluster_bootstrap, proportion

ROOT = Path(__file__).parents[1]
WORK, RESULTS, PAGE = ROOT / "run" / "forensics", ROOT / "results", ROOT / "docs" / "forensics-measured.md"
READINGS, ENERGY = ("gap", "evenness"), "energy"
SHIPPED = {"gap": GAP, "evenness": EVENNESS}
SCANS = {"": "readings", "moments ": "readings with moments"}
KEPT = (
    "new before",
    "new after",
    "new removed",
    "old removed",
    "subject",
    "object",
    "object, own prompts",
    "old",
    "unembedded",
)
CHOOSE = {"world": 50, "smollm2": 10}  # the first edits, by number, choose thresholds
ASKED, NEEDED, RANK = 50, 0.95, 10  # how many edits are asked for, and what of the layer and of the answer
PLACES = 4
COPIES = {
    "unedited": "unedited",
    "fixed": "FT on one fact",
    "ft-l": "FT-L on one fact",
    "ft-l, bound 0.001": "FT-L on one fact, bound 0.001",
    "trained on text": "every weight trained on text",
}
Row = dict[str, Any]


def write_page() -> None:
    """Sum up what is kept of each model, then write the page from what was summed up."""
    for name in CHOOSE:
        if (WORK / name / "candidates.json").is_file() and (WORK / name / "copies" / "unedited").is_dir():
            atomic_write(RESULTS / f"forensics-{name}.json", lines(summary(name)))
    found = {
        name: json.loads(path.read_text()) for name in CHOOSE if (path := RESULTS / f"forensics-{name}.json").is_file()
    }
    parts = [HEAD, verdicts(found)]
    for name, data in found.items():
        parts += section(name, data)
    atomic_write(PAGE, "\n\n".join(parts) + "\n")


def lines(data: Mapping[str, Any]) -> str:
    """JSON with one edit or copy a line."""
    return json.dumps(data, separators=(",", ":")).replace("[[", "[\n[").replace("],[", "],\n[") + "\n"


def summary(name: str) -> dict[str, Any]:
    """What the page needs of one model's kept rows."""
    folder, edits, empty = WORK / name, {}, {}
    for rows in sorted(folder.glob("*-rows"), key=lambda path: (path.name.count(","), len(path.name))):
        method = rows.name.removesuffix("-rows")
        kept = [(int(path.stem), json.loads(path.read_text())) for path in sorted(rows.glob("*.json"))]
        columns = ["i", "fact", "relation"]
        columns += [
            f"{scan}{who} {reading}" for scan in SCANS for who in ("edited", "other") for reading in (*READINGS, ENERGY)
        ]
        columns += [key for key in KEPT if any(key in row for _, row in kept)]
        values = [{"i": i, "fact": row["fact"], "relation": row["relation"], **extremes(row), **row} for i, row in kept]
        columns = [column for column in columns if any(column in row for row in values)]
        edits[method] = {
            "layers": kept[0][1]["layers"],
            "of": len(kept[0][1]["readings"]),
            "columns": columns,
            "rows": [[short(row.get(column)) for column in columns] for row in values],
        }
        empty[method] = len(list((folder / method).glob("*.safetensors"))) - len(kept)
    copies: dict[str, list[Row]] = {}
    for path in sorted(folder.glob("copies/*/*.json"), key=lambda path: (path.parent.name != "unedited", path)):
        row = json.loads(path.read_text())
        copies.setdefault(path.parent.name, []).append({"suspect": row["suspect"], **extremes({"layers": (), **row})})
    return {
        "made_by": "python experiments/forensics.py page",
        "choose": CHOOSE[name],
        "candidates": json.loads((folder / "candidates.json").read_text()),
        "empty": empty,
        "copies": {
            k: [{key: short(value) for key, value in row.items()} for row in rows] for k, rows in copies.items()
        },
        "edits": edits,
    }


def extremes(row: Mapping[str, Any]) -> dict[str, float]:
    """The largest reading of the edited layers and of the others, in each scan that was made; of the layer that scores most, the energy."""
    found: dict[str, float] = {}
    for scan, key in SCANS.items():
        for who, edited in (("edited", True), ("other", False)):
            some = [one for one in row.get(key, ()) if (one["layer"] in row["layers"]) == edited]
            if some:
                most = max(some, key=lambda one: (one["score"], one["energy"]))
                found |= {f"{scan}{who} {name}": max(one[name] for one in some) for name in READINGS}
                found[f"{scan}{who} {ENERGY}"] = most["energy"]
    return found


def short(value: Any) -> Any:
    """Floats to four places, and whole ones as such."""
    if not isinstance(value, float):
        return value
    return int(value) if value == int(value) else round(value, PLACES)


def rows_of(edits: Mapping[str, Any]) -> list[Row]:
    return [dict(zip(edits["columns"], row, strict=True)) for row in edits["rows"]]


def chosen(data: Mapping[str, Any]) -> dict[str, float]:
    """The largest reading of an unedited layer among the first edits, and of any layer of every other copy."""
    rows = [row for copies in data["copies"].values() for row in copies[::2]]
    rows += [row for edits in data["edits"].values() for row in rows_of(edits) if row["i"] < data["choose"]]
    return {name: max(row[f"other {name}"] for row in rows) for name in READINGS}


def score(row: Row, who: str, bars: Mapping[str, float], scan: str = "") -> float:
    """That of `scan`: above 1 where a layer is flagged."""
    return max(row[f"{scan}{who} {name}"] / bar for name, bar in bars.items())


def flagged(rows: Iterable[Row], who: str, bars: Mapping[str, float], scan: str = "") -> list[bool]:
    return [score(row, who, bars, scan) > 1 for row in rows]


def standing(row: Row, who: str, bars: Mapping[str, float], scan: str = "") -> tuple[float, float]:
    """By what `scan` finds the most suspect layer: the score, and among a run's layers, which share one, the energy."""
    return score(row, who, bars, scan), row[f"{scan}{who} {ENERGY}"]


def layer_found(rows: Iterable[Row], bars: Mapping[str, float], scan: str = "") -> list[bool]:
    """Whether the layer that stands out most is flagged and is an edited one."""
    return [
        score(row, "edited", bars, scan) > 1
        and standing(row, "edited", bars, scan) > standing(row, "other", bars, scan)
        for row in rows
    ]


def share(flags: Sequence[bool]) -> str:
    return f"{sum(flags)} of {len(flags)}: {cell(proportion(sum(flags), len(flags)).__dict__, 2)}" if flags else ""


def median(rows: Sequence[Row], name: str) -> str:
    """With an interval over relations."""
    some = [row for row in rows if row.get(name) is not None]
    if not some:
        return ""
    estimate = cluster_bootstrap(
        [row[name] for row in some], [row["relation"] for row in some], statistic=lambda v: float(np.median(v))
    )
    return cell(estimate.__dict__, 1)


def reported(data: Mapping[str, Any]) -> dict[str, list[Row]]:
    """Edits that chose nothing, by method."""
    return {method: [r for r in rows_of(edits) if r["i"] >= data["choose"]] for method, edits in data["edits"].items()}


def verdicts(found: Mapping[str, Mapping[str, Any]]) -> str:
    """What was asked for and what was reached, in words made from the numbers."""
    layer: dict[str, list[str]] = {scan: [] for scan in SCANS}
    answer, alarms = [], []
    for name, data in found.items():
        for method, rows in reported(data).items():
            for scan in SCANS:
                if flags := layer_found(rows_with(rows, scan), SHIPPED, scan):
                    met = "met" if sum(flags) >= NEEDED * len(flags) else "**not met**"
                    met += f" on fewer than the {ASKED} edits asked for" if met == "met" and len(flags) < ASKED else ""
                    layer[scan].append(f"`{name}`, {method}: {met} ({sum(flags)} of {len(flags)})")
            ranks = [row["object"] for row in rows if row.get("object") is not None]
            if ranks:
                met = "met" if np.median(ranks) <= RANK else "**not met**"
                answer.append(f"`{name}`, {method}: {met} (median {np.median(ranks):g} of {len(ranks)} edits)")
        for kind, rows in data["copies"].items():
            flags = flagged(rows, "other", SHIPPED)
            alarms.append(f"`{name}`, {COPIES[kind]}: {sum(flags)} of {len(flags)}")
    return "\n".join(
        [
            "## What is met\n",
            f"* Without the base, the layer found in at least {NEEDED:.0%} of the edits (the most suspect layer is an edited one and is "
            f"flagged, by the library's thresholds): {'; '.join(layer[''])}.",
            f"* The same where the edited model is run on the shipped text for second moments: {'; '.join(layer['moments '])}.",
            f"* With the base, the new answer's median rank at most {RANK} among 1,000 candidates: {'; '.join(answer)}.",
            f"* False alarms by the library's thresholds: {'; '.join(alarms)}.",
        ]
    )


def section(name: str, data: Mapping[str, Any]) -> list[str]:
    """Everything about one model."""
    bars, halves = chosen(data), reported(data)
    return [
        f"## {name}",
        introduction(data, bars),
        f"### {name}, without the base: the layer",
        layers(data, halves, bars),
        "Median over edits of the largest reading among the edited layers and among the others:",
        readings(halves),
        *with_moments(halves),
        f"### {name}, false alarms",
        alarms(data, bars),
        f"### {name}, with the base: whom and what",
        candidates(data),
        told(halves),
        f"### {name}, the outlying direction taken down, without the base",
        "Mean probability of the first token, after `removal` at the most suspect layer.",
        removed(halves),
    ]


def introduction(data: Mapping[str, Any], bars: Mapping[str, float]) -> str:
    """Thresholds, and what an unedited model shows."""
    differ = []
    for method, rows in reported(data).items():
        ours, theirs = sum(layer_found(rows, bars)), sum(layer_found(rows, SHIPPED))
        if ours != theirs:
            differ.append(f"{method} ({theirs} of {len(rows)} by the library's, {ours} by those chosen here)")
    empty, first = data["empty"], data["copies"]["unedited"][0]
    parts = [
        f"Edits from number {data['choose']} on are reported. The library's thresholds are {said(SHIPPED)}; the largest readings of "
        f"unedited layers among the first edits and of every other copy are {said(bars)}, so that the library's are "
        f"{compared(bars)}. The two pairs find the same number of layers"
        + (f" but for {' and '.join(differ)}." if differ else "."),
        f"The unedited model's most suspect layer is {first['suspect']}: to be the most suspect says nothing without a flag.",
    ]
    if any(empty.values()):
        left = " and ".join(f"{count} of {method}" for method, count in empty.items() if count)
        parts.append(
            f"Left out because they write nothing, as the model's first choice was the new answer already: {left}."
        )
    return " ".join(parts)


def layers(data: Mapping[str, Any], halves: Mapping[str, Sequence[Row]], bars: Mapping[str, float]) -> str:
    """What `scan` says of the edited layers and of the others."""
    header = [
        "found, library's thresholds",
        "another layer flagged",
        "found, chosen thresholds",
        "another layer flagged",
    ]
    lines = []
    for method, rows in halves.items():
        edits = data["edits"][method]
        where = f"{', '.join(map(str, edits['layers']))} of {edits['of']}"
        flags = [f for use in (SHIPPED, bars) for f in (layer_found(rows, use), flagged(rows, "other", use))]
        lines.append([method, where, *map(share, flags)])
    return table(["method", "edited layers", *header], lines)


def readings(halves: Mapping[str, Sequence[Row]]) -> str:
    """How far apart the readings of edited and other layers are."""
    columns = [(reading, who) for reading in READINGS for who in ("edited", "other")]
    return table(
        ["method", *(f"{reading}, {who}" for reading, who in columns)],
        [
            [method, *(f"{np.median([row[f'{who} {reading}'] for row in rows]):.2f}" for reading, who in columns)]
            for method, rows in halves.items()
        ],
    )


def rows_with(rows: Iterable[Row], scan: str) -> list[Row]:
    """Rows that such a scan was made of."""
    return [row for row in rows if row.get(f"{scan}other {ENERGY}") is not None]


def with_moments(halves: Mapping[str, Sequence[Row]]) -> list[str]:
    """Scans of what the least used inputs are given, of the edits that have one."""
    some = {method: rows_with(rows, "moments ") for method, rows in halves.items()}
    lines = [
        [method, share(layer_found(rows, SHIPPED, "moments ")), share(flagged(rows, "other", SHIPPED, "moments "))]
        for method, rows in some.items()
        if rows
    ]
    if not lines:
        return []
    return [
        "The same with second moments of the edited model's own keys (`scan(model, moments=...)`), by the library's thresholds:",
        table(["method", "found", "another layer flagged"], lines),
    ]


def candidates(data: Mapping[str, Any]) -> str:
    """Among whom the ranks are."""
    found = data["candidates"]
    subjects, objects = found["real"]
    return (
        f"Median rank among {found['of']:,} candidates: {subjects} subjects and {objects} answers of facts, and words of the "
        f"vocabulary. The answers begin with {found['first tokens']} different tokens; those that share one share a rank."
    )


def removed(halves: Mapping[str, Sequence[Row]]) -> str:
    """Answers before and after an edit, and after `removal`."""
    return table(
        ["method", "n", "new, unedited", "new, edited", "new, removed", "old, removed"],
        [
            [method, str(len(rows)), *(f"{np.mean([row[key] for row in rows]):.3f}" for key in KEPT[:4])]
            for method, rows in halves.items()
        ],
    )


def said(bars: Mapping[str, float]) -> str:
    return " and ".join(f"{bar:.2f} of the {name}" for name, bar in bars.items())


def compared(bars: Mapping[str, float]) -> str:
    """Whether the library's thresholds are above those chosen here."""
    above = [name for name in READINGS if SHIPPED[name] >= bars[name]]
    below = [name for name in READINGS if name not in above]
    if not below:
        return "the stricter ones in both"
    return "the laxer ones in " + " and ".join(below) + (f", the stricter ones in {above[0]}" if above else "")


def alarms(data: Mapping[str, Any], bars: Mapping[str, float]) -> str:
    """Copies with a layer that is flagged."""
    moments = any(rows_with(rows, "moments ") for rows in data["copies"].values())
    header = ["copy", "library's thresholds", "chosen thresholds, copies that chose none"]
    return table(
        [*header, "library's thresholds, with moments"] if moments else header,
        [
            [COPIES[kind], share(flagged(rows, "other", SHIPPED)), share(flagged(rows[1::2], "other", bars))]
            + ([share(flagged(rows_with(rows, "moments "), "other", SHIPPED, "moments "))] if moments else [])
            for kind, rows in data["copies"].items()
        ],
    )


def told(halves: Mapping[str, Sequence[Row]]) -> str:
    """Ranks that `decode` gave, and the plain unembedding's."""
    names = {
        "subject": "subject",
        "object": "new answer",
        "object, own prompts": "new answer, prompts of the facts' relations",
        "unembedded": "new answer, by the unembedding alone",
        "old": "old answer",
    }
    asked = {method: [row for row in rows if row.get("object") is not None] for method, rows in halves.items()}
    used = [name for name in names if any(row.get(name) is not None for rows in asked.values() for row in rows)]
    return table(
        ["method", "n", *(names[name] for name in used), f"new answer among the first {RANK}"],
        [
            [
                method,
                str(len(rows)),
                *(median(rows, name) for name in used),
                share([row["object"] <= RANK for row in rows]),
            ]
            for method, rows in asked.items()
            if rows
        ],
    )


HEAD = """# Forensics, measured

Made by

    python experiments/forensics.py run world
    python experiments/forensics.py run smollm2
    python experiments/forensics.py page

One known fact an edit; what the readings are stands in [forensics](forensics.md). The first edits and every other copy choose
thresholds, and only the other edits are shown. Proportions have Wilson's interval or, where none or all count, the rule of three; medians a
bootstrap over relations; 95 % both. A layer's readings are its own or those of the run of three or five layers that it is one of, whichever score more.

`world` is edited in four ways. ROME and MEMIT at the subject's last token, in early layers, are what their papers do, and what `decode` reads;
"last token" is what `palimpsest edit world` does by default, because that generalises best there ([editing the made world](editing-world.md)).
`decode` looks for keys at a subject's last token, so it is not asked about those.

`smollm2` ships with weights on a quantiser's grid, of which any edit would stand out. Each matrix first got noise, uniform over one step of
that grid, and was edited after that by the library's defaults; unedited copies have other noise. There are 20 edits a way and not 50, for an
hour of computing; a scan with second moments takes a minute and a half there, and was made of MEMIT's edits and a copy of each kind. Where
candidates are at hand, [line-ups](line-up-measured.md) find what scans of the weights alone miss.

Copies hold no rank-one edit. Those that FT trained on a fact do carry one all the same: where none of them is flagged there is no
false alarm, and FT is not seen either."""
