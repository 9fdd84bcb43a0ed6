"""CounterFact's scores prompt by prompt against the engine, side by side in one run.

    PALIMPSEST_RECORDS=data/ python bench/evaluate.py [--records 100] [--threads 2]

smollm2, float32, nested CounterFact records: 1 prompt, 2 paraphrases and 10 neighbours each, two answers a prompt. The slow
side is the textbook version of the tests: one prompt, one answer, one forward pass. The fast side is `palimpsest.evaluate` as
anyone calls it. They take turns, `ROUNDS` parts of the records each, so that other work on the machine falls on both.
"""

import argparse
import json
import os
import resource
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import palimpsest as pal
from oracles.textbook_scores import metrics

ROOT = Path(__file__).parents[1]
NAMES = ("es", "em", "ps", "pm", "ns", "nm")
ROUNDS = 2


def clocks() -> tuple[float, float]:
    """Wall clock, and processor time of this process alone."""
    return time.perf_counter(), time.process_time()


def main() -> None:
    """Measure, print one JSON object, and keep it when all records were asked."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--records", type=int, default=100)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    model = pal.load("smollm2")
    source = Path(os.environ["PALIMPSEST_RECORDS"]) / "counterfact" / "counterfact.json"
    facts = list(pal.read_facts(source, limit=given.records))
    pal.evaluate(model, facts[:1])  # the first run of a process warms up
    metrics(model.net, model.tokenizer, facts[0])
    slow, fast, slow_seconds, fast_seconds = [], [], [0.0, 0.0], [0.0, 0.0]
    for part in range(ROUNDS):
        some = facts[part * len(facts) // ROUNDS : (part + 1) * len(facts) // ROUNDS]
        start = clocks()
        fast += [record["pre"] for record in pal.evaluate(model, some).records]
        middle = clocks()
        with model.evaluating():
            slow += [metrics(model.net, model.tokenizer, fact) for fact in some]
        end = clocks()
        fast_seconds = [sum_ + b - a for sum_, a, b in zip(fast_seconds, start, middle, strict=True)]
        slow_seconds = [sum_ + b - a for sum_, a, b in zip(slow_seconds, middle, end, strict=True)]
    gaps = [abs(one[name] - other[name]) for one, other in zip(slow, fast, strict=True) for name in NAMES]
    result = {
        "records": len(facts),
        "prompts": sum(len(fact.wordings) + len(fact.neighbours) for fact in facts),
        "threads": torch.get_num_threads(),
        "prompt_by_prompt_seconds": round(slow_seconds[0], 1),
        "engine_seconds": round(fast_seconds[0], 1),
        "measured_ratio": round(slow_seconds[0] / fast_seconds[0], 2),
        "processor_ratio": round(
            slow_seconds[1] / fast_seconds[1], 2
        ),  # which other work on the machine does not change
        "largest_difference": max(gaps),
        "peak_memory_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }
    print(json.dumps(result))
    if len(facts) >= 100:
        (ROOT / "results" / "bench-evaluate.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
