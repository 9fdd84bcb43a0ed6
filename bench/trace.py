"""Causal tracing: partial runs against one full forward per restoration, side by side in one run.

    python bench/trace.py [--threads 2]

smollm2, float32, 10 noise samples, every layer, three kinds (states, and windows of 10 of MLP and attention outputs), at prompts of
10, 12, 24 and 48 tokens; the longer ones have other sentences before the fact (with the subject first, more of the prompt must
run: that count stands beside). The textbook version is timed on a seeded sample of (token, layer) cells, because all of them take
minutes, and scaled to the whole grid; the partial runs are timed on the whole grid. Counted: layer-tokens, the head included as
the layers it is worth, and no grouping of layers. Last, the same with a bfloat16 model.
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
from oracles.textbook_trace import add_noise, patch_every_cell
from palimpsest.locate.tracing.corruption import noise_draw
from palimpsest.locate.tracing.patching import Patch

ROOT = Path(__file__).parents[1]
SAMPLES, LEVEL, WINDOW = 10, 0.36, 10
KINDS = ("state", "mlp", "attn")
BEFORE = {
    10: "The {}",
    12: "In France the {}",
    24: "Last summer our whole big family travelled by train and by two buses. The {}",
    48: "Last summer our whole family travelled by train and by bus. We slept in small hotels, ate a lot of bread and "
    "cheese, and took far too many good pictures of old churches. The {}",
}
CELLS = {10: 24, 12: 24, 24: 12, 48: 6}


def counted(model: pal.Model, patch: Patch, tokens: int, first: int) -> float:
    """Ratio of work, in layer-tokens: (all samples, tokens and layers, head everywhere) over what must run."""
    layer = sum(p.numel() for p in model.anatomy.layers[0].block.module.parameters())
    head, n = model.anatomy.head.weight.numel() / layer, model.n_layers
    textbook = tokens * n * tokens * (n + head)
    partial = sum((tokens - t) * (n - patch.start(l, n)) + head for t in range(first, tokens) for l in range(n))
    return textbook / partial


def measured(model: pal.Model, tokens: int, kind: str) -> dict[str, object]:
    """Both versions on one prompt."""
    fact = pal.Fact("Eiffel Tower", f"{BEFORE[tokens]} is located in the city of", "Paris")
    encoded = model.encode(fact.text)
    subject = encoded.tokens_of(*fact.subject_span)
    noise = LEVEL * noise_draw(SAMPLES, len(subject), model.anatomy.width, seed=1, fact=fact).numpy()
    token = model.encode_answer(fact.text, "Paris")[0][-1]
    start = time.perf_counter()
    fast = pal.trace(model, fact, kind=kind, samples=SAMPLES, noise_level=LEVEL)
    partial_seconds = time.perf_counter() - start
    rng, grid = np.random.default_rng(0), [(t, l) for t in range(len(encoded)) for l in range(model.n_layers)]
    cells = [grid[i] for i in rng.choice(len(grid), CELLS[tokens], replace=False)]
    blocks = [layer.block.module for layer in model.anatomy.layers]
    parts = {"state": blocks, "mlp": [b.mlp for b in blocks], "attn": [b.self_attn for b in blocks]}
    start = time.perf_counter()
    _, _, slow = patch_every_cell(
        model.net,
        parts,
        ([encoded.ids] * SAMPLES, add_noise(noise, subject)),
        ([encoded.ids], None),
        [token],
        kind=kind,
        window=fast.settings["window"],
        cells=cells,
    )
    textbook_seconds = (time.perf_counter() - start) / (CELLS[tokens] + 1.1) * (len(grid) + 1.1)
    deviation = max(float(np.abs(np.exp(slow[t, l, :, 0]) - fast.restored[t, l]).max()) for t, l in cells)
    patch = Patch(kind, int(str(fast.settings["window"])))
    return {
        "tokens": len(encoded),
        "kind": kind,
        "window": fast.settings["window"],
        "textbook_seconds": round(textbook_seconds, 1),
        "partial_seconds": round(partial_seconds, 1),
        "measured_ratio": round(textbook_seconds / partial_seconds, 2),
        "counted_ratio": round(counted(model, patch, len(encoded), subject[0]), 2),
        "counted_ratio_with_the_subject_first": round(counted(model, patch, len(encoded), 0), 2),
        "largest_deviation": deviation,
    }


def in_bfloat16(model: pal.Model) -> dict[str, object]:
    """The same maps of a bfloat16 model: how fast, and how far from float32 at most."""
    fact = pal.Fact("Eiffel Tower", "The {} is located in the city of", "Paris")
    half = pal.load("smollm2", dtype=torch.bfloat16, check=False)
    result: dict[str, object] = {}
    for kind in KINDS:
        seconds, maps = [], []
        for one in (model, half):
            start = time.perf_counter()
            maps.append(pal.trace(one, fact, kind=kind, samples=SAMPLES, noise_level=LEVEL))
            seconds.append(round(time.perf_counter() - start, 1))
        largest = float(np.abs(maps[0].effect - maps[1].effect).max())
        result[kind] = {
            "float32_seconds": seconds[0],
            "bfloat16_seconds": seconds[1],
            "largest_deviation_of_effect": largest,
        }
    return result


def main() -> None:
    """Measure, print one JSON object."""
    torch.set_num_threads(int(sys.argv[2]) if sys.argv[1:2] == ["--threads"] else 2)
    model = pal.load("smollm2")
    rows = []
    for tokens in BEFORE:
        for kind in KINDS:
            rows.append(measured(model, tokens, kind))
            print(json.dumps(rows[-1]), flush=True)
    memory = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)
    result = {
        "samples": SAMPLES,
        "threads": torch.get_num_threads(),
        "rows": rows,
        "peak_memory_gb": memory,
        "bfloat16": in_bfloat16(model),
    }
    print(json.dumps(result))
    (ROOT / "results" / "bench-trace.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
