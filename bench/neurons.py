"""Knowledge neurons: batched partial runs against a full forward and backward per step and layer, side by side in one run.

    python bench/neurons.py [--threads 2]

smollm2, float32, one prompt of about ten tokens, 20 midpoint steps, every layer. The textbook version is timed on a seeded
sample of layers and scaled to all of them. A second baseline, layer by layer with the steps as rows of one batch of full
forwards, is what published code does; it is timed on the same layers. Counted: layer-tokens forward and backward, the head as
the layers it is worth.
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
from oracles.textbook_neurons import attribute_layer, key_at_last_token, probability
from palimpsest.locate.neuron.attribution import neurons

ROOT = Path(__file__).parents[1]
LAYERS, STEPS = 6, 20


def counted(model: pal.Model, tokens: int) -> float:
    """Ratio of work in layer-tokens: the textbook runs all tokens and layers forward, and backward from layer l."""
    layer = sum(p.numel() for p in model.anatomy.layers[0].block.module.parameters())
    head = model.anatomy.head.weight.numel() / layer
    n = model.n_layers
    textbook = sum(tokens * (n + head) + tokens * (n - l - 1 + head) for l in range(n))
    partial = sum((n - l + head) + (n - l - 1 + head) for l in range(n))
    return textbook / partial


def layer_by_layer(net: torch.nn.Module, down: torch.nn.Module, ids: list[int], token: int) -> np.ndarray:
    """All steps of one layer as rows of one full forward and backward."""
    key = key_at_last_token(net, down, ids)
    a = (torch.arange(STEPS) + 0.5)[:, None] / STEPS
    path = (a * key).requires_grad_()

    def hook(module, inputs):
        hidden = inputs[0].clone()
        hidden[:, -1] = path
        return (hidden, *inputs[1:])

    handle = down.register_forward_pre_hook(hook)
    logits = net(input_ids=torch.tensor([ids] * STEPS), use_cache=False).logits[:, -1]
    handle.remove()
    (gradient,) = torch.autograd.grad(torch.softmax(logits, -1)[:, token].sum(), path)
    return (key * gradient.mean(0)).double().numpy()


def main() -> None:
    """Measure, print one JSON object."""
    torch.set_num_threads(int(sys.argv[2]) if sys.argv[1:2] == ["--threads"] else 2)
    model = pal.load("smollm2")
    fact = pal.Fact(subject="Eiffel Tower", prompt="The {} is located in the city of", target_true="Paris")
    ids = list(model.encode(fact.text).ids)
    token = model.encode_answer(fact.text, "Paris")[0][-1]
    neurons(model, fact, steps=1, refine=False)  # warm
    start = time.perf_counter()
    fast = neurons(model, fact, steps=STEPS, refine=False)
    partial_seconds = time.perf_counter() - start
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    start = time.perf_counter()
    refined = neurons(model, fact, steps=STEPS)
    refined_seconds = time.perf_counter() - start
    layers = sorted(np.random.default_rng(0).choice(model.n_layers, LAYERS, replace=False).tolist())
    downs = {l: model.anatomy.down(l).module for l in layers}
    start = time.perf_counter()
    slow = {l: attribute_layer(model.net, downs[l], ids, probability(token), steps=STEPS)[0] for l in layers}
    textbook_seconds = (time.perf_counter() - start) / LAYERS * model.n_layers
    start = time.perf_counter()
    rows = {l: layer_by_layer(model.net, downs[l], ids, token) for l in layers}
    rows_seconds = (time.perf_counter() - start) / LAYERS * model.n_layers
    result = {
        "tokens": len(ids),
        "steps": STEPS,
        "layers": model.n_layers,
        "threads": torch.get_num_threads(),
        "textbook_seconds": round(textbook_seconds, 1),
        "layer_by_layer_seconds": round(rows_seconds, 1),
        "partial_seconds": round(partial_seconds, 2),
        "measured_ratio": round(textbook_seconds / partial_seconds, 2),
        "measured_ratio_layer_by_layer": round(rows_seconds / partial_seconds, 2),
        "counted_ratio": round(counted(model, len(ids)), 2),
        "largest_deviation": max(
            float(np.abs(other[l] - fast.attr[l]).max()) for other in (slow, rows) for l in layers
        ),
        "complete_without_refining": fast.complete,
        "refined_seconds": round(refined_seconds, 2),
        "refined_points": sum(refined.points),
        "complete_when_refined": refined.complete,
        "peak_memory_gb": round(memory, 2),
    }
    print(json.dumps(result))
    (ROOT / "results" / "bench-neurons.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
