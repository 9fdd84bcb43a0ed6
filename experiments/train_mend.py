"""Train MEND on the made world, and set it beside fine-tuning, ROME and its own random control on subjects it never saw.

    python experiments/train_mend.py train [--steps N]   # resumable; run/train-mend/editor.safetensors
    python experiments/train_mend.py run                 # resumable; results/train-mend.json
    python experiments/train_mend.py page                # docs/train-mend.md

The world's records are split by subject: 100 facts the model knows, of subjects kept apart, report; all others train and validate.
So nothing of a reported subject was seen, neither by learning nor by the choice of when to stop. The bar: generalisation (PS) above
FT-L's, with a KL divergence on what must stay that is no worse.
"""

import argparse
import json
from pathlib import Path
from random import Random
from typing import Any

import palimpsest as pal
from pages import cell, table
from palimpsest.cli.common import progress_bar
from palimpsest.edit.learned import Learned, train
from palimpsest.facts import Fact
from palimpsest.locate import passing
from palimpsest.model import Model
from palimpsest.runs import atomic_write
from palimpsest.runs.json_text import plain
from palimpsest.world import made_world

ROOT = Path(__file__).parents[1]
FOLDER, RESULTS = ROOT / "run" / "train-mend", ROOT / "results" / "train-mend.json"
PAGE = ROOT / "docs" / "train-mend.md"
REPORT, STEPS = 100, 4000
SHOWN = ("es", "ps", "ns", "strata_same_subject_kept", "kl", "same_subject_kl")
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "mend": ("mend", {"editor": FOLDER / "editor.safetensors"}),
    "random like mend": ("random", {"like": "mend", "editor": FOLDER / "editor.safetensors"}),
    "ft-l": ("ft", {"preset": "ft-l"}),
    "rome": ("rome", {}),
}


def split(model: Model) -> tuple[list[Fact], list[Fact]]:
    """Facts that train, and known facts of other subjects that report."""
    facts = [fact for fact in made_world().records() if fact.target_true and fact.target_new]
    Random(0).shuffle(facts)
    report = passing(model, facts, "known", limit=REPORT)
    kept = {fact.subject for fact in report}
    return [fact for fact in facts if fact.subject not in kept], report


def trained(model: Model, steps: int) -> None:
    """The editor, unless it is there."""
    train(model, split(model)[0], FOLDER, method="mend", steps=steps, progress=progress_bar())


def run(model: Model) -> None:
    """Every method that is missing, one edit a fact, each undone; and the curve of learning."""
    found = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    card = Learned.load(model, FOLDER).card
    found["training"] = {name: card[name] for name in ("history", "unedited", "records", "settings")}
    _, report = split(model)
    for name, (method, settings) in METHODS.items():
        if name not in found:
            scores = pal.evaluate(model, report, method=method, suite="counterfact+strata+locality", **settings)
            found[name] = {m: plain(e.to_json()) for m in scores.metrics if (e := scores.estimate(m)) is not None}
        atomic_write(RESULTS, json.dumps(found, indent=1) + "\n")


def page() -> None:
    """docs/train-mend.md."""
    found = json.loads(RESULTS.read_text())
    training = found["training"]
    curve = [training["unedited"], *training["history"]]
    rows = [[name, *(cell(found[name][metric], 3) for metric in SHOWN)] for name in METHODS]
    learned = [
        ["unedited" if e["step"] is None else str(e["step"]), f"{e['nll']:.3f}", f"{e['kl']:.4f}"] for e in curve
    ]
    records = training["records"]
    text = [
        "# MEND, trained on the made world",
        "",
        "    python experiments/train_mend.py train && python experiments/train_mend.py run && python experiments/train_mend.py page",
        "",
        f"Learned from {records['learning']} records, validated on {records['validation']} of other subjects; reported on {REPORT} known "
        "facts of subjects that neither saw, one edit a fact, with 95 % intervals. Shares are from 0 to 1, KL is in nats.",
        "",
        table(["method", "ES", "PS", "NS", "same subject kept", "KL, neighbours", "KL, same subject"], rows),
        "",
        "How it learned: the loss (nats a token) of the new answer after another wording, and the divergence on what must stay.",
        "",
        table(["step", "loss", "divergence"], learned),
    ]
    atomic_write(PAGE, "\n".join(text) + "\n")


def main() -> None:
    """One of train, run and page."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("task", choices=["train", "run", "page"])
    parser.add_argument("--steps", type=int, default=STEPS)
    given = parser.parse_args()
    if given.task == "page":
        page()
        return
    model = pal.load("world")
    if given.task == "train":
        trained(model, given.steps)
    else:
        run(model)


if __name__ == "__main__":
    main()
