"""docs/rome-on-smollm2.md and docs/text.md, from results/rome-default/ alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from palimpsest.facts import shipped_text
from palimpsest.runs import atomic_write
from palimpsest.statistics import Estimate

DOCS = Path(__file__).parents[1] / "docs"
METRICS = ("es", "ps", "ns", "s", "em", "pm", "nm")
COMMAND = "PALIMPSEST_RECORDS=... python experiments/rome_default.py run && python experiments/rome_default.py page"


def write_page(results: Mapping[str, Any], layer: int, tokens_per_width: int) -> None:
    """Write both pages."""
    choose = {name: part for name, part in results.items() if name.startswith("choose/")}
    layers = {int(name.split("-")[1]): part for name, part in choose.items() if "/layer-" in name}
    keys = {name.split("key-")[1]: part for name, part in choose.items() if "/key-" in name}
    first = next(iter(choose.values()))
    rows_layers = {"unedited": _row(first, "pre")} | {f"layer {n}": _row(part) for n, part in sorted(layers.items())}
    rows_keys = {f"halves (layer {layer})": _row(results[f"choose/layer-{layer}"])} | {
        n: _row(p) for n, p in keys.items()
    }
    final = {
        "CounterFact": results.get("report/counterfact"),
        "shipped facts": results.get("report/shipped"),
    }
    blocks = []
    for name, part in final.items():
        if part:
            blocks += [
                f"### {name}, n = {part['n']}",
                "",
                _table({"unedited": _row(part, "pre"), "edited": _row(part), "difference": _row(part, "difference")}),
                f"Mean forward passes of the value search: {part['mean_steps']:.1f}.",
                "",
            ]
    if "compare/rome-2022" in results:
        same, other = results["compare/rome-2022"], results["report/rome-2022"]
        rows = {
            "unedited": _row(other, "pre"),
            "fixed": _row(same["default"]),
            "rome-2022": _row(other),
            "rome-2022 minus fixed, paired": _row(same, "other_minus_default"),
        }
        blocks += [f"### The two presets, on the first {other['n']} of these CounterFact records", "", _table(rows)]
    page = f"""# ROME on smollm2: which layer, which key, and how well

Made by

    {COMMAND}

Chosen on one split, reported on another. The first {first["n"]} records of `counterfact_flat.json` on which the old answer outranks the
new one ("eligible"), in file order, chose the layer and the key; the next 100 eligible records and 100 shipped facts that smollm2
knows report. Each fact is edited by itself and undone. In brackets: 95 % intervals, bootstrap over relations and, within them,
subjects. CounterFact's flat file has one paraphrase and one neighbour a record and no relation, so the template stands for it.

## Choosing the layer (n = {first["n"]})

{_table(rows_layers)}
The default is layer {layer}, the best S here. The intervals overlap widely, so the neighbours of this layer are as good a choice; the
table is why no stronger claim is made. That an edit works at a layer does not say that the fact is stored there: it works at all of them.

## Choosing the key at layer {layer} (n = {first["n"]})

"halves" is half the bare prompt's key and half the mean over five contexts; "mean" the mean over all six; "bare" the bare prompt's
alone.

{_table(rows_keys)}
## How these runs came about

Six layers (3 to 13) were planned; 11 and 13 were dropped for time once the results of layers 3 and 5 had been seen, so nothing here says
that deeper layers are worse. Two further variants of the search (another stop, 20 contexts) were dropped for time as well. The layers were
measured with earlier code than the keys and the reports: between them the tokenizer began to split digits one by one, so "halves"
against "mean" and "bare" also crosses that change. `method_settings`, `versions` and `weights` in the result files were not recorded by
the runs: they were added afterwards from the same defaults (`added_afterwards` in each file). The comparisons of texts and presets use
fewer records, for time.

## Reported on other facts

""" + "\n".join(blocks)
    atomic_write(DOCS / "rome-on-smollm2.md", page)
    if "compare/wikitext" in results:
        _text_page(results)


def _text_page(results: Mapping[str, Any]) -> None:
    text = shipped_text()
    same, wikitext = results["compare/wikitext"], results["report/wikitext"]
    rows = {
        "unedited": _row(wikitext, "pre"),
        "shipped text": _row(same["default"]),
        "WikiText-2": _row(wikitext),
        "WikiText-2 minus shipped, paired": _row(same, "other_minus_default"),
    }
    atomic_write(
        DOCS / "text.md",
        f"""# The text that ships, and what it changes

Second moments need ordinary text. What ships is {len(text.split()):,} words in {len(text.split(chr(10) * 2)):,} documents, sampled from
SmolLM2-135M-Instruct (Apache-2.0) itself by a recorded, seeded command, from openings written for this project:

    python tools/sample_text.py

The command has not been run a second time: whether it gives the same bytes on another machine, or since the tokenizer began to split
digits, was not checked. No benchmark text and nothing of WikiText is in it. A user's own text is better where there is some: `--text FILE`.

What it changes, on the first {wikitext["n"]} reporting records of [ROME on smollm2](rome-on-smollm2.md), with second moments from the
shipped text and from the validation part of WikiText-2 (as many tokens):

{_table(rows)}
""",
    )


def _row(part: Mapping[str, Any], when: str = "post") -> dict[str, str]:
    cells = {}
    for metric in METRICS:
        found = part.get(when, {}).get(metric)
        cells[metric.upper()] = str(Estimate.from_json(found)).split(" (")[0] if found else ""
    return cells


def _table(rows: Mapping[str, Mapping[str, str]]) -> str:
    names = [metric.upper() for metric in METRICS]
    lines = ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    lines += [f"| {name} | " + " | ".join(row[n] for n in names) + " |" for name, row in rows.items()]
    return "\n".join(lines) + "\n"
