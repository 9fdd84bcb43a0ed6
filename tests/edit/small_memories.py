"""Memories of tiny models, made in a second: what the tests of memories share."""

from collections.abc import Sequence
from typing import Any

import palimpsest as pal
from oracles.small import FACTS, LAYER
from palimpsest.edit import Edit
from palimpsest.facts import Fact
from palimpsest.model import Model

SETTINGS: dict[str, dict[str, Any]] = {
    "grace": {"layers": LAYER, "radius": 0.05, "learning_rate": 0.5, "steps": 40},
    "wise": {
        "layers": LAYER,
        "steps": 25,
        "learning_rate": 3e-2,
        "prefixes": (8, 1),
        "unrelated": (20, 20),
        "shards": 2,
        "mask": 0.7,
    },
    "in-context": {"retriever": "bm25"},
    "serac": {"retriever": "keys", "examples": pal.read_facts("shipped").facts[::33]},
}
UNRELATED = "Twelve plain words about nothing"


def made(model: Model, method: str, facts: Sequence[Fact] = FACTS, **settings: Any) -> Edit:
    return pal.edit(model, facts, method=method, **{**SETTINGS[method], **settings})
