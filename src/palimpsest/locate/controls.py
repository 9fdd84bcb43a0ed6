"""Controls that every instrument shares.

    re-initialised model    the same architecture with fresh weights: what the instrument finds there is not about facts
    other layers            the named layers against all others at the same role
    random sites            the named cells against as many cells drawn at random

What is compared must be named before it is looked at, or chosen on other facts: the largest cell of a map beats its
neighbours by construction.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from palimpsest.errors import InputError
from palimpsest.locate.maps import Maps, records_of
from palimpsest.locate.roles import roles_of
from palimpsest.model import Model, load
from palimpsest.statistics import Estimate, cluster_bootstrap


def reinitialised(model: Model, *, seed: int = 0) -> Model:
    """A model of the same configuration, tokenizer and dtype whose weights are drawn anew as its family draws them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = type(model.net)(model.net.config).to(dtype=model.net.dtype, device=model.device).eval()
    net.requires_grad_(False)
    fresh = load(net, tokenizer=model.tokenizer, check=False)
    fresh.name = f"{model.name}, re-initialised with seed {seed}"
    return fresh


def against_other_layers(
    maps: Maps, role: str, layers: Sequence[int], *, score: str | None = None, seed: int = 0
) -> Estimate:
    """Mean over facts of (effect at `role` in `layers`) - (effect at `role` in all other layers)."""
    differences, clusters = [], []
    for record, rows in _with_role(maps, role, score):
        inside = [i for i, l in enumerate(record["layers"]) if l in set(layers)]
        outside = [i for i in range(len(record["layers"])) if i not in inside]
        if not inside or not outside:
            raise InputError(f"The maps have layers {record['layers']}; name some of them, not none and not all.")
        differences.append(float(rows[:, inside].mean() - rows[:, outside].mean()))
        clusters.append((record["fact"]["relation"], record["fact"]["subject"]))
    return cluster_bootstrap(differences, clusters, seed=seed)


def against_random_sites(
    maps: Maps, role: str, layers: Sequence[int], *, draws: int = 199, score: str | None = None, seed: int = 0
) -> tuple[Estimate, float]:
    """The same against as many random cells of the same map, drawn `draws` times, and its permutation p.

    p = (1 + number of draws whose average over facts reaches that of the named cells) / (1 + draws).

    Returns:
        (mean over facts of named minus random, p)
    """
    draw = np.random.default_rng(seed)
    named, random, clusters = [], [], []
    for record, rows in _with_role(maps, role, score):
        inside = [i for i, l in enumerate(record["layers"]) if l in set(layers)]
        roles = roles_of(len(record["tokens"]), tuple(record["subject"]))
        cells = np.array(record["effect"])[[i for i, name in enumerate(roles) if name != "before"]].ravel()
        named.append(float(rows[:, inside].mean()))
        size = min(rows.shape[0] * len(inside), len(cells))
        random.append([float(draw.choice(cells, size, replace=False).mean()) for _ in range(draws)])
        clusters.append((record["fact"]["relation"], record["fact"]["subject"]))
    drawn = np.array(random)
    reached = int((drawn.mean(axis=0) >= np.mean(named)).sum())
    gap = cluster_bootstrap(list(np.array(named) - drawn.mean(axis=1)), clusters, seed=seed)
    return gap, (1 + reached) / (1 + draws)


def _with_role(maps: Maps, role: str, score: str | None) -> list[tuple[Mapping[str, Any], np.ndarray]]:
    """Records of known facts that have a token of the role, each with its rows."""
    found = []
    for record in records_of(maps, score):
        roles = roles_of(len(record["tokens"]), tuple(record["subject"]))
        has = [i for i, name in enumerate(roles) if name == role]
        if record["known"] and has:
            found.append((record, np.array(record["effect"])[has]))
    if not found:
        raise InputError(f"No map of a known fact has a token of the role {role!r}.")
    return found
