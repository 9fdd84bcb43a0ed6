"""Second moments of layers 5 to 9: one pass for all, against layer by layer, side by side in one run.

    python bench/moments.py [--threads 1]

smollm2, float32, the same tokens of the shipped text for both. The textbook (tests/oracles/textbook_moments.py) reads the text
once a layer, stops at that layer, and takes a.T @ a in full. Counted: layer-passes, and floating-point operations with the
linear maps of the layers and the products of the keys (attention scores left out, they are small here). The ratio is that of
processor seconds, which neighbours on the machine disturb less than the clock; both are told.
"""

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import palimpsest as pal
from oracles.textbook_moments import textbook_moments
from palimpsest.edit.moments import collect_moments
from palimpsest.edit.moments.triangle import add_outer
from palimpsest.facts import shipped_text
from palimpsest.model.anatomy import is_linear

ROOT = Path(__file__).parents[1]
LAYERS = range(5, 10)


def main() -> None:
    """Measure, print one JSON object."""
    torch.set_num_threads(int(sys.argv[2]) if sys.argv[1:2] == ["--threads"] else 1)
    model, text = pal.load("smollm2"), shipped_text()
    collect_moments(model, [0], text, tokens=2048)  # so that neither pays for the first pass
    moments, one_pass_clock, one_pass = timed(lambda: collect_moments(model, LAYERS, text))
    tokens, one_pass_memory = moments[LAYERS[0]].count, peak_memory_gb()
    downs = [model.anatomy.down(layer).module for layer in LAYERS]
    book, textbook_clock, textbook = timed(lambda: textbook_moments(model.net, model.tokenizer, downs, text, tokens))
    assert all(count == tokens for _, count in book)
    layer_passes = sum(layer + 1 for layer in LAYERS), max(LAYERS) + 1
    operations = counted_operations(model)
    result = {
        "layers": list(LAYERS),
        "tokens": tokens,
        "threads": torch.get_num_threads(),
        "textbook_seconds": round(textbook_clock, 1),
        "one_pass_seconds": round(one_pass_clock, 1),
        "textbook_processor_seconds": round(textbook, 1),
        "one_pass_processor_seconds": round(one_pass, 1),
        "measured_ratio": round(textbook / one_pass, 2),
        "product_ratio": round(product_ratio(moments[LAYERS[0]].width), 2),
        "counted_layer_passes": list(layer_passes),
        "counted_ratio_layer_passes": round(layer_passes[0] / layer_passes[1], 2),
        "counted_ratio_operations": round(operations[0] / operations[1], 2),
        "largest_relative_deviation": max(
            float((moments[layer].matrix - c.double()).norm() / moments[layer].matrix.norm())
            for layer, (c, _) in zip(LAYERS, book, strict=True)
        ),
        "peak_memory_gb": one_pass_memory,
        "peak_memory_gb_with_textbook": peak_memory_gb(),
    }
    print(json.dumps(result))
    (ROOT / "results" / "bench-moments.json").write_text(json.dumps(result, indent=1) + "\n")


def timed(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """What `work` returns, its seconds by the clock, and its seconds of the processor."""
    clock, processor = time.perf_counter(), time.process_time()
    found = work()
    return found, time.perf_counter() - clock, time.process_time() - processor


def product_ratio(width: int) -> float:
    """Time of keys.T @ keys over that of one triangle of it, both added to a float64 sum; the medians of nine."""
    keys, total = torch.randn(2048, width), torch.zeros(width, width, dtype=torch.float64)

    def whole() -> None:
        total.add_(keys.T @ keys)

    def median(work: Callable[[], Any]) -> float:
        return sorted(timed(work)[2] for _ in range(9))[4]

    return median(whole) / median(lambda: add_outer(total, keys))


def counted_operations(model: pal.Model) -> tuple[int, int]:
    """Per token: of the textbook, and of one pass that computes one triangle of each product."""

    def below(layer: int) -> int:
        """Layers 0 to `layer`, the last without its down-projection."""
        blocks = [part.block.module for part in model.anatomy.layers[: layer + 1]]
        maps = [module for block in blocks for module in block.modules() if is_linear(module)]
        return 2 * (sum(module.weight.numel() for module in maps) - model.anatomy.down(layer).module.weight.numel())

    width = model.anatomy.down(LAYERS[0]).module.in_features
    textbook = sum(below(layer) + 2 * width**2 for layer in LAYERS)
    return textbook, below(max(LAYERS)) + len(LAYERS) * width * (width + 1)


def peak_memory_gb() -> float:
    """Of this process so far."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)


if __name__ == "__main__":
    main()
