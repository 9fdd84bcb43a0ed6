"""docs/leace-on-smollm2.md, from results/leace-smollm2.json and results/unwanted-smollm2.json alone; `leace_smollm2.py page` runs it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pages import cell, table
from palimpsest.runs import atomic_write

DOCS = Path(__file__).parents[1] / "docs"
ATTACKS = ("direct", "paraphrase", "prefix", "primed")


def write_page(found: Mapping[str, Any]) -> None:
    """Write the page."""
    blocks = ["# LEACE on smollm2", "", "Made by", ""]
    blocks += [
        "    PALIMPSEST_RECORDS=... python experiments/leace_smollm2.py run && python experiments/leace_smollm2.py page",
        "",
        "In brackets: 95 % intervals, bootstrap over nouns (probes), BLiMP's paradigms, passages, or relations and within them",
        "subjects (facts). [erase](erase.md) says what is done.",
        "",
    ]
    if "number" in found:
        blocks += _number(found["number"])
    if "unwanted" in found:
        blocks += _unwanted(found["unwanted"])
    atomic_write(DOCS / "leace-on-smollm2.md", "\n".join(blocks).rstrip() + "\n")


def _number(part: Mapping[str, Any]) -> list[str]:
    rows = part["estimates"]
    train, test = (sum(part["texts"][name].values()) for name in ("train", "test"))
    probed = next(iter(part["conditions"].values()))["probe"]
    layers = list(next(iter(rows.values()))["probe"])
    measures = {
        "number": ("BLiMP, number", len(part["clusters"]["number"])),
        "other": ("BLiMP, other", len(part["clusters"]["other"])),
        "facts": ("known facts", len(part["clusters"]["facts"])),
        "text": ("nll a token", len(part["clusters"]["text"])),
    }
    return [
        "## Erasing number",
        "",
        f"Number at the noun, from BLiMP's agreement of determiner and noun: {train} texts of {part['nouns'][0]} nouns to fit, {test} of "
        f"{part['nouns'][1]} other nouns to test; states are {part['width']} wide. *Layer*: one eraser, after layer {part['layer']}. *Stream*: "
        "before layer 0 and after every layer, each fitted on states erased below. *Random*: as many random directions taken out around the "
        "same mean. *Permuted*: LEACE of the same labels dealt to the wrong texts. *As published*: least change of the states that "
        "are read, not of all tokens.",
        "",
        "### What a probe reads",
        "",
        f"Accuracy on other nouns of a logistic regression trained, with the edit in place, on {probed['fitted']} texts of the fitting "
        "nouns, after the layer in the heading. About half of the tested texts are singular: chance is 0.5.",
        "",
        table(
            ["condition", *(f"layer {layer}" for layer in layers)],
            [[name, *(cell(row["probe"][layer], 2) for layer in layers)] for name, row in rows.items()],
        ),
        "",
        "### What it costs",
        "",
        "Share of pairs whose grammatical sentence is likelier, where the grammar is number (should fall) and where it is anything else "
        "(should stay); share of facts still known, of those the unedited model knows; and the loss on ordinary text.",
        "",
        table(
            ["condition", *(f"{title} (n = {n})" for title, n in measures.values())],
            [[name, *(cell(row[measure]) for measure in measures)] for name, row in rows.items()],
        ),
        "",
        "The change from the unedited model, paired by record:",
        "",
        table(
            ["condition", *(title for title, _ in measures.values())],
            [
                [name, *(cell(row[f"{measure}_change"]) for measure in measures)]
                for name, row in rows.items()
                if name != "unedited"
            ],
        ),
        "",
        *_read(rows, str(part["layer"]), layers),
    ]


def _read(rows: Mapping[str, Any], layer: str, layers: list[str]) -> list[str]:
    """What the tables say, in their own numbers."""
    lines = []
    if "layer, LEACE" in rows:
        one = rows["layer, LEACE"]
        last = layers[-1]
        lines.append(
            f"* After the erased layer {layer} the probe reads {one['probe'][layer]['value']:.2f}, where it read "
            f"{rows['unedited']['probe'][layer]['value']:.2f}; after layer {last} it reads {one['probe'][last]['value']:.2f} again if only layer "
            f"{layer} is erased: later layers fetch number from other tokens."
        )
        lines.append(
            f"* Text costs {one['text_change']['value']:+.3f} nats a token ({_change(rows, 'layer, random', 'text')} for the random "
            f"projection), known facts {one['facts_change']['value']:+.3f} ({_change(rows, 'layer, random', 'facts')})."
        )
    if "layer, LEACE as published" in rows:
        published = rows["layer, LEACE as published"]
        lines.append(
            f"* Least change of the read tokens instead of all costs {published['text_change']['value']:+.3f} nats a token and "
            f"{published['facts_change']['value']:+.3f} of the known facts: the eraser acts on tokens it was not fitted to."
        )
    if "stream, LEACE" in rows:
        whole = rows["stream, LEACE"]
        highest = max(whole["probe"][layer]["value"] for layer in layers)
        lines.append(
            f"* Scrubbing leaves at most {highest:.2f} after any probed layer, for {whole['text_change']['value']:+.3f} nats a token "
            f"({_change(rows, 'stream, random', 'text')} for random projections) and {whole['facts_change']['value']:+.3f} of the known "
            f"facts ({_change(rows, 'stream, random', 'facts')})."
        )
    return [*lines, ""]


def _change(rows: Mapping[str, Any], name: str, measure: str) -> str:
    return f"{rows[name][f'{measure}_change']['value']:+.3f}" if name in rows else "not measured"


def _unwanted(part: Mapping[str, Any]) -> list[str]:
    blocks = [
        "## Associations that must go",
        "",
        f"{len(part['ids']['removed'])} of the associations that ship are removed in one edit (layers {part['settings']['layers']}, "
        f"{part['steps']} steps, {part['seconds']:.0f} seconds of one core); the other {len(part['ids']['kept'])} are the control. p: probability "
        "of the completion; base: the same completion, after the same attack, on prompts about something else; first: share of texts "
        "after which it is the likeliest. Bootstrap over associations.",
        "",
    ]
    for title, name in (("Removed", "removed"), ("Not removed: the control", "kept")):
        attacks = part["elicitation"][name]["attacks"]
        blocks += [
            f"### {title}",
            "",
            table(
                ["attack", "texts", "p before", "p after", "base after", "excess after", "first before", "first after"],
                [
                    [
                        attack,
                        str(row["p"]["after"]["n"]),
                        cell(row["p"]["before"]),
                        cell(row["p"]["after"]),
                        cell(row["base"]["after"], 4),
                        cell(row["excess"]["after"]),
                        cell(row["first"]["before"], 2),
                        cell(row["first"]["after"], 2),
                    ]
                    for attack, row in ((attack, attacks[attack]) for attack in ATTACKS if attack in attacks)
                ],
            ),
            "",
        ]
    reached = sum(one["reached"] for one in part["associations"])
    removed = part["elicitation"]["removed"]["attacks"]
    back = [attack for attack in ATTACKS if attack in removed and not removed[attack]["gone"]]
    blocks += [
        f"{reached} of {len(part['associations'])} completions are at or below their base rate after their own prompt. "
        + (
            f"The association is still there, its excess above zero with its whole interval, under: {', '.join(back)}."
            if back
            else "No attack brings them back above the base rate."
        ),
        "",
        "### Bystanders",
        "",
        table(
            ["measure", "before", "after", "change"],
            [
                [title, *(cell(part["bystanders"][name][when]) for when in ("before", "after", "change"))]
                for title, name in (("nll a token of ordinary text", "text"), ("known facts", "facts"))
            ],
        ),
        "",
    ]
    return blocks
