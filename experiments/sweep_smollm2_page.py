"""docs/sweep-on-smollm2.md and its figure, from results/sweep/ alone; `python experiments/sweep_smollm2.py page` runs it."""

import json
from pathlib import Path
from typing import Any

from palimpsest.errors import PalimpsestError
from palimpsest.evaluate.sweep_plot import plot_cells
from palimpsest.runs import atomic_write

ROOT = Path(__file__).parents[1]
RESULTS, PAGE, FIGURE = ROOT / "results" / "sweep", ROOT / "docs" / "sweep-on-smollm2.md", ROOT / "docs" / "figures"
COMMAND = "python experiments/sweep_smollm2.py run && python experiments/sweep_smollm2.py page"
NAMES = {"rewrite": "rewrite score", "es": "ES", "em": "EM", "ps": "PS", "ns": "NS", "s": "S"}
MODELS = ("layer", "effect", "both", "interaction")


def est(e: Any, digits: int = 2) -> str:
    """value [low, high]."""
    if e is None or e["value"] is None:
        return "-"
    value, low, high = (
        None if e[end] is None else round(e[end], digits) + 0.0 for end in ("value", "low", "high")
    )  # no -0.00
    return f"{value:.{digits}f}" + ("" if low is None else f" [{low:.{digits}f}, {high:.{digits}f}]")


def table(header: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def cells(stored: Any, metric: str) -> str:
    """Layers down, token roles across; the unedited model below."""
    found = {(cell["layer"], cell["token"]): cell[metric] for cell in stored["cells"]}
    rows = [[str(l), *(est(found[l, t]) for t in stored["tokens"])] for l in stored["layers"]]
    if metric != "rewrite":
        rows.append(["unedited", *[est(stored["unedited"][metric])] * len(stored["tokens"])])
    return table(["layer", *stored["tokens"]], rows)


def proposal(stored: Any) -> str:
    """The layer that half of the subjects chose, as the other half reports it."""
    found = stored["proposal"]
    if "withheld" in found:
        return str(found["withheld"])
    others = ", ".join(map(str, found["as_good"])) or "none"
    numbers = ", ".join(f"{NAMES[m]} {est(found['reported'][m])}" for m in ("s", "es", "ps", "ns", "rewrite"))
    return (
        f"At the last subject token, half of the subjects ({found['chosen_on']} facts) choose layer {found['layer']} by "
        f"{NAMES[found['metric']]}; on the other half ({found['reported_on']} facts) it has {numbers}. Layers that this half "
        f"cannot tell from it: {others}."
    )


def regressions(stored: Any, metric: str) -> str:
    rows = []
    for one in stored["regressions"]:
        if one["metric"] != metric:
            continue
        chance, test = one["chance"], one["tests"].get("both")
        gain = f"{est(one['gains']['both'], 3)}; shuffled {number(chance['both']['mean'])}, p = {number(chance['both']['p'])}"
        more = f"{est(one['gains']['interaction'], 3)}; shuffled {number(chance['interaction']['mean'])}, p = {number(chance['interaction']['p'])}"
        slopes = [est(one["slopes"][m]) for m in ("effect", "both")]
        f = "-" if test is None or test["F"] is None else f"{test['F']:.2f} (p = {test['p']:.3f})"
        rows.append([one["kind"], one["at"], *(est(one["r2"][m]) for m in MODELS), *slopes, gain, more, f])
    header = [
        "traced",
        "read at",
        *(f"R² {m}" for m in MODELS),
        "slope b of effect",
        "b of both",
        "gain of both over layer",
        "gain of interaction",
        "F of both",
    ]
    return table(header, rows)


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def by_layer(stored: Any) -> str:
    """Edit success and tracing effects side by side."""
    edits = {cell["layer"]: cell for cell in stored["edits"]["cells"]}
    header = [
        "layer",
        "rewrite score",
        "ES",
        "PS",
        "NS",
        *(f"fraction restored: {name}" for name in stored["by_layer"]),
    ]
    rows = [
        [
            str(l),
            *(est(edits[l][m]) for m in ("rewrite", "es", "ps", "ns")),
            *(f"{line[i]:.2f}" for line in stored["by_layer"].values()),
        ]
        for i, l in enumerate(stored["layers"])
    ]
    return table(header, rows)


def left_out(stored: Any) -> str:
    first = next(one for one in stored["regressions"] if one["kind"] == "state")
    named = "; ".join(f"{name}: {reason}" for name, reason in first["left_out"].items()) or "none"
    return f"{len(first['facts'])} facts are in the regressions on states. Left out: {named}."


def same_profile(stored: Any) -> str:
    """What the tracing effect alone accounts for, beside the same with effects of other facts."""
    told = []
    for one in stored["regressions"]:
        if one["metric"] == "rewrite" and one["at"] == "max":
            told.append(
                f"{one['kind']}: R² {est(one['r2']['effect'], 3)}, and {number(one['chance']['effect']['mean'])} on average with the "
                f"effects of other facts (p = {number(one['chance']['effect']['p'])})"
            )
    return "; ".join(told) + "."


def figure(swept: Any) -> str:
    """The figure of the sweep where matplotlib is installed."""
    try:
        FIGURE.mkdir(parents=True, exist_ok=True)
        plot_cells(swept, ("rewrite", "ps", "ns")).savefig(FIGURE / "sweep-on-smollm2.png", dpi=110)
    except PalimpsestError as error:  # the page is complete without it
        print(f"no figure: {error}")
    return (
        "![rewrite score, PS and NS by edited layer](figures/sweep-on-smollm2.png)"
        if (FIGURE / "sweep-on-smollm2.png").is_file()
        else ""
    )


def write() -> None:
    """The page."""
    swept, local = (json.loads((RESULTS / f"{name}.json").read_text("utf-8")) for name in ("sweep", "localisation"))
    settings = swept["settings"]["method_settings"]
    layers = ", ".join(map(str, swept["layers"]))
    atomic_write(
        PAGE,
        f"""# Where smollm2 can be edited, and whether tracing tells

Made by

    {COMMAND}

Each fact is edited by itself with ROME (preset `{settings["preset"]}`), measured with the CounterFact suite, and undone. The rewrite score is
(p' - p) / (1 - p) with p and p' the probability of the new answer before and after (Hase et al. 2023). In brackets: 95 % intervals,
bootstrap over relations and, within them, subjects. Cut for two cores: {len(settings["context_texts"])} contexts (the bare prompt among them)
instead of 6, {settings["values"]["steps"]} steps instead of 20, layers {layers} of 30, {len(swept["facts"])} facts.

## Layer x token, {len(swept["facts"])} facts

Every fact here has a subject of three tokens or more and text after it, so that each of the four roles is a token of its own; they are
facts that smollm2 knows, so one that it does not know may behave otherwise. `subject_middle` is the token halfway between the first
and the last. {len(swept["begin_with_subject"])} of the prompts begin with their subject: there `subject_first` is the first token of the text when the prompt
stands alone, and is not when a context or a paraphrase precedes it, so one key must serve two places that differ much.

### Rewrite score

{cells(swept, "rewrite")}

### ES, PS, NS and S

ES:

{cells(swept, "es")}

PS:

{cells(swept, "ps")}

NS:

{cells(swept, "ns")}

S, their harmonic mean:

{cells(swept, "s")}

{figure(swept)}

{proposal(swept)}

## Localisation against editing, {len(local["edits"]["facts"])} facts

Edits at the last subject token at the same layers, of the {len(local["edits"]["facts"])} shipped facts whose traces are in
[where smollm2's facts are read](locate-on-smollm2.md), traced again at these layers: states, and MLP outputs in windows of 5, with 3 noise
samples. A tracing effect is the fraction of the total effect that is restored, at the token where it is largest (`max`, as published, and
biased upward by the choice) or at the last subject token. {left_out(local)}

{by_layer(local)}

The regressions are

| | |
|---|---|
| layer | success = a_layer |
| effect | success = a + b x effect |
| both | success = a_layer + b x effect |
| interaction | success = a_layer + b_layer x effect |

R² has no sign, the slope b has: it is the change of success from a fraction restored of 0 to one of 1, and below 0 edits succeed where tracing
does not point. A gain of R² is never negative; beside it stands the gain with the tracing effects of other facts put in, and the share p of 999
shuffles that gain as much. Whole facts are shuffled over all relations: p takes facts of one relation for independent, which the
bootstrap does not, so p may be too small. The F-test takes the layers of one fact for independent, which they are not; it is here because
the paper has it. Where a success never varies (all edits succeed), R² is not defined and stands as -.

### Rewrite score

{regressions(local, "rewrite")}

The tracing effect alone, read at max: {same_profile(local)} What other facts' effects account for as well is a profile over layers that
all facts share, and not a match of this fact's trace with this fact's edit.

### ES

{regressions(local, "es")}

### EM

{regressions(local, "em")}

## What may not be concluded

* {swept["reads"]}
* {local["regressions"][0]["reads"]}
* Intervals of proportions that are 0 or 1 in every fact have no width; with {len(swept["facts"])} facts the true rate may still be {3 / len(swept["facts"]):.2f} away
  (rule of three).
* {len(swept["facts"])} and {len(local["edits"]["facts"])} facts, one small model, one method, one seed of contexts. The cells of one table are the same facts, so
  neighbouring cells are alike; no cell was chosen and then tested on the same facts but in the proposal above, which splits subjects.
* Fewer steps and contexts than ROME's defaults favour layers where the search is easy.
""",
    )
