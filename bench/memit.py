"""MEMIT's value search: many facts in one optimisation against the textbook, one fact at a time, side by side in one run.

    PALIMPSEST_RECORDS=... python bench/memit.py [--threads 2] [--facts 32] [--slow 4]

smollm2, float32, published settings: six contexts, 20 steps, no early stop, delta at the output of layer 9. The textbook (full
forward passes, logits everywhere) is timed on every eighth fact of the batch. Counted: token rows of layers, forward and
backward, that each computes in one step, and rows of the head.
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
from oracles.textbook_memit import compute_z
from palimpsest.edit.keys import edited_token
from palimpsest.edit.methods.memit import Memit
from palimpsest.edit.values import _batches, find_values
from palimpsest.edit.walk import Walk
from palimpsest.facts import Fact, read_facts
from palimpsest.model import Model

ROOT = Path(__file__).parents[1]
LAYER = 9


def counted(model: Model, facts: list[Fact], contexts: tuple[str, ...], steps: int) -> float:
    """Multiplications of the textbook over ours: rows of layers, forward and back, and of the head, padding included."""
    block = sum(p.numel() for p in model.anatomy.layers[0].block.module.parameters())
    head, above, n = model.anatomy.head.weight.numel(), model.n_layers - LAYER - 1, len(contexts) + 1
    slow = fast = 0.0
    for batch in _batches(model, [(fact,) for fact in facts], len(contexts), "subject_last"):
        after, before, answers = [0], [0], [0]
        for fact in (facts[i] for i in batch):
            longest = 0
            for context in contexts:
                prompt, at = edited_token(model, context, fact)
                ids, _ = model.encode_answer(context + fact.text, str(fact.target_new))
                longest = max(longest, len(ids) - 1)
                after.append(len(ids) - 1 - at)
                before.append(at)
                answers.append(len(ids) - len(prompt))
            # the textbook: forward through every layer, back through those above delta, the head at every position
            slow += steps * n * longest * (block * (model.n_layers + above) + 2 * head)
        rows = len(batch) * n
        fast += steps * rows * (max(after) * block * 2 * above + max(answers) * 2 * head)
        fast += rows * (max(before) + 2 * max(after)) * block * model.n_layers
    return slow / fast


def main() -> None:
    """Measure, print one JSON object."""
    parser = argparse.ArgumentParser()
    for name, default in (("threads", 2), ("facts", 32), ("slow", 4)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    model = pal.load("smollm2")
    path = Path(os.environ["PALIMPSEST_RECORDS"]) / "counterfact" / "counterfact_flat.json"
    facts = list(read_facts(path).facts[: asked.facts])
    search = {"steps": 20, "stop_below": 0.0, "learning_rate": 0.5, "clamp": 0.75, "decay": 0.5, "kl_factor": 0.0625}
    editor = Memit(model, preset="memit-2022", layers=(LAYER,), covariance="identity", **search)
    walk = Walk(model, facts, editor.contexts)
    norms = [float(norm) for norm in walk.outputs(LAYER).norm(dim=1)]
    start, cpu = time.perf_counter(), time.process_time()
    found = find_values(model, editor.site, facts, editor.contexts, norms, editor.settings.values)
    seconds, cpu_seconds = (time.perf_counter() - start) / len(facts), (time.process_time() - cpu) / len(facts)
    some = list(range(0, len(facts), max(1, len(facts) // asked.slow)))
    block = model.anatomy.layers[LAYER].block.module
    start, cpu, deviation = time.perf_counter(), time.process_time(), 0.0
    for i in some:
        _, delta = compute_z(
            model.net, model.tokenizer, block, facts[i], editor.contexts, stop_below=0.0, kl_at="subject"
        )
        deviation = max(deviation, float((found[i].delta - delta).norm() / delta.norm()))
    slow, cpu_slow = (time.perf_counter() - start) / len(some), (time.process_time() - cpu) / len(some)
    result = {
        "facts": len(facts),
        "textbook_facts": len(some),
        "contexts": len(editor.contexts),
        "steps": 20,
        "layer": LAYER,
        "threads": torch.get_num_threads(),
        "textbook_seconds_per_fact": round(slow, 2),
        "batched_seconds_per_fact": round(seconds, 2),
        "measured_ratio": round(slow / seconds, 2),
        "processor_ratio": round(cpu_slow / cpu_seconds, 2),
        "counted_ratio": round(counted(model, facts, editor.contexts, 20), 2),
        "relative_deviation_of_delta": deviation,
        "peak_memory_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }
    print(json.dumps(result))
    (ROOT / "results" / "bench-memit.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
