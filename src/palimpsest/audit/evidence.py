"""`Evidence`: what one endpoint of one experiment measured, with the controls beside it.

    Evidence(
        experiment="lesion", endpoint="lesion-mean", criteria=("I1",), family="causal", mode="interventional",
        estimate=Estimate(0.31, 0.26, 0.36, n=52, clusters=11, unit="share of the total effect"),
        controls=(Control("N1", Estimate(0.02, ...), "the other layers"),),
    )

An endpoint is the name of a number with one definition; rules and predictions speak of endpoints. Larger is always better for the
claim: what is better when it is small is stored with its sign turned and says so in `unit`.

`level` tells whose evidence it is: "model" was measured on the model the claim is about, "instrument" on organisms (what is known
of an instrument carries over to claims about other models, what is known of a model does not), "literature" is a quotation. `split`
tells on which facts: what was chosen on the discovery facts is reported on the confirmation facts, and only they count.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from palimpsest.errors import InputError, did_you_mean
from palimpsest.runs.json_text import plain
from palimpsest.statistics import Estimate

NULLS = {
    "N1": "all other layers, same module and position",
    "N2": "random sets of neurons or heads of the same size",
    "N3": "a random direction of equal norm",
    "N4": "another subject of the same relation",
    "N5": "the relation corrupted in place of the subject",
    "N6": "the untrained model",
    "N7": "permuted answers",
    "N8": "organisms with a known answer",
}
FAMILIES = (
    "causal",
    "structural",
    "representational",
    "behavioural",
    "weights",
    "measurement",
    "procedural",
    "literature",
)
MODES = ("interventional", "observational")
LEVELS = ("model", "instrument", "literature")
SPLITS = ("confirmation", "discovery", "all")


@dataclass(frozen=True)
class Control:
    """One null beside an estimate.

    Attributes:
        kind: one of `NULLS`.
        estimate: the endpoint where the null holds, in the unit of what it stands beside.
        note: what exactly was done.
        sane: whether it came out as a null must; a control that did not takes a step from the status and is named.
        provenance: "independent", "generated", or "claim-author" (a control that the claim's author designed does not count).
    """

    kind: str
    estimate: Estimate
    note: str = ""
    sane: bool = True
    provenance: str = "independent"

    def __post_init__(self) -> None:
        _require("kind of a control", self.kind, NULLS)

    def to_json(self) -> dict[str, Any]:
        """Plain data that `from_json` reads back."""
        return {**vars(self), "estimate": self.estimate.to_json()}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Control:
        """The control `to_json` wrote."""
        return cls(**{**record, "estimate": Estimate.from_json(record["estimate"])})


@dataclass(frozen=True)
class Evidence:
    """One endpoint, measured.

    Attributes:
        experiment: which measured it; with `endpoint` and `about` it makes the `id`.
        endpoint: what was measured; its definition stands in the experiment.
        criteria: ids of the criteria it speaks to, such as ("I1",).
        family: kind of method, one of `FAMILIES`: convergence counts families, not methods.
        mode: "interventional" or "observational".
        estimate: larger is better for the claim.
        controls: the nulls beside it.
        contrast: estimate minus its highest null, paired fact by fact, where that can be had.
        p: of the contrast against nothing, where a test was made; adjusted by the scoring, never here.
        split, level: see the module's text.
        about: which of several estimates of one endpoint, such as a relation or a task; usually "".
        depends_on: ids of evidence whose output this consumed: agreement between the two is circular.
        note: one sentence on how it was measured and what to beware of.
        data: plain data for figures and tables: profiles by layer, curves, per-fact values.
    """

    experiment: str
    endpoint: str
    criteria: tuple[str, ...]
    family: str
    mode: str
    estimate: Estimate
    controls: tuple[Control, ...] = ()
    contrast: Estimate | None = None
    p: float | None = None
    split: str = "confirmation"
    level: str = "model"
    about: str = ""
    depends_on: tuple[str, ...] = ()
    note: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for what, value, allowed in (
            ("family", self.family, FAMILIES),
            ("mode", self.mode, MODES),
            ("level", self.level, LEVELS),
            ("split", self.split, SPLITS),
        ):
            _require(f"{what} of evidence", value, allowed)

    @property
    def id(self) -> str:
        """experiment/endpoint, and what it is about where there are several."""
        return "/".join(part for part in (self.experiment, self.endpoint, self.about) if part)

    def to_json(self) -> dict[str, Any]:
        """Plain data that `from_json` reads back; NaN becomes None."""
        record = dict(vars(self))
        record["estimate"] = self.estimate.to_json()
        record["contrast"] = None if self.contrast is None else self.contrast.to_json()
        record["controls"] = [control.to_json() for control in self.controls]
        return {"id": self.id, **plain(record)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Evidence:
        """The evidence `to_json` wrote."""
        given = {name: value for name, value in record.items() if name != "id"}
        for name in ("criteria", "depends_on"):
            given[name] = tuple(given[name])
        given["estimate"] = Estimate.from_json(given["estimate"])
        given["contrast"] = None if given["contrast"] is None else Estimate.from_json(given["contrast"])
        given["controls"] = tuple(Control.from_json(control) for control in given["controls"])
        return cls(**given)


def _require(what: str, value: str, allowed: Any) -> None:
    if value not in allowed:
        raise InputError(
            f"The {what} is one of {', '.join(allowed)}, got {value!r}.{did_you_mean(value, list(allowed))}"
        )
