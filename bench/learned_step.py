"""A step of MEND's training: the plain one, that of `palimpsest train`, and the same when its records come again, side by side.

    PALIMPSEST_RECORDS=data/ python bench/learned_step.py [--rounds 2] [--threads 1]

smollm2, float32, zsRE records, the preset "fixed": 10 records a step, every map of the MLP of the last three layers.
Each round takes one batch; all three find the losses and the gradient, and Adam, which is the same for all, is left out. What
rounding alone does to a gradient is seen in a plain step that takes the signals of each record by themselves (the first round).
"""

import argparse
import json
import os
import resource
import sys
import time
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import palimpsest as pal
from oracles.textbook_learned import Example, plain_step
from palimpsest.edit.learned.change import network_of
from palimpsest.edit.learned.examples import drawn
from palimpsest.edit.learned.frozen import Frozen
from palimpsest.edit.learned.ranks import Ranks
from palimpsest.edit.learned.settings import LAST, settings_for
from palimpsest.edit.learned.signals import edited_maps
from palimpsest.edit.learned.training import add_gradients
from palimpsest.model import Model

ROOT = Path(__file__).parents[1]


def clocks() -> tuple[float, float]:
    """Wall clock, and processor time of this process alone."""
    return time.perf_counter(), time.process_time()


def apart(network: torch.nn.Module, expected: dict[str, Tensor]) -> float:
    """Norm of the difference of two gradients over the norm of the expected one."""
    pairs = [(weight.grad, expected[name]) for name, weight in network.named_parameters() if weight.grad is not None]
    difference = sum(float((found - wanted).square().sum()) for found, wanted in pairs)
    return (difference / sum(float(wanted.square().sum()) for _, wanted in pairs)) ** 0.5


def measured(model: Model, batches: list[list[Example]], frozen: Frozen) -> dict[str, float]:
    """Seconds and processor seconds of each kind of step, and how far their gradients are apart."""
    settings = settings_for("mend", "fixed", {})
    weights = settings.learning.edit_weight, settings.learning.locality_weight
    spent = {f"{kind}_{unit}": 0.0 for kind in ("plain", "first", "again") for unit in ("seconds", "processor")}
    differences, rounding = [], 0.0
    for number, batch in enumerate(batches):
        plain, first, again, other = (network_of(model, settings, frozen.paths) for _ in range(4))
        times = [clocks()]
        expected = plain_step(model, plain, frozen.paths, batch, *weights).gradients
        times.append(clocks())
        for network in (first, again):
            add_gradients(frozen, network, batch, *weights, Ranks())
            times.append(clocks())
            differences.append(apart(network, expected))
        for kind, begin, end in zip(("plain", "first", "again"), times[:-1], times[1:], strict=True):
            spent[f"{kind}_seconds"] += (end[0] - begin[0]) / len(batches)
            spent[f"{kind}_processor"] += (end[1] - begin[1]) / len(batches)
        if number == 0:
            plain_step(model, other, frozen.paths, batch, *weights, alone=True)
            rounding = apart(other, expected)
    return {**spent, "relative_difference_of_gradients": max(differences), "of_two_plain_steps": rounding}


def main() -> None:
    """Measure, print one JSON object, keep it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    model = pal.load("smollm2")
    source = Path(os.environ["PALIMPSEST_RECORDS"]) / "zsre" / "zsre_mend_eval.json"
    facts = list(pal.read_facts(source, limit=10 * (given.rounds + 1)))
    batches = [drawn(facts, 10, step, 0) for step in range(given.rounds + 1)]
    frozen = Frozen(model, edited_maps(model, None, "mlp", LAST))
    with model.evaluating():
        measured(model, [batches[-1][:2]], Frozen(model, frozen.paths))  # the first run of a process warms up
        found = measured(model, batches[:-1], frozen)
    result = {
        "records": 10 * given.rounds,
        "threads": torch.get_num_threads(),
        "layers": [frozen.start, model.n_layers - 1],
        **{
            name: round(value, 2) if name.endswith(("_seconds", "_processor")) else value
            for name, value in found.items()
        },
        "processor_ratio_first": round(found["plain_processor"] / found["first_processor"], 2),
        "processor_ratio_again": round(found["plain_processor"] / found["again_processor"], 2),
        "kept_mib_a_record": round(frozen.taken / 2**20 / (10 * given.rounds), 2),
        "peak_memory_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }
    print(json.dumps(result))
    (ROOT / "results" / "bench-learned-step.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
