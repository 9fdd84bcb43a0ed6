"""Published values: does the instrument find on this model what others found on it with the same method (criterion M5)?

    reference = share of the published values that our interval holds, or that ours is within a fifth of

The values are those of causal tracing at the last subject token, in probability of the answer: the mean total effect, and the mean
indirect effects of states, MLPs and attention at the published layer (`audit/data/references.json`, each with its source). One
counts where this audit measured the same: its window is the published one, and a measured layer lies within two of the published.

Facts differ from the published ones, so that a value that is not found again may be one of facts. For most models nothing was
published; then there is nothing to compare, no evidence, and calibration alone cannot pass M5.
"""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from palimpsest.audit.evidence import Evidence
from palimpsest.audit.experiment import Row, Rows
from palimpsest.audit.experiments.over_facts import clusters_of_rows
from palimpsest.audit.experiments.reads_rows import ReadsRows
from palimpsest.audit.experiments.roles import cells, total
from palimpsest.audit.setting import SUBJECT, Setting
from palimpsest.facts import Fact
from palimpsest.statistics import Estimate, cluster_bootstrap

NEAR = 2  # layers
WITHIN = 0.20  # of the published value
PROBABILITY = "probability"


class References(ReadsRows):
    """A second look at the rows of tracing; see the module's text."""

    name = "references"
    criteria: tuple[str, ...] = ("M5",)
    needs = ("tracing",)

    def conclude(self, setting: Setting, facts: Mapping[str, Fact], rows: Rows) -> Sequence[Evidence]:
        """`reference`, for a model of which something was published and measured alike here."""
        known, own = published(setting.model), rows.get("tracing", ())
        if known is None or not own:
            return []
        compared = [_compared(one, setting, facts, own) for one in known["values"]]
        told = [one for one in compared if one["ours"] is not None]
        if not told:
            return []
        share = float(np.mean([one["found"] for one in told]))
        missing = [f"{one['text']} ({one['why']})" for one in compared if one["ours"] is None]
        return [
            Evidence(
                self.name,
                "reference",
                self.criteria,
                "measurement",
                "interventional",
                Estimate.exact(share, len(told), len(told), method="count of published values", unit="share of values"),
                depends_on=("tracing/restoration",),
                note=f"{known['source']}; found again: {sum(one['found'] for one in told)} of {len(told)}."
                + (f" Not measured alike: {', '.join(missing)}." if missing else ""),
                data={"compared": compared, "source": known["source"]},
            )
        ]


@cache
def _references() -> Mapping[str, Any]:
    found: dict[str, Any] = json.loads(files("palimpsest.audit").joinpath("data/references.json").read_text("utf-8"))
    return found["models"]


def published(model: str) -> Mapping[str, Any] | None:
    """Source and values of a model by the name it was loaded under; None where nothing is known to be published."""
    return next((one for one in _references().values() if model in one["names"]), None)


def _compared(
    one: Mapping[str, Any], setting: Setting, facts: Mapping[str, Fact], rows: Sequence[Row]
) -> dict[str, Any]:
    """One published value beside ours, or why there is none."""
    kind, told = one["quantity"], {"text": one["text"], "published": one["value"]}
    having = [row for row in rows if row.get(setting.place.module if kind == "total" else kind)]
    if not having:
        return {**told, "ours": None, "found": False, "why": f"{kind} was not traced"}
    if kind == "total":
        values = [total(row[setting.place.module], PROBABILITY) for row in having]
    else:
        layers = list(having[0][kind]["layers"])
        layer = min(layers, key=lambda measured: abs(measured - one["layer"]))
        if abs(layer - one["layer"]) > NEAR:
            return {**told, "ours": None, "found": False, "why": f"no layer near {one['layer']} was"}
        if kind != "state" and setting.place.window != one["window"]:
            return {
                **told,
                "ours": None,
                "found": False,
                "why": f"the window is {setting.place.window}, not {one['window']}",
            }
        values = [float(cells(row[kind], SUBJECT, PROBABILITY)[layers.index(layer)].mean()) for row in having]
        told["layer"] = layer
    ours = cluster_bootstrap(values, clusters_of_rows(having, facts), seed=setting.seed, unit=PROBABILITY)
    held = bool(ours.low <= one["value"] <= ours.high) or abs(ours.value - one["value"]) <= WITHIN * one["value"]
    return {**told, "ours": ours.to_json(), "found": held, "why": ""}


EXPERIMENT = References
