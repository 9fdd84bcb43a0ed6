"""Peak memory of one MEMIT batch, which chunks bound whatever the number of facts.

    PALIMPSEST_RECORDS=... python bench/memit_memory.py [--facts 2000] [--threads 2]

smollm2, float32, layers 5 to 9, three contexts. The values are synthetic: delta is drawn at random instead of searched (a search
holds one batch of 32 facts, whose memory bench/memit.py reports), so what is seen here is keys, residuals and solves of all facts.
Counted for 10,000 facts: what grows with the number of facts.
"""

import argparse
import json
import os
import resource
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import palimpsest as pal
from palimpsest.edit.methods.memit import Memit
from palimpsest.edit.search import Found
from palimpsest.edit.walk import CHUNK_TOKENS, KEEP_BYTES
from palimpsest.facts import Fact, read_facts

ROOT = Path(__file__).parents[1]
LAYERS = (5, 6, 7, 8, 9)


class Synthetic(Memit):
    """MEMIT whose values are drawn, half as long as the state they are added to."""

    def _find(self, facts: Sequence[Fact], groups: list[list[int]], states: torch.Tensor, kept: Any) -> list[Found]:
        draw = torch.Generator().manual_seed(0)
        directions = torch.randn(states.shape, generator=draw)
        deltas = 0.5 * states.norm(dim=1, keepdim=True) * directions / directions.norm(dim=1, keepdim=True)
        return [Found(delta, 0, 0.0, 0.0) for delta in deltas]


def peak() -> float:
    """GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    """Measure, print one JSON object."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--facts", type=int, default=2000)
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    model = pal.load("smollm2")
    path = Path(os.environ["PALIMPSEST_RECORDS"]) / "counterfact" / "counterfact_flat.json"
    facts, seen = [], set()
    for fact in read_facts(path).facts:
        if (fact.prompt, fact.subject) not in seen and len(facts) < asked.facts:
            seen.add((fact.prompt, fact.subject))
            facts.append(fact)
    editor = Synthetic(model, layers=LAYERS, moment_weight=2500.0, contexts=((10, 2),))
    before, start = peak(), time.perf_counter()
    edit = editor.edit(facts)
    width, out = 1536, model.anatomy.width
    tokens = (
        sum(len(model.encode(context + fact.text).ids) for fact in facts[:100] for context in editor.contexts) / 100
    )
    per_fact = {
        "residuals, values and states (float32)": 4 * 4 * out,
        "token ids, mask and positions (int64)": round(3 * 8 * tokens),
    }
    result = {
        "facts": len(facts),
        "values": "synthetic",
        "seconds": round(time.perf_counter() - start, 1),
        "peak_gb_before": round(before, 2),
        "peak_gb": round(peak(), 2),
        "bytes_per_fact": per_fact,
        "bounded_gb": {
            "residual streams kept between layers": KEEP_BYTES / 2**30,
            "one chunk of keys and states": round(CHUNK_TOKENS * (width + 2 * out) * 4 / 2**30, 3),
            "K^T K, R^T K, C and its factor (float64)": round(8 * (3 * width**2 + out * width) / 2**30, 3),
        },
        "counted_gb_more_for_10000_facts": round((10_000 - len(facts)) * sum(per_fact.values()) / 2**30, 3),
        "payloads": [type(payload).__name__ for payload in edit.payloads],
    }
    print(json.dumps(result))
    (ROOT / "results" / "bench-memit-memory.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
