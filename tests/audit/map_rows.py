"""Rows of maps made by hand, and the settings and facts they are about."""

from typing import Any

import numpy as np

from palimpsest.audit.evidence import Evidence
from palimpsest.audit.setting import Place, Setting
from palimpsest.facts import Fact

LAYERS = (0, 2, 4)


def setting_of(ids: tuple[str, ...], *, centre: int = 2, layers: tuple[int, ...] = LAYERS, **given: Any) -> Setting:
    plain = {"model": "made", "weights": "w", "n_layers": 6, "place": Place("mlp", centre, 1), "layers": layers}
    return Setting(**(plain | {"discovery": (), "confirmation": ids} | given))


def facts_of(*relations: str) -> dict[str, Fact]:
    """One fact for each relation named, ids f0, f1, ..."""
    return {f"f{i}": Fact(f"Person {i}", "{} speaks", id=f"f{i}", relation=r) for i, r in enumerate(relations)}


def a_map(
    effects: Any, te: float = 1.0, *, what: str = "restoration", withheld: str = "", **given: Any
) -> dict[str, Any]:
    """A row of one map whose logit differences at the subject give these (layers, samples) effects."""
    table = np.atleast_2d(np.array(effects, dtype=float))
    table = table.T if table.shape[0] == 1 and len(LAYERS) == table.shape[1] else table
    at = te - table if what == "lesion" else table
    patched = np.stack([at, np.zeros_like(at)], axis=-1).tolist()
    return {
        "what": what,
        "known": True,
        "layers": list(LAYERS),
        "clean": [te, 0.0],
        "corrupted": [[0.0, 0.0]] * table.shape[1],
        "subject": patched,
        "last": patched,
        "withheld": {"logit-difference": withheld, "probability": withheld},
    } | given


def one(found: Any, endpoint: str) -> Evidence:
    (evidence,) = [each for each in found if each.endpoint == endpoint]
    return evidence
