"""Choose ROME's default layer and key on smollm2, and measure the choice on other facts.

    PALIMPSEST_RECORDS=... python experiments/rome_default.py run [--part A,B]      # resumable; results/rome-default/
    python experiments/rome_default.py page                                        # docs/rome-on-smollm2.md

Chosen on one split, reported on another. The first 50 eligible records of counterfact_flat.json, in file order, choose; the
next 100 eligible ones and 100 known shipped facts report. "Eligible" means the old answer outranks the new one on the
unedited model.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

from palimpsest.edit.moments import TOKENS_PER_KEY_WIDTH
from palimpsest.evaluate import Scores, evaluate
from palimpsest.evaluate.suites.counterfact import METRICS
from palimpsest.facts import read_facts
from palimpsest.locate import passing
from palimpsest.model import load
from palimpsest.runs import atomic_write, load_samples
from palimpsest.statistics import paired_difference

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results" / "rome-default"
WORK = ROOT / "run" / "rome-default"
LAYERS = (3, 5, 7, 9)
CHOOSE, REPORT = 50, 100
# part -> (facts, settings); parts that name a layer of None use the shipped default
GRID: dict[str, tuple[str, dict[str, Any]]] = {
    **{f"choose/layer-{layer}": ("choose", {"layers": (layer,)}) for layer in LAYERS},
}
KEYS: dict[str, dict[str, Any]] = {
    "mean": {"key": "mean", "direction": "mean"},
    "bare": {"key": "bare", "direction": "bare"},
}
FINAL: dict[str, tuple[str, dict[str, Any]]] = {
    "report/counterfact": ("report", {}),
    "report/shipped": ("shipped", {}),
    "report/wikitext": ("report-half", {"text": "wikitext"}),
    "report/rome-2022": ("report-third", {"preset": "rome-2022"}),
}


def records() -> Path:
    """The folder of real benchmark records."""
    return Path(os.environ["PALIMPSEST_RECORDS"])


def chosen_layer() -> int:
    """The layer of the grid with the best score S on the choosing split, by its point estimate."""
    found = _results()
    return max(LAYERS, key=lambda layer: found[f"choose/layer-{layer}"]["post"]["s"]["value"])


def parts() -> dict[str, tuple[str, dict[str, Any]]]:
    """Every part in order; the keys are compared at the chosen layer once the grid is there."""
    later = {}
    if all(f"choose/layer-{layer}" in _results() for layer in LAYERS):
        layers = (chosen_layer(),)
        later = {f"choose/key-{name}": ("choose", {"layers": layers, **settings}) for name, settings in KEYS.items()}
    return {**GRID, **later, **FINAL}


def run(wanted: str | None) -> None:
    """Measure what is missing, part by part."""
    model = load("smollm2")
    flat = read_facts(records() / "counterfact" / "counterfact_flat.json").facts
    eligible = passing(model, flat[:1000], "eligible", limit=CHOOSE + REPORT)
    sets = {
        "choose": eligible[:CHOOSE],
        "report": eligible[CHOOSE:],
        "report-half": eligible[CHOOSE:][: REPORT // 2],
        "report-third": eligible[CHOOSE:][: REPORT // 3],
    }
    for name in list(parts()):
        split, settings = parts()[name]
        if (wanted and name not in wanted.split(",")) or name in _results():
            continue
        if split == "shipped" and split not in sets:
            sets[split] = passing(model, read_facts("shipped").facts, "known")[::3][:REPORT]
        if settings.get("text") == "wikitext":
            plain = (records() / "text" / "wikitext-2.valid.raw.txt").read_text("utf-8").replace(" \n \n", "\n\n")
            settings = {**settings, "text": plain}
        print(f"{name}: {len(sets[split])} facts", flush=True)
        out = WORK / name
        scores = evaluate(model, sets[split], method="rome", out=out, progress=_say, **settings)
        _store(name, scores)
    compare()


def _say(done: int, total: int, label: str) -> None:
    if done % 10 == 0:
        print(f"  {done}/{total} {label}", flush=True)


def _results() -> dict[str, Any]:
    return {
        f"{path.parent.name}/{path.stem}": json.loads(path.read_text()) for path in sorted(RESULTS.glob("*/*.json"))
    }


def _store(name: str, scores: Scores) -> None:
    summary = scores.summary()
    steps = [note["steps"] for record in scores.measured for note in record["edit"]["facts"]]
    summary["mean_steps"] = sum(steps) / len(steps)
    summary["facts"] = [record["id"] for record in scores.measured]
    _write(name, summary)


def _write(name: str, summary: dict[str, Any]) -> None:
    path = RESULTS / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, json.dumps(summary, indent=1) + "\n")


def compare() -> None:
    """Other texts and the other preset against the default on the same records, paired; no new measurement."""
    for name in ("wikitext", "rome-2022"):
        done = (WORK / "report" / name / "samples.jsonl").is_file() and f"report/{name}" in _results()
        if not done or f"compare/{name}" in _results():
            continue
        default = {record["id"]: record for record in load_samples(WORK / "report" / "counterfact")}
        other = load_samples(WORK / "report" / name)
        same = [default[record["id"]] for record in other]
        clusters = [(record["relation"], record["subject"]) for record in same]
        pairs = {
            metric: paired_difference(
                [r["post"][metric] for r in other], [r["post"][metric] for r in same], clusters
            ).to_json()
            for metric in METRICS
        }
        _write(
            f"compare/{name}",
            {"n": len(same), "default": Scores(tuple(same), {}).summary(), "other_minus_default": pairs},
        )


def main() -> None:
    """`run [--part A,B]` or `page`."""
    if sys.argv[1:2] == ["page"]:
        from rome_default_page import write_page  # beside this file

        write_page(_results(), chosen_layer(), TOKENS_PER_KEY_WIDTH)
    else:
        run(sys.argv[3] if sys.argv[2:3] == ["--part"] else None)


if __name__ == "__main__":
    main()
