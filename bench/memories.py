"""Training a memory: plainly, and as the library does it, side by side.

    PALIMPSEST_RECORDS=data/ python bench/memories.py [--facts 4] [--steps 5] [--threads 1]

smollm2, float32, CounterFact records. GRACE learns one value a fact, WISE one side copy for all, with the settings of the preset
"fixed", except that every step is taken, and that WISE has no examples and keeps all it learnt. Plain is the training of the
tests: every layer and every token, one prompt after the other. The library runs the layers below the memory and the tokens before
the last one of the prompt once, and all prompts in one batch. What WISE writes and reads before it trains is in neither.
"""

import argparse
import json
import os
import resource
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import palimpsest as pal
from oracles import textbook_memories as textbook
from palimpsest.edit.memories.codebook import Codebook
from palimpsest.edit.memories.grace import Grace
from palimpsest.edit.memories.side import Side
from palimpsest.edit.memories.wise import Wise
from palimpsest.facts import Fact
from palimpsest.model import Model, Site, pad

ROOT = Path(__file__).parents[1]


def apart(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Norm of the difference over the norm of the expected one."""
    return float((found - expected).norm() / expected.norm())


def grace(model: Model, facts: list[Fact], steps: int) -> dict[str, float]:
    """One value a fact."""
    editor = Grace(model, steps=steps, stop_below=0.0, radius=1e-6)
    site, down = Site("value", editor.layer), model.anatomy.down(editor.layer).module
    begun = time.process_time()
    expected = []
    for fact in facts:
        asked = textbook.asked_of(model, fact)
        begin = model.record(pad([asked.ids[: asked.begin]]), [site])[site][0, -1]
        expected.append(textbook.trained_value(model.net, down, [asked], begin, steps, 1.0))
    between = time.process_time()
    (book,) = editor.edit(facts).payloads
    ended = time.process_time()
    assert isinstance(book, Codebook)
    return {"plain": between - begun, "fast": ended - between, "apart": apart(book.values, torch.stack(expected))}


def wise(model: Model, facts: list[Fact], steps: int) -> dict[str, float]:
    """One side copy."""
    editor = Wise(model, steps=steps, density=1.0, examples=())
    side, down = editor.settings.side, model.anatomy.down(editor.layer).module
    prefixes = ("", *editor.prefixes)
    asked = [textbook.asked_of(model, replace(fact, prompt=text + fact.prompt)) for text in prefixes for fact in facts]
    elsewhere = editor._elsewhere(facts)
    begin = torch.randn(editor.shape, generator=torch.Generator().manual_seed(side.seed)) * 1e-4
    begun = time.process_time()
    editor._elsewhere(facts)
    reading = time.process_time() - begun
    begun = time.process_time()
    expected = textbook.trained_side(model.net, down, asked, elsewhere, begin, steps, side.learning_rate)
    between = time.process_time()
    (payload,) = editor.edit(facts).payloads
    ended = time.process_time()
    assert isinstance(payload, Side)
    return {"plain": between - begun, "fast": ended - between - reading, "apart": apart(payload.deltas[0], expected)}


def main() -> None:
    """Measure, print one JSON object, keep it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--facts", type=int, default=4)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    model = pal.load("smollm2")
    model.net.requires_grad_(False)
    source = Path(os.environ["PALIMPSEST_RECORDS"]) / "counterfact" / "counterfact_flat.json"
    facts = list(pal.read_facts(source, limit=given.facts))
    result: dict[str, object] = {"facts": len(facts), "steps": given.steps, "threads": given.threads}
    for name, measure in (("grace", grace), ("wise", wise)):
        measure(model, facts[:1], 1)  # the first run of a process warms up
        found = measure(model, facts, given.steps)
        result[name] = {
            "plain_cpu_seconds_a_step": round(found["plain"] / given.steps, 3),
            "cpu_seconds_a_step": round(found["fast"] / given.steps, 3),
            "ratio": round(found["plain"] / found["fast"], 2),
            "relative_difference": float(f"{found['apart']:.2g}"),
        }
    result["peak_memory_gb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)
    print(json.dumps(result))
    (ROOT / "results" / "bench-memories.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
