"""Causal tracing of states: partial runs against one full forward per restoration, side by side in one run.

    python bench/trace.py [--threads 2]

smollm2, float32, one prompt of about ten tokens, 10 noise samples, every layer. The textbook version is timed on a seeded
sample of (token, layer) cells, because all of them take minutes, and scaled to the whole grid; the partial runs are timed on
the whole grid. Counted: layer-tokens, the head included as the layers it is worth.
"""

import json
import resource
import sys
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import palimpsest as pal
from oracles.textbook_trace import trace_states
from palimpsest.locate.corruption import noise_draw

ROOT = Path(__file__).parents[1]
CELLS, SAMPLES = 40, 10


def counted(model: pal.Model, tokens: int, first: int) -> float:
    """Ratio of work, in layer-tokens: (all samples, tokens and layers, head everywhere) over what runs here."""
    layer = sum(p.numel() for p in model.anatomy.layers[0].block.module.parameters())
    head = model.anatomy.head.weight.numel() / layer
    n = model.n_layers
    textbook = tokens * n * SAMPLES * tokens * (n + head)
    partial = sum(SAMPLES * ((tokens - t) * (n - l - 1) + head) for t in range(first, tokens) for l in range(n))
    return textbook / partial


def main() -> None:
    """Measure, print one JSON object."""
    torch.set_num_threads(int(sys.argv[2]) if sys.argv[1:2] == ["--threads"] else 2)
    model = pal.load("smollm2")
    fact = pal.Fact(subject="Eiffel Tower", prompt="The {} is located in the city of", target_true="Paris")
    encoded = model.encode(fact.text)
    subject = encoded.tokens_of(*fact.subject_span)
    level = 0.36
    noise = level * noise_draw(SAMPLES, len(subject), model.anatomy.width, seed=1, fact=fact).numpy()
    token = model.encode_answer(fact.text, "Paris")[0][-1]
    start = time.perf_counter()
    fast = pal.trace(model, fact, samples=SAMPLES, noise_level=level)
    partial_seconds = time.perf_counter() - start
    rng = np.random.default_rng(0)
    grid = [(t, l) for t in range(len(encoded)) for l in range(model.n_layers)]
    cells = [grid[i] for i in rng.choice(len(grid), CELLS, replace=False)]
    layers = [layer.block.module for layer in model.anatomy.layers]
    start = time.perf_counter()
    with torch.no_grad():
        _, _, slow = trace_states(model.net, layers, encoded.ids, (subject[0], subject[-1] + 1), noise, token, cells)
    textbook_seconds = (time.perf_counter() - start) / (CELLS + 2) * (len(grid) + 2)
    deviation = max(abs(slow[t, l].mean() - fast.restored[t, l].mean()) for t, l in cells)
    result = {
        "tokens": len(encoded),
        "samples": SAMPLES,
        "threads": torch.get_num_threads(),
        "textbook_seconds": round(textbook_seconds, 1),
        "partial_seconds": round(partial_seconds, 1),
        "measured_ratio": round(textbook_seconds / partial_seconds, 2),
        "counted_ratio": round(counted(model, len(encoded), subject[0]), 2),
        "largest_deviation": float(deviation),
        "peak_memory_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }
    print(json.dumps(result))
    (ROOT / "results" / "bench-trace.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
