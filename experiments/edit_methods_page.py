"""The page of `edit_methods.py`: every number comes from results/edit-methods and results/bench-*.json."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
METRICS = ("es", "ps", "ns", "s")
PAGE = ROOT / "docs" / "edit-methods-on-smollm2.md"
SHARES_VALUES = ("memit", "emmet", "alphaedit", "random", "rome, C = I")


def cell(estimate: dict[str, Any] | None) -> str:
    """0.93 [0.88, 0.97]."""
    if not estimate or estimate.get("value") is None:
        return "-"
    if estimate.get("low") is None:
        return f"{estimate['value']:.2f}"
    return f"{estimate['value']:.2f} [{estimate['low']:.2f}, {estimate['high']:.2f}]"


def rows(header: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    """A table."""
    names = list(header)
    return "\n".join(["| " + " | ".join(line) + " |" for line in (names, ["---"] * len(names), *map(list, lines))])


def scores(result: dict[str, Any], when: str = "post") -> list[str]:
    """ES, PS, NS and S with intervals."""
    return [cell(result[when].get(metric)) for metric in METRICS]


def text_nll(result: dict[str, Any]) -> str:
    """What the edit does to other text."""
    return f"{result['text_nll']:.2f}" if result.get("text_nll") is not None else "-"


def seconds(name: str, result: dict[str, Any]) -> str:
    """Seconds a fact; values that were found once for several methods are named."""
    shared = name.startswith(SHARES_VALUES) and "searched" not in result  # a sequence searches its own
    return f"{result['seconds_per_fact']:.2f}" + (" + values" if shared else "")


def load(results: Path) -> dict[str, dict[str, Any]]:
    """Every result by kind/name."""
    return {f"{p.parent.name}/{p.stem}": json.loads(p.read_text("utf-8")) for p in sorted(results.glob("*/*.json"))}


def by_size(found: dict[str, dict[str, Any]], size: str, methods: Iterable[str]) -> list[list[str]]:
    """Lines of the table of one n, the unedited model first."""
    lines: list[list[str]] = []
    for name in methods:
        result = found.get(f"{size}/{name}")
        if result is None and f"sequence/{name}" in found:
            n = int(size[1:])
            result = next((point for point in found[f"sequence/{name}"]["curve"] if point["n"] == n), None)
            if result is not None:
                whole = found[f"sequence/{name}"]
                cost = {key: whole[key] for key in ("seconds_per_fact", "peak_gb")}
                result = {**result, **cost, "searched": True}
        if result is None:
            lines.append([name, *["not measured"] * 4, "", "", ""])
            continue
        if not lines:
            lines.append(["unedited", *scores(result, "pre"), "", "", ""])
        lines.append([name, *scores(result), text_nll(result), seconds(name, result), f"{result['peak_gb']:.1f}"])
    return lines


def tuning(found: dict[str, dict[str, Any]]) -> str:
    """The table of the tuning."""
    kept = sorted(
        (r for name, r in found.items() if name.startswith("tune/")), key=lambda r: (r["search"], r["lambda"])
    )
    header = ("search", "lambda", "ES", "PS", "NS", "S", "text nll")
    lines = [["unedited", "", *scores(kept[0], "pre"), ""]]
    lines += [[r["search"], f"{r['lambda']:g}", *scores(r), text_nll(r)] for r in kept]
    return rows(header, lines)


SHOWN = (10, 20, 40, 60, 80, 100, 140, 200, 300, 400, 500, 600, 800, 1000)  # facts so far


def curves(found: dict[str, dict[str, Any]]) -> str:
    """The table of the sequences: a line a method, a column a number of facts."""
    names = [n.removeprefix("sequence/") for n in found if n.startswith("sequence/")]
    reached = {point["n"] for name in names for point in found[f"sequence/{name}"]["curve"]}
    sizes = [n for n in SHOWN if n in reached]
    lines = []
    for name in names:
        curve = {point["n"]: point for point in found[f"sequence/{name}"]["curve"]}
        for metric in ("es", "ps", "ns"):
            lines.append([name, metric.upper(), *(cell(curve[n]["post"][metric]) if n in curve else "" for n in sizes)])
        lines.append([name, "text nll", *(text_nll(curve[n]) if n in curve else "" for n in sizes)])
    return rows(("sequence", "", *map(str, sizes)), lines)


def frontier(found: dict[str, dict[str, Any]]) -> str:
    """The table of n = 1,000."""
    kept = [(name.removeprefix("n1000/"), result) for name, result in found.items() if name.startswith("n1000/")]
    lines = [["unedited", *scores(kept[0][1], "pre"), "", "", "", ""]] if kept else []
    lines += [
        [
            name,
            *scores(r),
            text_nll(r),
            f"{r['edit_norm']:.0f}",
            f"{r['seconds_per_fact']:.2f} + values",
            f"{r['peak_gb']:.1f}",
        ]
        for name, r in sorted(kept)
    ]
    for name in ("rome", "rome-2022"):
        curve = found.get(f"sequence/{name}", {"curve": []})["curve"]
        if curve and (last := curve[-1])["n"] >= 100:
            whole = found[f"sequence/{name}"]
            stopped = f"{name}, sequence, as far as {last['n']}"
            cost = [f"{last['edit_norm']:.0f}", f"{whole['seconds_per_fact']:.2f}", f"{whole['peak_gb']:.1f}"]
            lines.append([stopped, *scores(last), text_nll(last), *cost])
    return rows(("n = 1,000", "ES", "PS", "NS", "S", "text nll", "norm", "seconds a fact", "peak GB"), lines)


def write_page(results: Path, methods: Iterable[str], text: dict[str, str]) -> None:
    """The page, from what is there."""
    found, methods = load(results), list(methods)
    header = ("method", "ES", "PS", "NS", "S", "text nll", "seconds a fact", "peak GB")
    sizes = "\n\n".join(
        f"## n = {size[1:]}\n\n{text[size]}\n\n{rows(header, by_size(found, size, methods))}"
        for size in ("n1", "n10", "n100")
    )
    value_seconds = json.loads((results / "values.json").read_text())
    page = f"""# Every editing method on smollm2

{text["intro"].format(**value_seconds)}

## Choosing MEMIT's settings (n = 100, records 3000 to 3099)

{tuning(found)}

{text["tuning"]}

{sizes}

## One thousand facts

{text["thousand"]}

{frontier(found)}

{text["after thousand"]}

## In sequence

{text["sequence"]}

{curves(found)}

{text["after sequence"]}

## What may not be concluded

{text["limits"]}
"""
    PAGE.write_text(page, "utf-8")
