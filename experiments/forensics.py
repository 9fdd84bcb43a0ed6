"""Forensics on edits of `world`: layers found from weights alone, subjects and answers decoded, false alarms; and its page.

python experiments/forensics.py run           # an hour of one core at most; what is done is kept in run/forensics/
python experiments/forensics.py page          # docs/forensics-measured.md from results/forensics-world.json
"""

import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import palimpsest as pal
from pages import cell, table
from palimpsest.edit.artefact import Edit
from palimpsest.edit.moments import cached_moments
from palimpsest.erase.forensics import decode, removal, scan
from palimpsest.erase.forensics.decode import subject_keys
from palimpsest.facts import Fact, shipped_text
from palimpsest.locate.known import knowledge
from palimpsest.model import Model, pad
from palimpsest.statistics import cluster_bootstrap, proportion
from palimpsest.world import made_world
from palimpsest.world.records import record
from palimpsest.world.relations import relations

ROOT = Path(__file__).parents[1]
RUN, RESULT, PAGE = (
    ROOT / "run" / "forensics" / "world",
    ROOT / "results" / "forensics-world.json",
    ROOT / "docs" / "forensics-measured.md",
)
# `decode` looks for subjects, so two of the four edit the subject's last token; the others are what `palimpsest edit world` does
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "rome": ("rome", {"layers": (3,), "token": "subject_last"}),
    "memit": ("memit", {"layers": (0, 1, 2), "token": "subject_last", "clamp": 4.0, "moment_weight": 100.0}),
    "rome, last token": ("rome", {}),
    "memit, last token": ("memit", {}),
}
EACH = 100  # the first half chooses the thresholds, the second is reported
COPIES = 100
DECODED = ("rome", "memit")
READINGS = ("gap", "evenness")
CANDIDATES = 1000


def facts(model: Model) -> list[Fact]:
    """Facts of the world that the model knows, in an order drawn once."""
    found = made_world().records()
    random.Random(0).shuffle(found)
    some = found[: 4 * EACH]
    return [fact for fact, known in zip(some, knowledge(model, some), strict=True) if known.known][:EACH]


def edits(model: Model, method: str) -> Iterator[tuple[int, Edit]]:
    """One edit a fact, kept in `RUN`."""
    for i, fact in enumerate(facts(model)):
        path = RUN / method / f"{i:03d}.safetensors"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            name, settings = METHODS[method]
            pal.edit(model, [fact], method=name, **settings).save(path)
        yield i, Edit.load(path)


def layers_of(model: Model, edit: Edit) -> set[int]:
    """Layers whose down-projection an edit changes."""
    downs = {f"{layer.down.path}.weight": layer.index for layer in model.anatomy.layers if layer.down is not None}
    return {downs[payload.path] for payload in edit.payloads if payload.path in downs}


def names(model: Model) -> tuple[list[str], list[str]]:
    """Candidate subjects and answers: those of the world, filled up with words of the vocabulary to `CANDIDATES`."""
    world = made_world()
    tokens = [model.tokenizer.convert_tokens_to_string([token]) for token in sorted(model.tokenizer.get_vocab())]
    words = [token.strip() for token in dict.fromkeys(tokens) if token.startswith(" ") and token.strip()]
    random.Random(0).shuffle(words)
    objects = sorted({fact.object for fact in world.facts})
    return [list(dict.fromkeys([*some, *words]))[:CANDIDATES] for some in (world.names, objects)]  # type: ignore[return-value]


def questions() -> list[str]:
    """One prompt a relation: none says which relation was edited."""
    world = made_world()
    first = {fact.relation: fact for fact in world.facts}
    return [record(world, first[name]).prompt for name in relations() if name in first]


def edited_rows(model: Model, base: Model, method: str) -> list[dict[str, Any]]:
    """Every edit scanned, decoded and, without the base, removed."""
    subjects, objects = names(base)
    prompts = questions()
    moments = cached_moments(base, range(base.n_layers), shipped_text())
    keys = subject_keys(base, subjects, range(base.n_layers))
    rows = []
    for i, edit in edits(base, method):
        kept = RUN / f"{method}-rows" / f"{i:03d}.json"
        if not kept.is_file():
            kept.parent.mkdir(parents=True, exist_ok=True)
            fact, row = edit.facts[0], {"fact": edit.facts[0].id, "relation": edit.facts[0].relation}
            row["new before"] = first_probability(model, fact, fact.target_new)
            with edit.applied(model):
                found = scan(model)
                row |= {"found": found.suspect in layers_of(model, edit), "flagged": list(found.flagged)}
                row |= {"layers": sorted(layers_of(model, edit)), "readings": found.to_rows()}
                row["new after"] = first_probability(model, fact, fact.target_new)
                if i >= EACH // 2 and method in DECODED:
                    told = decode(model, base, subjects, objects, keys=keys, moments=moments, prompts=prompts)
                    row |= {"subject": told.subject.rank(fact.subject), "object": told.object.rank(fact.target_new)}
                    row["old"] = told.old.rank(fact.target_true)
                with removal(model, found.suspect).applied(model):
                    row["new removed"] = first_probability(model, fact, fact.target_new)
                    row["old removed"] = first_probability(model, fact, fact.target_true)
            kept.write_text(json.dumps(row))
        rows.append(json.loads(kept.read_text()))
    return rows


@torch.no_grad()
def first_probability(model: Model, fact: Fact, answer: str | None) -> float:
    """Of the first token of an answer after the fact's own prompt."""
    ids, at = model.encode_answer(fact.text, str(answer))
    return float(model.last_logits(pad([ids[:at]])).double().softmax(-1)[0, ids[at]])


def copies(model: Model) -> dict[str, list[dict[str, Any]]]:
    """Unedited models, and copies trained a little: on one fact (FT, FT-L), or, every weight, on ordinary text."""
    found: dict[str, list[dict[str, Any]]] = {"unedited": []}
    for name in ("world", "world-seed1", "world-plain", "world-llama"):
        found["unedited"].append(scan(pal.load(name, check=False)).to_json())
    for preset in ("fixed", "ft-l"):
        found[preset] = []
        for fact in facts(model)[: COPIES // 5]:
            with pal.edit(model, [fact], method="ft", preset=preset).applied(model):
                found[preset].append(scan(model).to_json())
    found["trained on text"] = [scan(trained(seed)).to_json() for seed in range(COPIES // 5)]
    return found


def trained(seed: int, steps: int = 20, rate: float = 1e-4) -> Model:
    """A copy of `world` whose every weight was trained on its own facts' plain sentences."""
    model = pal.load("world", check=False)
    draw, texts = random.Random(seed), [f"{f.text} {f.target_true}." for f in made_world().records()]
    model.net.requires_grad_(True)
    optimiser = torch.optim.AdamW(model.net.parameters(), lr=rate)
    for _ in range(steps):
        batch = pad([model.encode(text).ids for text in draw.sample(texts, 16)])
        labels = batch.ids.masked_fill(batch.mask == 0, -100)
        optimiser.zero_grad()
        model.net(input_ids=batch.ids, attention_mask=batch.mask, labels=labels).loss.backward()
        optimiser.step()
    model.net.requires_grad_(False)
    return model


def run() -> None:
    """Measure everything and write the results."""
    base, model = pal.load("world", check=False), pal.load("world", check=False)
    data: dict[str, Any] = {"versions": {"torch": str(torch.__version__)}, "copies": {}, "edits": {}}
    for method in METHODS:
        data["edits"][method] = edited_rows(model, base, method)
    data["copies"] = copies(base)
    RESULT.write_text(json.dumps(data) + "\n")


def share(flags: list[bool]) -> str:
    return f"{cell(proportion(sum(flags), len(flags)).__dict__, 2)} of {len(flags)}"


def median(rows: list[dict[str, Any]], name: str) -> str:
    values = [row[name] for row in rows]
    estimate = cluster_bootstrap(values, [row["relation"] for row in rows], statistic=lambda v: float(np.median(v)))
    return cell(estimate.__dict__, 1)


def thresholds(data: dict[str, Any]) -> dict[str, float]:
    """The largest reading of any unedited layer in the first half: of copies, and of the layers an edit left alone."""
    rows = [row for found in data["copies"].values() for one in found[::2] for row in one["layers"]]
    for edited in data["edits"].values():
        rows += [row for one in edited[: EACH // 2] for row in one["readings"] if row["layer"] not in one["layers"]]
    return {name: max(row[name] for row in rows) for name in READINGS}


def flagged(rows: list[dict[str, Any]], bars: dict[str, float]) -> set[int]:
    """Layers with a reading above its threshold."""
    return {row["layer"] for row in rows if any(row[name] > bars[name] for name in READINGS)}


def page() -> None:
    """The page, from the results alone."""
    data = json.loads(RESULT.read_text())
    bars = thresholds(data)
    halves = {m: rows[EACH // 2 :] for m, rows in data["edits"].items()}
    layers = [
        [
            m,
            share([r["found"] for r in h]),
            share([bool(flagged(r["readings"], bars) & set(r["layers"])) for r in h]),
            share([bool(flagged(r["readings"], bars) - set(r["layers"])) for r in h]),
        ]
        for m, h in halves.items()
    ]
    alarms = [
        [name, share([bool(flagged(one["layers"], bars)) for one in found[1::2]])]
        for name, found in data["copies"].items()
    ]
    told = [[m, *(median(h, name) for name in ("subject", "object", "old"))] for m, h in halves.items() if m in DECODED]
    undone = [
        [
            m,
            *(
                f"{np.mean([r[name] for r in h]):.3f}"
                for name in ("new before", "new after", "new removed", "old removed")
            ),
        ]
        for m, h in halves.items()
    ]
    PAGE.write_text(
        "\n\n".join(
            [
                "# Forensics, measured on `world`",
                "Written by `python experiments/forensics.py run && python experiments/forensics.py page`. One known fact an edit. The "
                "thresholds are the largest readings of unedited layers among half of the edits and copies "
                f"({', '.join(f'{name} {value:.2f}' for name, value in bars.items())}); the other half is shown. Proportions with "
                "Wilson's interval or the rule of three.",
                "## Without the base: the layer",
                table(
                    [
                        "method",
                        "most suspect layer is an edited one",
                        "an edited layer is flagged",
                        "another layer is flagged",
                    ],
                    layers,
                ),
                "## False alarms",
                table(["copy", "any layer flagged"], alarms),
                f"## With the base: whom and what\n\nMedian rank among {CANDIDATES:,} candidates, with an interval over relations.",
                table(["method", "subject", "new answer", "old answer"], told),
                "## The outlying direction taken down, without the base\n\nMean probability of the first token.",
                table(["method", "new, unedited", "new, edited", "new, removed", "old, removed"], undone),
            ]
        )
        + "\n"
    )


if __name__ == "__main__":
    {"run": run, "page": page}[sys.argv[1]]()
