"""Controls that every instrument shares.

    re-initialised model    the same architecture with fresh weights: what the instrument finds there is not about facts
    other layers            the named layers against all others at the same role
    random sites            the named layers and role against layers and a role drawn at random, the same ones for all facts

What is compared must be named before it is looked at, or chosen on other facts: the largest cell of a map beats its
neighbours by construction.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from palimpsest.errors import InputError
from palimpsest.locate.tracing.maps import Maps, records_of
from palimpsest.locate.tracing.roles import ROLES, roles_of
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
    """Mean over facts of (effect at `role` in `layers`) - (effect at `role` in all other layers).

    Raises:
        InputError: no known fact has the role, or the maps do not have some of the layers, or have no others.
    """
    records = _with_role(maps, role, score)
    differences = []
    for record in records:
        inside = _columns(record, layers)
        outside = [i for i in range(len(record["layers"])) if i not in inside]
        if not outside:
            raise InputError(f"The maps have layers {record['layers']}; name some of them, not all.")
        differences.append(_mean(record, role, inside) - _mean(record, role, outside))
    return cluster_bootstrap(differences, [_cluster(record) for record in records], seed=seed)


def against_random_sites(
    maps: Maps, role: str, layers: Sequence[int], *, draws: int = 199, score: str | None = None, seed: int = 0
) -> tuple[Estimate, float]:
    """The same against random sites of the same size: as many layers, at a role that at least half of the facts have.

    Each draw is one role and one set of layers for all facts, as the named site is; it is not a draw of the named site
    itself. p = (1 + number of draws whose mean over facts reaches the named site's) / (1 + draws).

    Returns:
        (mean over facts of the named site minus the mean of the draws, p)

    Raises:
        InputError: as for `against_other_layers`.
    """
    records, draw = _with_role(maps, role, score), np.random.default_rng(seed)
    size = len(_columns(records[0], layers))
    usual = [name for name in ROLES if 2 * sum(name in _roles(record) for record in records) >= len(records)]
    named = np.array([_mean(record, role, _columns(record, layers)) for record in records])
    drawn = np.full((draws, len(records)), np.nan)
    for i in range(draws):
        name, columns = role, sorted(_columns(records[0], layers))
        while name == role and columns == sorted(_columns(records[0], layers)):
            name = usual[int(draw.integers(len(usual)))]
            columns = sorted(draw.choice(len(records[0]["layers"]), size, replace=False).tolist())
        drawn[i] = [_mean(r, name, columns) if name in _roles(r) else np.nan for r in records]
    reached = int((np.nanmean(drawn, axis=1) >= named.mean()).sum())
    gap = cluster_bootstrap(
        list(named - np.nanmean(drawn, axis=0)), [_cluster(record) for record in records], seed=seed
    )
    return gap, (1 + reached) / (1 + draws)


def _with_role(maps: Maps, role: str, score: str | None) -> list[Mapping[str, Any]]:
    """The known facts that have a token of the role; all with the same layers."""
    found = [record for record in records_of(maps, score) if record["known"] and role in _roles(record)]
    if not found:
        raise InputError(f"No map of a known fact has a token of the role {role!r}.")
    if any(record["layers"] != found[0]["layers"] for record in found):
        raise InputError("Maps that are compared must agree in layers; compare those of one call.")
    return found


def _columns(record: Mapping[str, Any], layers: Sequence[int]) -> list[int]:
    inside = [i for i, l in enumerate(record["layers"]) if l in set(layers)]
    if not inside:
        raise InputError(f"The maps have layers {record['layers']}, got {list(layers)}; name some of theirs.")
    return inside


def _mean(record: Mapping[str, Any], role: str, columns: Sequence[int]) -> float:
    rows = [i for i, name in enumerate(_roles(record)) if name == role]
    return float(np.array(record["effect"])[np.ix_(rows, list(columns))].mean())


def _roles(record: Mapping[str, Any]) -> list[str]:
    return roles_of(len(record["tokens"]), (record["subject"][0], record["subject"][1]))


def _cluster(record: Mapping[str, Any]) -> tuple[str, str]:
    return record["fact"]["relation"], record["fact"]["subject"]
