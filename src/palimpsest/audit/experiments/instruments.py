"""`Instruments`: what is known of the reading that a claim rests on, from models in which the answer is known.

    reading "trace mlp, noise" at the last subject token, 11 organisms of kind mlp
        AUROC      P(planted layer ranks above another layer), ranks within the organism          1/2 by chance
        slope      of the reported on the planted layer                                           1 follows it, 0 is blind
        ECE        |stated - true frequency| of P(planted | score), isotonic, each organism judged by a map fitted on others

Nothing is measured here: the numbers are those of the certificate (docs/certificate.md), shipped in
`audit/data/certificate.json`. What is known of an instrument carries over to claims about other models, so the evidence is of
level "instrument", unless the audited model is the very one that the organisms were made from. The random scorer stands beside
every number as null N8; grafting the base's weights back is the positive control and stands in `data`.

Intervals resample organisms. Where every organism is read without a mistake a resample cannot show any, so the rule of three is
used: with n organisms a share of up to 3 / n could still be missed (95 %), and an instrument that is blind in a share q of
organisms has an AUROC of 1 - q / 2.

The certificate is of single layers; for a window it is the nearest that is known, and the note says so.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from jaxtyping import Float

from palimpsest.audit.evidence import Control, Evidence
from palimpsest.audit.experiment import Rows
from palimpsest.audit.experiments.reads_rows import ReadsRows
from palimpsest.audit.experiments.references import published
from palimpsest.audit.setting import Place, Setting
from palimpsest.errors import SettingError
from palimpsest.facts import Fact
from palimpsest.statistics import Estimate, of_means
from palimpsest.statistics.calibration import calibrate
from palimpsest.statistics.means import Means
from palimpsest.statistics.ranking import auroc_estimate

FORMAT = "palimpsest-audit-certificate/1"
KIND = {"mlp": "mlp", "state": "mlp", "attn": "attention"}  # of the organisms a module is judged on
POSITIVE, NEGATIVE = "graft", "random"
WANTED = 24  # organisms, of the protocol's M4
ALLOWED = 0.10  # calibration error
BINS = 5


@dataclass(frozen=True, eq=False)
class Known:
    """What one reading said about organisms of one kind.

    Attributes:
        name, position: of the reading.
        organisms: their names.
        planted, reported: per organism the planted layer and the one with the largest mean score.
        profiles: mean score by organism and layer.
    """

    name: str
    position: str
    organisms: tuple[str, ...]
    planted: Float[np.ndarray, " organisms"]
    reported: Float[np.ndarray, " organisms"]
    profiles: Float[np.ndarray, "organisms layers"]

    @property
    def right(self) -> Float[np.ndarray, "organisms layers"]:
        """1 at the planted layers."""
        return (np.arange(self.profiles.shape[1]) == self.planted[:, None]).astype(np.float64)

    @property
    def ranks(self) -> Float[np.ndarray, "organisms layers"]:
        """Share of the organism's other layers that score below a layer, ties counting half."""
        own, others = self.profiles[:, :, None], self.profiles[:, None, :]
        below = (own > others).sum(axis=2) + 0.5 * ((own == others).sum(axis=2) - 1)
        return below / (self.profiles.shape[1] - 1)

    @property
    def labels(self) -> list[str]:
        """The organism of every cell."""
        return [name for name in self.organisms for _ in range(self.profiles.shape[1])]


class Instruments(ReadsRows):
    """M4 and M5 of the reading that a claim rests on; see the module's text."""

    name = "instruments"
    criteria = ("M4", "M5")
    needs: tuple[str, ...] = ()

    def conclude(self, setting: Setting, facts: Mapping[str, Fact], rows: Rows) -> Sequence[Evidence]:
        """`sensitivity`, `sensitivity-slope` and `calibration`."""
        return evidence_of(certificate(), reading_of(setting.place), setting)


@cache
def certificate() -> Mapping[str, Any]:
    """The shipped summary."""
    found: dict[str, Any] = json.loads(files("palimpsest.audit").joinpath("data/certificate.json").read_text("utf-8"))
    if found.get("format") != FORMAT:
        raise SettingError(f"The certificate is of format {found.get('format')!r}, expected {FORMAT!r}; make it again.")
    return found


def reading_of(place: Place) -> tuple[str, str]:
    """(name, position) of the reading that finds a place: a causal trace with noise."""
    return f"trace {place.module}, noise", place.position


def known(card: Mapping[str, Any], name: str, position: str, kind: str) -> Known | None:
    """What a certificate has on one reading and kind of organism; None where it has nothing."""
    for one in card["findings"]:
        if (one["reading"][0], one["reading"][2], one["kind"]) == (name, position, kind):
            return Known(
                name,
                position,
                tuple(one["organisms"]),
                np.array(one["planted"], dtype=np.float64),
                np.array(one["reported"], dtype=np.float64),
                np.array(one["profiles"], dtype=np.float64),
            )
    return None


def control_of(card: Mapping[str, Any], which: str, kind: str) -> Known | None:
    """The positive or the negative control on organisms of a kind, wherever it reads."""
    for one in card["findings"]:
        if one["kind"] == kind and one["reading"][0].startswith(which):
            return known(card, one["reading"][0], one["reading"][2], kind)
    return None


def sensitivity(one: Known, *, seed: int = 0) -> Estimate:
    """AUROC of planted cells against all others, by rank within the organism."""
    found = auroc_estimate(one.ranks.ravel(), one.right.ravel(), one.labels, seed=seed)
    n = len(one.organisms)
    found = replace(found, n=n, clusters=n, unit="AUROC", method=f"{found.method}, clusters being organisms")
    if found.value < 1:
        return found
    missed = min(1.0, 3 / n)
    return replace(
        found, low=1 - missed / 2, method=f"AUROC; all {n} organisms right, so that the rule of three gives low"
    )


def slope(one: Known, *, seed: int = 0) -> Estimate:
    """Least-squares slope of the reported on the planted layer."""
    x, y = one.planted, one.reported
    table = np.stack([x, y, x * y, x * x], axis=1)
    return of_means(table, None, _slope, name="slope of reported on planted layer", unit="layers a layer", seed=seed)


def evidence_of(card: Mapping[str, Any], reading: tuple[str, str], setting: Setting) -> list[Evidence]:
    """M4 and M5 of any reading of a certificate."""
    kind, seed = KIND[setting.place.module], setting.seed
    one, chance = known(card, *reading, kind), control_of(card, NEGATIVE, kind)
    if one is None or chance is None:
        return []
    own = setting.weights in card["bases"].values()
    level = "model" if own else "instrument"
    n = len(one.organisms)
    note = f"{reading[0]} at the {reading[1]}, read in {n} organisms of kind {kind}"
    note += "" if n >= WANTED else f" ({WANTED} are wanted)"
    note += (
        ""
        if setting.place.window == 1
        else f"; certified for single layers, used here with a window of {setting.place.window}"
    )
    graft = control_of(card, POSITIVE, kind)
    data: dict[str, Any] = {
        "reading": list(reading),
        "kind": kind,
        "organisms": list(one.organisms),
        "planted": one.planted.tolist(),
        "reported": one.reported.tolist(),
        "profiles": one.profiles.tolist(),
    }
    result = []
    for endpoint, measure in (("sensitivity", sensitivity), ("sensitivity-slope", slope)):
        null = measure(chance, seed=seed)
        expected = 0.5 if endpoint == "sensitivity" else 0.0
        positive = None if graft is None else measure(graft, seed=seed).to_json()
        result.append(
            Evidence(
                "instruments",
                endpoint,
                ("M4",),
                "measurement",
                "interventional",
                measure(one, seed=seed),
                (Control("N8", null, "a scorer that draws numbers at random", not null.excludes(expected)),),
                level=level,
                note=note,
                data={**data, "positive_control": positive},
            )
        )
    known_of = published(setting.model)
    said = "no published value of this model is known" if known_of is None else f"published: {known_of['source']}"
    result.append(_calibration(one, chance, level, f"{note}; {said}", seed))
    return [*result, *_entity(card, reading, level)]


def _calibration(one: Known, chance: Known, level: str, note: str, seed: int) -> Evidence:
    """M5: how far the probability that a layer is the planted one, given its rank, is from how often it is."""
    mine, null = (
        calibrate(each.ranks.ravel(), each.right.ravel(), each.labels, folds=len(each.organisms), bins=BINS, seed=seed)
        for each in (one, chance)
    )
    mine = replace(mine, ece=_not_certain(mine.ece, one))
    base = float(one.right.mean())
    cells = sorted(zip(mine.probabilities, one.right.ravel().tolist(), strict=True))
    return Evidence(
        "instruments",
        "calibration",
        ("M5",),
        "measurement",
        "observational",
        mine.ece.below(ALLOWED, f"{ALLOWED:g} - error"),
        (
            Control(
                "N8",
                null.ece.below(ALLOWED, f"{ALLOWED:g} - error"),
                "a scorer that draws numbers at random: calibrated by saying the base rate",
            ),
        ),
        level=level,
        note=note,
        data={
            "ece": mine.ece.to_json(),
            "brier": mine.brier.to_json(),
            "brier_of_the_base_rate": base * (1 - base),
            "brier_of_a_random_scorer": null.brier.to_json(),
            "stated": [p for p, _ in cells],
            "true": [right for _, right in cells],
        },
    )


def _not_certain(error: Estimate, one: Known) -> Estimate:
    """A calibration error of 0: an organism that is read wrongly has two wrong cells of L, and 3 / n of them may be missed."""
    if error.high > 0:
        return error
    most = min(1.0, 3 / len(one.organisms)) * 2 / one.profiles.shape[1]
    return replace(error, high=most, method=f"{error.method}; none seen, so that the rule of three gives high")


def _entity(card: Mapping[str, Any], reading: tuple[str, str], level: str) -> list[Evidence]:
    """Whether the reading tells stored attributes from processed names."""
    return [
        Evidence(
            "instruments",
            "storage-or-entity",
            (),
            "measurement",
            "interventional",
            Estimate.from_json(one["auroc"]),
            p=one["p"],
            level=level,
            about=one["statistic"],
            note=f"{one['organisms']} organisms: facts planted in a layer against new names of known entities planted there",
        )
        for one in card["entity"]
        if (one["reading"][0], one["reading"][2]) == reading
    ]


def _slope(means: Means) -> float:
    x, y, xy, xx = means
    spread = xx - x * x
    return float((xy - x * y) / spread) if spread > 1e-9 else float("nan")


EXPERIMENT = Instruments
