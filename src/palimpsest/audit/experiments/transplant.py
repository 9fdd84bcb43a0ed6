"""Transplant: what the place held for one subject is put into the run of another; does the answer move along?

    s2's prompt, clean, with the place put to what it was in s1's run:    log p(o1) - log p(o2) > 0 ?

    whole      the same with all tokens of the subject put to s1's; pairs in which even this does not say o1 tell nothing
    state      the residual stream at the token in the place of the module's output
    N1         the same module at the other layers
    N4         the same place from the run of a third subject, s3: o1 should not come, unless the patch merely breaks o2

Interchange accuracy is the share of pairs whose answer becomes o1 (interchange interventions: Geiger et al. 2021, section 3).
Moving an answer takes more than breaking one: what is read there must carry *which* subject it was, so this is sufficiency without
any noise. The answers are compared by their first tokens.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from palimpsest.audit.bench import Bench
from palimpsest.audit.evidence import Control, Evidence
from palimpsest.audit.experiment import Row, Rows
from palimpsest.audit.experiments.over_facts import clusters_of
from palimpsest.audit.experiments.placed import other_layers
from palimpsest.audit.experiments.roles import (
    ROLES,
    SCORE,
    cells,
    narrow,
    rounded,
    scored,
    seconds_of_maps,
    total,
    traced,
)
from palimpsest.audit.setting import LAST, SUBJECT, Setting
from palimpsest.errors import FactError
from palimpsest.facts import Fact
from palimpsest.locate.tracing.corruption import swapped
from palimpsest.locate.tracing.lesion import Lesioner
from palimpsest.statistics import clustered_proportion, paired_difference, sign_flip_p

PAIRS = 3  # other subjects of one fact
SANE = 0.25  # share of pairs whose answer a third subject's value may make o1; o1 then outranks a broken o2 by chance
MODULE, STATE, THIRD = "module", "state", "third"


class Transplant:
    """See the module's text."""

    name = "transplant"
    criteria = ("I2",)
    needs = ()

    def units(self, setting: Setting) -> Sequence[str]:
        """One a fact: that of s2."""
        return setting.facts_for(self.name)

    def seconds(self, bench: Bench) -> float:
        """Three maps a pair."""
        return seconds_of_maps(bench, 1, 3 * PAIRS)

    def measure(self, bench: Bench, unit: str) -> Row:
        """By pair log p(o1) - log p(o2): with the whole subject exchanged, and by layer for module, state and third."""
        fact, model, setting = bench[unit], bench.model, bench.setting
        pool = bench.pool
        others = swapped(model, fact, model.encode(fact.text), pool, PAIRS + 1, seed=setting.seed).subjects
        known = {other.subject: other for other in reversed(pool) if other.relation == fact.relation}
        pairs = []
        for i, name in enumerate(others[:PAIRS]):
            asked = _asked(fact, known[name])
            third = others[(i + 1) % len(others)]
            answers = {known[third].target_true, asked.target_new}
            try:
                module = _map(bench, asked, setting.place.module, name)
                pair: dict[str, Any] = {
                    "subject": name,
                    "clean": rounded(-scored(module["clean"], SCORE)),
                    "whole": rounded(total(module) - scored(module["clean"], SCORE)),
                    MODULE: _margins(module),
                    STATE: _margins(_map(bench, asked, "state", name)),
                }
                if len(others) > 1 and len(answers) > 1:
                    pair[THIRD] = _margins(_map(bench, asked, setting.place.module, third))
            except FactError:  # the two answers begin alike
                continue
            pairs.append(pair)
        if not pairs:
            raise FactError(
                f"No other subject of {fact.relation!r} has an answer that begins otherwise than that of {fact.id}."
            )
        return {"layers": list(setting.layers), "pairs": pairs}

    def conclude(self, setting: Setting, facts: Mapping[str, Fact], rows: Rows) -> Sequence[Evidence]:
        """Interchange accuracy of the module at the place, and of the state."""
        mine = rows[self.name]
        pairs = [(row["id"], pair) for row in mine for pair in row["pairs"] if pair["whole"] > 0 > pair["clean"]]
        count = sum(len(row["pairs"]) for row in mine)
        if not pairs:
            return []
        told = f"{count - len(pairs)} of {count} pairs left out, in which the whole subject does not move the answer either."
        return [self._evidence(setting, facts, mine, pairs, which, told) for which in (MODULE, STATE)]

    def _evidence(
        self,
        setting: Setting,
        facts: Mapping[str, Fact],
        rows: Sequence[Row],
        pairs: Sequence[tuple[str, Mapping[str, Any]]],
        which: str,
        told: str,
    ) -> Evidence:
        layers = list(rows[0]["layers"])
        role = ROLES[setting.place.position]

        def moved(kind: str) -> tuple[Bool[np.ndarray, "pairs layers"], list[tuple[str, str]]]:
            held = [(unit, pair[kind][role]) for unit, pair in pairs if kind in pair]
            table = np.array([margins for _, margins in held], dtype=float).reshape(len(held), len(layers))
            return table > 0, clusters_of((unit for unit, _ in held), facts)

        table, clusters = moved(which)
        here = table[:, layers.index(setting.place.centre)].astype(float)
        there = table[:, [layers.index(l) for l in other_layers(setting)]].mean(axis=1)
        controls = [
            Control(
                "N1",
                clustered_proportion(there, clusters, seed=setting.seed),
                "mean of the other layers",
                _at_most(there, SANE),
            )
        ]
        if which == MODULE and len((third := moved(THIRD))[1]):
            others, of_others = third
            null = others[:, layers.index(setting.place.centre)].astype(float)
            controls.append(
                Control(
                    "N4",
                    clustered_proportion(null, of_others, seed=setting.seed),
                    "from the run of a third subject",
                    _at_most(null, SANE),
                )
            )
        return Evidence(
            experiment=self.name,
            endpoint="transplant" if which == MODULE else "transplant-state",
            criteria=("I2",),
            family="causal",
            mode="interventional",
            estimate=clustered_proportion(here, clusters, seed=setting.seed),
            controls=tuple(controls),
            contrast=paired_difference(here, there, clusters, seed=setting.seed),
            p=sign_flip_p(here - there, clusters, flip="inner", alternative="greater", seed=setting.seed),
            note=f"Interchange accuracy: the first token of the other subject's answer outranks the own one. {told}",
            data={
                "layers": layers,
                "profile": rounded(table.mean(axis=0)),
                "positions": {ROLES[position]: _profile(pairs, which, position) for position in (SUBJECT, LAST)},
            },
        )


def _asked(fact: Fact, other: Fact) -> Fact:
    """The fact of s2 with the answer of s1 as its foil."""
    return replace(fact, target_new=other.target_true)


def _map(bench: Bench, asked: Fact, kind: str, subject: str) -> dict[str, Any]:
    setting = bench.setting
    made = Lesioner.of(
        bench.model,
        [],
        kind=kind,
        window=setting.place.window,
        by="interchange",
        samples=1,
        score=SCORE,
        layers=setting.layers,
        seed=setting.seed,
        swap_with=(subject,),
    )
    return traced(narrow(made), bench.model, asked)


def _margins(row: Mapping[str, Any]) -> dict[str, Any]:
    """log p(o1) - log p(o2) by layer after the patch: the effect of the lesion less what the clean run says for o2."""
    clean = scored(row["clean"], SCORE)
    return {ROLES[role]: rounded(cells(row, role).mean(axis=1) - clean) for role in (SUBJECT, LAST)}


def _profile(pairs: Sequence[tuple[str, Mapping[str, Any]]], which: str, position: str) -> list[float]:
    table = np.array([pair[which][ROLES[position]] for _, pair in pairs], dtype=float)
    found: list[float] = rounded((table > 0).mean(axis=0))
    return found


def _at_most(values: Float[np.ndarray, "n"], most: float) -> bool:
    return bool(values.mean() <= most)


EXPERIMENT = Transplant
