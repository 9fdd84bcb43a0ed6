"""How many tokens second moments need: what fewer or more change on smollm2, against other text.

    [PALIMPSEST_RECORDS=...] python experiments/moments_smollm2.py run    # results/moments/; about six minutes of one core
    python experiments/moments_smollm2.py page                            # docs/moments-on-smollm2.md

Every second (WikiText: third) document of a corpus is held out. C from the first 1, 2, 5, ... times the key width of tokens of the
rest is compared with C from 20 times the key width of the held-out documents, which it shares none with: nested samples would look
alike however few they are. What is compared is what an editor uses, C^-1 k* for the keys of 40 shipped facts at the subject's last token.
The budgets are nested in each other, so each is the sum of disjoint pieces and the text is read once.
"""

import json
import os
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import palimpsest as pal
from palimpsest.edit.moments import TOKENS_PER_KEY_WIDTH, SecondMoment, collect_moments
from palimpsest.facts import Fact, read_facts, shipped_text
from palimpsest.model import Site, pad
from palimpsest.runs import atomic_write
from palimpsest.statistics import cluster_bootstrap

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results" / "moments"
LAYERS = (5, 9)
BUDGETS = {
    "shipped": (1, 2, 5, 10, 20),
    "wikitext": (1, 2, 5, 10, 20, 40),
}  # times the key width; what the text suffices for
HELD_OUT = {"shipped": 2, "wikitext": 3}  # every so manieth document is of the reference
REFERENCE = 20  # times the key width
EVERY_FACT = 10  # of about 400


def corpus(name: str) -> list[str]:
    """Documents of a corpus."""
    if name == "shipped":
        return shipped_text().split("\n\n")
    plain = (Path(os.environ["PALIMPSEST_RECORDS"]) / "text" / "wikitext-2.valid.raw.txt").read_text("utf-8")
    return [part.strip() for part in plain.split(" \n \n") if part.strip()]


def keys_of(model: pal.Model, facts: list[Fact]) -> dict[int, Tensor]:
    """Per layer the keys of the bare prompts at the subject's last token, one a column."""
    rows = []
    for fact in facts:
        encoded = model.encode(fact.text)
        rows.append(encoded.ids[: encoded.tokens_of(*fact.subject_span)[-1] + 1])
    batch = pad(rows)
    states = model.record(batch, [Site("key", layer) for layer in LAYERS])
    return {layer: states[Site("key", layer)][torch.arange(len(rows)), batch.last].double().T for layer in LAYERS}


def pieces(model: pal.Model, documents: list[str], budgets: list[int]) -> list[tuple[str, int]]:
    """Consecutive texts and how many tokens of each to read, so that the first i together hold budgets[i - 1]."""
    found, rest = [], iter(documents)
    for more in (b - a for a, b in zip([0, *budgets], budgets, strict=False)):
        taken: list[str] = []
        held = 0
        while held < more:
            document = next(rest)
            taken.append(document)
            held += min(256, len(model.tokenizer(document).input_ids))
        found.append(("\n\n".join(taken), more))
    return found


def added(one: SecondMoment | None, other: SecondMoment) -> SecondMoment:
    """C of two disjoint samples together."""
    if one is None:
        return other
    count = one.count + other.count
    return SecondMoment((one.count * one.matrix + other.count * other.matrix) / count, count, other.provenance)


def measure(name: str, model: pal.Model) -> dict[str, Any]:
    """All budgets of one part of a corpus against the other part."""
    documents, facts = corpus(name), list(read_facts("shipped").facts)[::EVERY_FACT]
    width, keys = model.anatomy.down(LAYERS[0]).module.in_features, keys_of(model, facts)
    budgets = [times * width for times in BUDGETS[name]]
    last = HELD_OUT[name] - 1
    held_out = "\n\n".join(documents[last :: HELD_OUT[name]])
    read = [document for i, document in enumerate(documents) if i % HELD_OUT[name] != last]
    reference = collect_moments(model, LAYERS, held_out, tokens=REFERENCE * width)
    wanted = {layer: moment.solve(keys[layer]) for layer, moment in reference.items()}
    so_far: dict[int, SecondMoment | None] = dict.fromkeys(LAYERS)
    rows, seconds = [], 0.0
    for times, (text, tokens) in zip(BUDGETS[name], pieces(model, read, budgets), strict=True):
        start = time.process_time()
        piece = collect_moments(model, LAYERS, text, tokens=tokens)
        seconds += time.process_time() - start
        for layer in LAYERS:
            so_far[layer] = moment = added(so_far[layer], piece[layer])
            rows.append(
                {"layer": layer, "times": times, "seconds": round(seconds, 1)}
                | _row(moment, keys[layer], wanted[layer], facts)
            )
        print(name, rows[-1], flush=True)
    return {
        "corpus": name,
        "width": width,
        "facts": [fact.id for fact in facts],
        "reference_tokens": reference[LAYERS[0]].count,
        "reference": [{"layer": layer} | _report(moment) for layer, moment in reference.items()],
        "rows": rows,
        "weights": model.fingerprint(),
        "threads": torch.get_num_threads(),
        "versions": {package: metadata.version(package) for package in ("torch", "transformers")},
        "directions": {"cosine": "higher is nearer", "relative_distance": "lower is nearer"},
    }


def _report(moment: SecondMoment) -> dict[str, Any]:
    report = moment.report()
    wanted = ("tokens", "condition", "smallest_eigenvalue", "largest_eigenvalue", "solvable", "null_space")
    return {name: report[name] for name in wanted}


def _row(moment: SecondMoment, keys: Tensor, wanted: Tensor, facts: list[Fact]) -> dict[str, Any]:
    if moment.problem is not None:
        return _report(moment) | {"cosine": None, "lowest_cosine": None, "relative_distance": None}
    found = moment.solve(keys)
    clusters = [(fact.relation, fact.subject) for fact in facts]
    cosine = torch.cosine_similarity(found, wanted, dim=0)
    distance = (found - wanted).norm(dim=0) / wanted.norm(dim=0)
    return _report(moment) | {
        "cosine": cluster_bootstrap(cosine.tolist(), clusters).to_json(),
        "lowest_cosine": float(cosine.min()),
        "relative_distance": cluster_bootstrap(distance.tolist(), clusters).to_json(),
    }


def run() -> None:
    """Measure what is missing."""
    model = pal.load("smollm2")
    for name in BUDGETS:
        path = RESULTS / f"{name}.json"
        if path.is_file() or (name != "shipped" and "PALIMPSEST_RECORDS" not in os.environ):
            continue
        found = measure(name, model)
        RESULTS.mkdir(parents=True, exist_ok=True)
        atomic_write(path, json.dumps(found, indent=1) + "\n")


def main() -> None:
    """`run` or `page`."""
    if sys.argv[1:2] == ["page"]:
        from moments_smollm2_page import write_page  # beside this file

        write_page(
            {path.stem: json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))}, TOKENS_PER_KEY_WIDTH
        )
    else:
        run()


if __name__ == "__main__":
    main()
