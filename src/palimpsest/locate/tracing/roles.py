"""Averages of maps over facts, by the role a token has in its prompt.

    before           tokens before the subject; averaged only where something there has an effect (a corrupted subject
                     cannot reach them, a corrupted relation or a lesion can)
    first subject    the first token of a subject of two tokens or more
    middle subject   tokens between the first and the last
    last subject     the last token of the subject (also that of a one-token subject)
    next             the first token after the subject
    further          tokens between that one and the last
    last             the last token of the prompt, whatever else it is: the answer is read there

(Meng et al. 2022, figure 1 and appendix B; there the roles of a token may be two.) Within a fact the tokens of one role are
averaged; facts are averaged with intervals that resample relations and subjects. `pool="tokens"` counts every token alike, as
the published notebook does.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from palimpsest.errors import InputError, SettingError
from palimpsest.locate.tracing.maps import Maps, records_of
from palimpsest.statistics import Estimate, cluster_bootstrap, proportion, ratio_estimate

ROLES = ("before", "first subject", "middle subject", "last subject", "next", "further", "last")
OWN_SETTINGS = frozenset({"answer", "foil", "swapped", "donors", "swap_with"})  # which each fact may have its own way


def roles_of(length: int, subject: tuple[int, int]) -> list[str]:
    """The role of each of `length` tokens, where the subject has tokens [first, end).

    >>> roles_of(7, (1, 4))
    ['before', 'first subject', 'middle subject', 'last subject', 'next', 'further', 'last']
    >>> roles_of(2, (0, 2))
    ['first subject', 'last']
    """
    first, end = subject
    roles = ["before"] * first + ["further"] * (length - first)
    roles[first:end] = ["middle subject"] * (end - first)
    roles[first] = "first subject"
    roles[end - 1] = "last subject"
    if end < length:
        roles[end] = "next"
    roles[-1] = "last"
    return roles


@dataclass(frozen=True, eq=False)
class RoleProfile:
    """An average map: effect by role and layer, each with its interval.

    Attributes:
        label: what was averaged.
        what: "indirect effect" or "lesion effect".
        score: its score.
        layers: l of each column.
        cells: (role, layer) to its estimate; a role that no fact has is absent.
        total_effect: its average over the same facts, or None where nothing was corrupted.
        n: facts averaged.
        unknown: ids of facts whose answer was not the model's first choice: kept apart, not averaged.
    """

    label: str
    what: str
    score: str
    layers: tuple[int, ...]
    cells: dict[tuple[str, int], Estimate]
    total_effect: Estimate | None
    n: int
    unknown: tuple[str, ...]

    @property
    def roles(self) -> list[str]:
        """The roles there are, in order."""
        return [role for role in ROLES if (role, self.layers[0]) in self.cells]

    def line(self, role: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Mean, low and high of one role, by layer."""
        cells = [self.cells[role, l] for l in self.layers]
        return (
            np.array([cell.value for cell in cells]),
            np.array([cell.low for cell in cells]),
            np.array([cell.high for cell in cells]),
        )

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        lines = {role: self.line(role) for role in self.roles}
        return {
            "label": self.label,
            "what": self.what,
            "score": self.score,
            "layers": list(self.layers),
            "n": self.n,
            "clusters": self.cells[self.roles[0], self.layers[0]].clusters,
            "unknown": list(self.unknown),
            "total_effect": None if self.total_effect is None else self.total_effect.to_json(),
            "roles": {
                role: {name: _plain(line) for name, line in zip(("mean", "low", "high"), three, strict=True)}
                for role, three in lines.items()
            },
            "facts_with_role": {role: self.cells[role, self.layers[0]].n for role in self.roles},
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "RoleProfile":
        """From what `to_json` gave."""
        cells = {
            (role, l): Estimate(
                _number(lines["mean"][i]),
                _number(lines["low"][i]),
                _number(lines["high"][i]),
                stored["facts_with_role"][role],
                stored["clusters"],
            )
            for role, lines in stored["roles"].items()
            for i, l in enumerate(stored["layers"])
        }
        total = None if stored["total_effect"] is None else Estimate.from_json(stored["total_effect"])
        return cls(
            stored["label"],
            stored["what"],
            stored["score"],
            tuple(stored["layers"]),
            cells,
            total,
            stored["n"],
            tuple(stored["unknown"]),
        )

    def plot(self) -> object:
        """A figure with one line a role."""
        from palimpsest.locate.tracing.plot import plot_profiles

        return plot_profiles([self])


def average(
    maps: Maps,
    *,
    label: str = "",
    score: str | None = None,
    pool: str = "facts",
    resamples: int = 1000,
    seed: int = 0,
) -> RoleProfile:
    """Average maps over facts by role.

    Args:
        maps: of one kind and score, as objects or as plain data read from a file. Those whose answer is not known are kept
            apart.
        label: what they are.
        score: by which effects are measured; the maps' own when None.
        pool: "facts" (each fact counts once) or "tokens" (each token counts once).
        resamples: of the cluster bootstrap (clusters: relation, then subject).
        seed: of it.

    Raises:
        InputError: there is no map of a known fact, or maps differ in layers, score, direction or a setting.
        SettingError: `pool` is neither.
    """
    if pool not in ("facts", "tokens"):
        raise SettingError(f"Averages pool facts or tokens, got {pool!r}.")
    records, unknown = _known(maps, score)
    one = records[0]
    for name in ("layers", "score", "what"):
        if any(record[name] != one[name] for record in records):
            raise InputError(f"Maps that are averaged must agree in {name}; average those of one call.")
    for name in set().union(*(record["settings"] for record in records)) - OWN_SETTINGS:
        found = {json.dumps(record["settings"].get(name)) for record in records}
        if len(found) > 1:
            raise InputError(f"Maps that are averaged must agree in {name}, got {', '.join(sorted(found)[:3])}.")
    cells: dict[tuple[str, int], Estimate] = {}
    for role in ROLES:
        values: list[np.ndarray] = []
        clusters: list[tuple[str, str]] = []
        for record in records:
            has = [i for i, name in enumerate(_roles(record)) if name == role]
            if has:
                rows = np.array(record["effect"])[has]
                rows = rows if pool == "tokens" else rows.mean(0, keepdims=True)
                values.extend(rows)
                clusters += [_cluster(record)] * len(rows)
        if role == "before" and not np.any(values):
            continue
        for i, l in enumerate(one["layers"] if values else ()):
            column = [float(row[i]) for row in values]
            cells[role, l] = cluster_bootstrap(column, clusters, resamples=resamples, seed=seed)
    totals = [record["total_effect"] for record in records]
    total = None
    if all(value is not None for value in totals):
        total = cluster_bootstrap(totals, [_cluster(record) for record in records], resamples=resamples, seed=seed)
    return RoleProfile(
        label, one["what"], one["score"], tuple(one["layers"]), cells, total, len(records), tuple(unknown)
    )


def decisive_roles(maps: Maps, *, read_out: bool = False, score: str | None = None) -> dict[str, Estimate]:
    """The share of facts whose largest effect stands at a token of each role, with Wilson's interval.

    The last token's late states hold the answer itself, so it is left out unless `read_out` asks for it. Facts whose total
    effect is near zero (`withheld`) have no decisive token, and nor have those of one token; n counts the others.

    Raises:
        InputError: no fact is left.
    """
    records, _ = _known(maps, score)
    found = [
        _decisive(record, read_out) for record in records if not record["withheld"] or record["total_effect"] is None
    ]
    winners = [role for role in found if role]
    if not winners:
        raise InputError(f"None of the {len(records)} known facts has a total effect and a token to choose from.")
    shown = [role for role in ROLES if role != "before" and (read_out or role != "last")]
    return {role: proportion(winners.count(role), len(winners)) for role in shown}


def decisive_by_length(
    maps: Maps, *, read_out: bool = False, score: str | None = None
) -> dict[str, dict[str, Estimate]]:
    """`decisive_roles` of the facts with subjects of one, two, and three or more tokens; a group without facts is absent."""
    result: dict[str, dict[str, Estimate]] = {}
    for name, low, high in (("1", 1, 1), ("2", 2, 2), ("3 or more", 3, None)):
        some = [
            record
            for record in _known(maps, score)[0]
            if low <= _length(record) and (high is None or _length(record) <= high)
        ]
        try:
            result[name] = decisive_roles(some, read_out=read_out) if some else {}
        except InputError:
            continue
    return {name: shares for name, shares in result.items() if shares}


def separability(maps: Maps, *, score: str | None = None, resamples: int = 1000, seed: int = 0) -> dict[str, Estimate]:
    """How separable the early site (the subject's tokens) and the late one (the last token) are.

    With a_l and b_l the positive effects at layer l of the subject's best token and of the last token, each fact gives

        depth difference   (sum_l l b_l / sum_l b_l - sum_l l a_l / sum_l a_l) / (l_max - l_min), late minus early
                           centre, in layers as a share of the mapped span
        overlap            sum_l min(a_l / sum a, b_l / sum b): 1 where both have one profile, 0 where no layer has both

    Facts without a positive effect at one of the two, or whose last token belongs to the subject, are left out; n says how
    many remain.
    """
    records, _ = _known(maps, score)
    differences, overlaps, clusters = [], [], []
    for record in records:
        effect, roles = np.array(record["effect"]), _roles(record)
        subject = [i for i, role in enumerate(roles) if role.endswith("subject")]
        if not subject or record["subject"][1] == len(roles):
            continue
        early = effect[subject].max(0).clip(min=0)
        late = effect[-1].clip(min=0)
        if early.sum() <= 0 or late.sum() <= 0:
            continue
        layers = np.array(record["layers"], dtype=float)
        span = max(layers.max() - layers.min(), 1.0)
        early, late = early / early.sum(), late / late.sum()
        differences.append(float((layers * late).sum() - (layers * early).sum()) / span)
        overlaps.append(float(np.minimum(early, late).sum()))
        clusters.append(_cluster(record))
    if not differences:
        raise InputError("No fact has a positive effect both at its subject and at its last token.")
    return {
        "depth difference": cluster_bootstrap(differences, clusters, resamples=resamples, seed=seed),
        "overlap": cluster_bootstrap(overlaps, clusters, resamples=resamples, seed=seed),
    }


def share_of_total(
    maps: Maps, role: str, layers: Sequence[int], *, score: str | None = None, seed: int = 0
) -> tuple[Estimate, list[str]]:
    """The ratio mean(effect at a role, averaged over layers) / mean(total effect), and who is not in it.

    Choose the layers beforehand, or on other facts. Facts whose total effect is near zero are left out of the ratio, and
    named with their reason.
    """
    records, _ = _known(maps, score)
    above, below, clusters, out = list[float](), list[float](), list[tuple[str, str]](), list[str]()
    for record in records:
        has = [i for i, name in enumerate(_roles(record)) if name == role]
        if record["withheld"] or not has:
            out.append(f"{record['fact']['id']}: {record['withheld'] or 'no token of this role'}")
            continue
        columns = [record["layers"].index(l) for l in layers]
        above.append(float(np.array(record["effect"])[np.ix_(has, columns)].mean()))
        below.append(record["total_effect"])
        clusters.append(_cluster(record))
    if not above:
        raise InputError(f"No fact has a token of the role {role!r} and a total effect to divide by.")
    return ratio_estimate(above, below, clusters, seed=seed), out


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def _plain(line: np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in line]


def _known(maps: Maps, score: str | None) -> tuple[list[Mapping[str, Any]], list[str]]:
    records = records_of(maps, score)
    known = [record for record in records if record["known"]]
    if not known:
        raise InputError(
            f"None of the {len(records)} maps is of a fact the model knows, so there is nothing to average; "
            f"find known facts with `palimpsest known`."
        )
    return known, [record["fact"]["id"] for record in records if not record["known"]]


def _decisive(record: Mapping[str, Any], read_out: bool) -> str | None:
    roles, effect = _roles(record), np.array(record["effect"]).max(axis=1)
    allowed = [i for i, role in enumerate(roles) if role != "before" and (read_out or role != "last")]
    return roles[max(allowed, key=lambda i: effect[i])] if allowed else None


def _length(record: Mapping[str, Any]) -> int:
    return int(record["subject"][1] - record["subject"][0])


def _roles(record: Mapping[str, Any]) -> list[str]:
    return roles_of(len(record["tokens"]), (record["subject"][0], record["subject"][1]))


def _cluster(record: Mapping[str, Any]) -> tuple[str, str]:
    return record["fact"]["relation"], record["fact"]["subject"]
