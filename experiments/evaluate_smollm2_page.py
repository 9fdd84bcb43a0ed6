"""docs/evaluate-on-smollm2.md from results/evaluate/; `python experiments/evaluate_smollm2.py page` runs it."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from evaluate_smollm2_text import TEXT  # beside this file
from pages import cell, table
from palimpsest.runs import atomic_write
from palimpsest.statistics import holm

ROOT = Path(__file__).parents[1]
RESULTS, PAGE = ROOT / "results" / "evaluate", ROOT / "docs" / "evaluate-on-smollm2.md"
ORDER = ("none", "rome", "memit", "ft", "ft-l", "alphaedit", "neurons", "random")
TITLES = {
    "counterfact": "CounterFact",
    "fluency": "Free text: entropy and similarity to references",
    "zsre": "zsRE",
    "knowedit": "KnowEdit",
    "mquake": "MQuAKE",
    "symmetry": "Symmetry",
    "synonymy": "Synonymy",
}
AT_ONCE = ("memit", "alphaedit")  # in the samples of all ways: all records are written before any is measured
ALL_WAYS = ("counterfact", "fluency")
CONTRASTED = (
    *("es", "ps", "ns", "tf_exact", "gen_begins", "kl", "ns_plus", "ge", "rs"),
    *("zsre_efficacy", "zsre_paraphrase", "zsre_specificity", "zsre_gen_efficacy", "zsre_gen_paraphrase"),
    *("knowedit_success", "knowedit_portability", "knowedit_locality", "knowedit_gen_success"),
    *("mquake_edit_wise", "mquake_multi_hop", "symmetry_forward", "symmetry_reverse_gain"),
    *("synonymy_forward", "synonymy_accuracy", "synonymy_gen"),
)


def metrics_table(runs: dict[str, dict[str, Any]]) -> str:
    """A row a metric, a column a way to edit; the unedited model first."""
    some = next(iter(runs.values()))
    rows = []
    for name, metric in some["metrics"].items():
        cells = [cell((run.get("post") or run["pre"]).get(name), 2) for run in runs.values()]
        if any(cells):
            arrow = {True: "larger", False: "smaller", None: ""}[metric["higher_is_better"]]
            unit = f" ({metric['unit']})" if metric["unit"] else ""
            rows.append([f"`{name}`{unit}", arrow, *cells])
    return table(["metric", "better", *runs], rows)


def contrasts_table(compared: dict[str, Any], apart: Collection[str]) -> str:
    """Paired differences of the metrics that matter most; Holm's adjustment is over the whole table.

    Ways named in `apart` are compared with each other alone: their columns are of a model that holds all edits.
    """
    found = [
        (pair, name, one)
        for pair, run in compared.items()
        if len({way in apart for way in pair.split(" - ")}) == 1
        for name in CONTRASTED
        if (one := run["contrasts"].get(name)) is not None and one["p"] is not None
    ]
    adjusted = holm([one["p"] for _, _, one in found])
    rows = [
        [pair, f"`{name}`", cell(one["difference"], 2), f"{p:.3f}", "" if one["needed"] is None else str(one["needed"])]
        for (pair, name, one), p in zip(found, adjusted, strict=True)
    ]
    return table(["pair", "metric", "difference", "p (Holm)", "n for 0.05"], rows)


def section(sample: str) -> str:
    """One sample of records."""
    files = {path.stem: json.loads(path.read_text("utf-8")) for path in (RESULTS / sample).glob("*.json")}
    runs = {name: files[name] for name in ORDER if name in files}
    if not runs:
        return ""
    counted = ", ".join(
        f"{name} {run['n']}" + (f" ({run['failed']} failed)" if run["failed"] else "") for name, run in runs.items()
    )
    parts = [f"## {TITLES[sample]}", TEXT[sample], f"Records measured: {counted}.", metrics_table(runs)]
    if files.get("compared"):
        parts.append(contrasts_table(files["compared"], AT_ONCE if sample in ALL_WAYS else ()))
    return "\n\n".join([*parts, TEXT.get(f"after {sample}", "")]).rstrip()


def write() -> None:
    """The page, from what is there."""
    sections = "\n\n".join(text for sample in TITLES if (text := section(sample)))
    atomic_write(PAGE, f"# What each metric says of each way to edit smollm2\n\n{TEXT['intro']}\n\n{sections}\n")
