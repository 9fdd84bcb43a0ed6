"""ROME with the published settings: partial runs against the textbook version, side by side in one run.

    python bench/rome.py [--threads 2]

smollm2, float32, preset rome-2022: 21 contexts, 20 steps, no early stop, the same contexts and second moment for both.
"""

import json
import resource
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import palimpsest as pal
from oracles.textbook_rome import textbook_rome
from palimpsest.edit.keys import edited_token
from palimpsest.edit.methods.rome import Rome

ROOT = Path(__file__).parents[1]


def counted(model: pal.Model, fact: pal.Fact, contexts: tuple[str, ...], layer: int, steps: int = 20) -> float:
    """Multiplications of the textbook over ours: rows of layers, forward and back, and of the head, in every step."""
    block = sum(p.numel() for p in model.anatomy.layers[0].block.module.parameters())
    head, above = model.anatomy.head.weight.numel(), model.n_layers - layer
    rows = [edited_token(model, context, fact) for context in contexts]
    whole = [model.encode_answer(context + fact.text, str(fact.target_new))[0] for context in contexts]
    longest = max(len(ids) for ids in whole) - 1
    after = max(len(ids) - 1 - at for ids, (_, at) in zip(whole, rows, strict=True))
    answers = max(len(ids) - len(prompt) for ids, (prompt, _) in zip(whole, rows, strict=True))
    n = len(contexts) + 1
    slow = steps * n * longest * (block * (model.n_layers + above) + 2 * head)
    fast = steps * n * (after * block * 2 * above + answers * 2 * head) + n * longest * block * model.n_layers
    return slow / fast


def main() -> None:
    """Measure, print one JSON object."""
    torch.set_num_threads(int(sys.argv[2]) if sys.argv[1:2] == ["--threads"] else 2)
    model = pal.load("smollm2")
    fact = pal.Fact(
        subject="Eiffel Tower", prompt="The {} is located in the city of", target_true="Paris", target_new="Rome"
    )
    editor = Rome(model, preset="rome-2022", stop_below=0.0)
    start, cpu = time.perf_counter(), time.process_time()
    edit = editor.edit([fact])
    partial_seconds, partial_cpu = time.perf_counter() - start, time.process_time() - cpu
    layer = editor.layers[0]
    down = model.anatomy.down(layer).module
    start, cpu = time.perf_counter(), time.process_time()
    slow = textbook_rome(
        model.net,
        model.tokenizer,
        down,
        fact,
        editor.contexts,
        editor.moments[layer].matrix,
        preset="rome-2022",
        stop_below=0.0,
    )
    textbook_seconds, textbook_cpu = time.perf_counter() - start, time.process_time() - cpu
    update = edit.payloads[0].u @ edit.payloads[0].v
    result = {
        "contexts": len(editor.contexts),
        "steps": 20,
        "layer": layer,
        "threads": torch.get_num_threads(),
        "textbook_seconds": round(textbook_seconds, 1),
        "partial_seconds": round(partial_seconds, 1),
        "measured_ratio": round(textbook_seconds / partial_seconds, 2),
        "processor_ratio": round(textbook_cpu / partial_cpu, 2),  # which other work on the machine does not change
        "counted_ratio": round(counted(model, fact, editor.contexts, layer), 2),
        "relative_deviation_of_update": float((update - slow.update).norm() / slow.update.norm()),
        "peak_memory_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }
    print(json.dumps(result))
    (ROOT / "results" / "bench-rome.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
