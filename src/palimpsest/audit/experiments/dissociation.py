"""`Dissociation`: whether two lesions each hurt what the other spares.

    DD = (D_A|a - D_B|a) - (D_A|b - D_B|b)        A, B: lesions    a, b: tasks    D: share of the task's total effect that is lost

One lesion that hurts facts and spares copying may only show that copying is the easier task; a second one that hurts copying
and spares facts rules that out (Shallice 1988, chapter 10). It is met or not, nothing between: DD is surely above 0, D_A|a and
D_B|b are both above 0.10, and D_A|b and D_B|a are both shown to be within 0.05 of nothing (two one-sided tests).

`double-dissociation-margin` is what the rules judge: how far the weakest condition is from not holding, above 0 where all hold.

A is the place. B is the cell of the map, any measured layer at either token, that hurts the control task most beyond what it
does to facts; it is chosen on every second pair of items and judged on the others. A and B are lesions of one kind, so strength
is the same.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float

from palimpsest.audit.evidence import Evidence
from palimpsest.audit.experiment import Row, Rows
from palimpsest.audit.experiments.over_facts import clusters_of_rows
from palimpsest.audit.experiments.reads_rows import ReadsRows
from palimpsest.audit.experiments.roles import ROLES
from palimpsest.audit.experiments.tasks import CONTROLS, FACTS, competence
from palimpsest.audit.setting import Setting
from palimpsest.facts import Fact
from palimpsest.statistics import Estimate, of_means
from palimpsest.statistics.means import Means

HURT, SPARED = 0.10, 0.05
LEAST = 4  # items on each side of the split
EFFECTS = ("A|a", "B|a", "A|b", "B|b")


@dataclass(frozen=True)
class Double:
    """A double dissociation, measured.

    Attributes:
        contrast: DD.
        effects: D of each of `EFFECTS`, with intervals of level 0.90, so that one that lies within the margin is equivalence.
        met: whether all conditions hold.
    """

    contrast: Estimate
    effects: Mapping[str, Estimate]

    @property
    def conditions(self) -> list[tuple[str, Estimate, bool]]:
        """Each with what decides it."""
        hurt = [
            (f"D_{name} is above {HURT}", self.effects[name], self.effects[name].value > HURT)
            for name in ("A|a", "B|b")
        ]
        spared = [
            (
                f"D_{name} is within {SPARED} of nothing",
                self.effects[name],
                self.effects[name].low > -SPARED and self.effects[name].high < SPARED,
            )
            for name in ("A|b", "B|a")
        ]
        return [("DD is surely above 0", self.contrast, self.contrast.low > 0), *hurt, *spared]

    @property
    def met(self) -> bool:
        """All of them."""
        return all(holds for _, _, holds in self.conditions)

    @property
    def margin(self) -> float:
        """How far the weakest condition is from not holding; above 0 where the dissociation is met."""
        hurt = [self.effects[name].value - HURT for name in ("A|a", "B|b")]
        spared = [SPARED - max(-self.effects[name].low, self.effects[name].high) for name in ("A|b", "B|a")]
        return min(self.contrast.low, *hurt, *spared)


class Dissociation(ReadsRows):
    """The contrast that belongs to the dissociation matrix; see the module's text."""

    name = "dissociation"
    criteria: tuple[str, ...] = ()
    needs = ("lesion", "tasks", "dose")

    def conclude(self, setting: Setting, facts: Mapping[str, Fact], rows: Rows) -> Sequence[Evidence]:
        """`double-dissociation` for each control task the model does, in their order: none is picked for its size."""
        done = [row for row in rows.get("tasks", ()) if setting.place.centre in row["layers"]]
        able = [task for task in CONTROLS if competence(done, task)[0]]
        found = [_of_task(setting, facts, done, task) for task in able]
        return [evidence for of_task in found for evidence in of_task]


def double_dissociation(
    lost_a: Float[np.ndarray, "items 2"],
    total_a: Float[np.ndarray, " items"],
    lost_b: Float[np.ndarray, "items 2"],
    total_b: Float[np.ndarray, " items"],
    clusters: Sequence[tuple[str, str]],
    *,
    seed: int = 0,
) -> Double:
    """DD and its conditions from paired items.

    Args:
        lost_a: what lesions A and B (columns) take from task a.
        total_a: the total effect of each item of task a.
        lost_b, total_b: the same of task b, whose item i is resampled together with item i of task a.
        clusters: of the items.
        seed: of the bootstrap.
    """
    table = np.column_stack([lost_a, lost_b, total_a, total_b])

    def shares(means: Means) -> Means:
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.concatenate([means[:2] / means[4], means[2:4] / means[5]])

    def share(i: int) -> Callable[[Means], float]:
        return lambda means: float(shares(means)[i])

    contrast = of_means(
        table,
        clusters,
        lambda means: float(np.array([1.0, -1.0, -1.0, 1.0]) @ shares(means)),
        name="double dissociation",
        unit="share of the total effect",
        seed=seed,
    )
    effects = {
        name: of_means(table, clusters, share(i), name=f"D_{name}", level=0.90, seed=seed)
        for i, name in enumerate(EFFECTS)
    }
    return Double(contrast, effects)


def _of_task(setting: Setting, facts: Mapping[str, Fact], rows: Sequence[Row], task: str) -> list[Evidence]:
    kept = [
        row
        for row in rows
        if all(name in row["tasks"] and not row["tasks"][name]["withheld"] for name in (FACTS, task))
        and row["tasks"][task]["margin"] > 0  # what is answered wrongly cannot be hurt
    ]
    # two by two, because items of agreement are plural and singular in turn
    chosen, judged = ([row for i, row in enumerate(kept) if i // 2 % 2 == side] for side in (0, 1))
    if min(len(chosen), len(judged)) < LEAST:
        return []
    place, layers = setting.place, list(rows[0]["layers"])
    own = (list(ROLES).index(place.position), layers.index(place.centre))
    gap = _share(chosen, task) - _share(chosen, FACTS)  # (positions, layers)
    gap[own] = -np.inf
    other = np.unravel_index(int(gap.argmax()), gap.shape)
    cells = (own, (int(other[0]), int(other[1])))
    lost = {name: np.array([[_map(row, name)[cell] for cell in cells] for row in judged]) for name in (FACTS, task)}
    totals = {name: np.array([float(row["tasks"][name]["total"]) for row in judged]) for name in (FACTS, task)}
    clusters = clusters_of_rows(judged, facts)
    found = double_dissociation(lost[FACTS], totals[FACTS], lost[task], totals[task], clusters, seed=setting.seed)
    where = f"{place.module} at the {list(ROLES)[cells[1][0]]}, layer {layers[cells[1][1]]}"
    columns = ("target", task)
    at = {
        "A|a": ("lesion", columns[0]),
        "B|a": (where, columns[0]),
        "A|b": ("lesion", columns[1]),
        "B|b": (where, columns[1]),
    }
    note = f"A is the place, B {where}, chosen on {len(chosen)} items and judged on {len(judged)} others; a is facts, b {task}."
    margin = Estimate.exact(
        found.margin,
        found.contrast.n,
        found.contrast.clusters,
        method="least distance of a condition from not holding; the intervals are in the conditions",
        unit=found.contrast.unit,
    )
    contrast = Evidence(
        "dissociation",
        "double-dissociation",
        (),
        "causal",
        "interventional",
        found.contrast,
        about=task,
        note=note,
        data={
            "met": found.met,
            "conditions": [
                {"text": text, "estimate": estimate.to_json(), "holds": bool(holds)}
                for text, estimate, holds in found.conditions
            ],
            "cells": [
                {"row": row, "column": column, "estimate": found.effects[name].to_json()}
                for name, (row, column) in at.items()
                if row != "lesion"  # the artefact has the place's own row from the lesions
            ],
            "effects": {name: estimate.to_json() for name, estimate in found.effects.items()},
        },
    )
    judgement = replace(contrast, endpoint="double-dissociation-margin", estimate=margin, data={"met": found.met})
    return [contrast, judgement]


def _share(rows: Sequence[Mapping[str, Any]], task: str) -> Float[np.ndarray, "positions layers"]:
    total = sum(float(row["tasks"][task]["total"]) for row in rows)
    return np.sum([_map(row, task) for row in rows], axis=0) / total


def _map(row: Mapping[str, Any], task: str) -> Float[np.ndarray, "positions layers"]:
    return np.array([row["tasks"][task][role] for role in ROLES.values()], dtype=np.float64)


EXPERIMENT = Dissociation
