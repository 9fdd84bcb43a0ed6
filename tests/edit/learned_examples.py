"""Facts enough to train a tiny editor on, and a trained one."""

from pathlib import Path
from typing import Any

from palimpsest.edit.learned import train
from palimpsest.facts import Fact, Probe
from palimpsest.model import Model

PLACES = ("Rome", "Paris", "Berlin", "Tokyo")
SMALL: dict[str, Any] = {
    "layers": (1, 2),
    "batch": 4,
    "validation": 0.25,
    "steps": 12,
    "validate_every": 4,
    "learning_rate": 1e-3,
    "rate_rate": 1e-3,
    "edit_weight": 1.0,
}


def facts(count: int = 24) -> list[Fact]:
    """`count` facts of as many subjects, with two other wordings and two texts that stay."""
    return [
        Fact(
            f"House {i}",
            "The {} is in",
            PLACES[i % 4],
            PLACES[(i + 1) % 4],
            id=f"f{i}",
            relation="city",
            paraphrases=(f"You find House {i} in", f"House {i} stands in"),
            neighbours=(Probe(f"Tower {i} is in", PLACES[i % 4]),),
            far=(Probe("The king of the north is"),),
        )
        for i in range(count)
    ]


def trained(model: Model, folder: Path, method: str = "mend", **settings: Any) -> Path:
    """A small training."""
    return train(model, facts(), folder, method=method, **{**SMALL, **settings})
