"""The null audit: the same pipeline on claims known to be empty, and how often each criterion passes them.

    nulls = null_audit(setting, facts, rows, claim, rules, draws=60, seed=0, experiments=experiments, untrained=untrained)
    nulls.criteria[0]          # NullRate("I1", "layers", passed=0, of=24, rate=Estimate(0.0, 0.0, 0.14, ...))
    nulls.severity             # 1 - the share of matched criteria that empty claims pass

A test is severe where it would have failed had the claim been false (Mayo 2018). Three kinds of empty claims are put to it:

    layers       the same sentence about another layer, outside the claimed window (null N1)
    untrained    the same sentence about a re-initialised model (null N6)
    facts        the same rows with every number dealt anew among the facts (null N7): what is left of a finding that is one about
                 each fact, such as that its value comes back with other noise, when no number belongs to its fact any more

Nothing is measured again: `Experiment.conclude` is pure, so the stored rows are asked about other claims. Not every criterion has
a matched null: whether wordings agree on a place says nothing of *which* place. An endpoint's `nulls` in the rules say under which
kinds it must not pass; of a criterion the parts with matched endpoints are held against the null, and the rest is left out, so
that no criterion looks severe because something unrelated was missing. Procedural criteria are listed apart.

With fewer other layers than draws, layers are drawn again with a random four fifths of the facts. Draws share layers and facts, so
they are fewer independent tests than their number: rates are exact for these draws, their intervals a little too narrow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import floor
from typing import Any

import numpy as np

from palimpsest.audit.claim import Claim
from palimpsest.audit.evidence import Evidence
from palimpsest.audit.experiment import Experiment, Row, Rows
from palimpsest.audit.grammar import adjusted, combine, counted, judge_part
from palimpsest.audit.report_data import Plain, Status
from palimpsest.audit.rules import NULL_KINDS, Part, Rules
from palimpsest.audit.setting import Setting
from palimpsest.errors import PalimpsestError, SettingError
from palimpsest.facts import Fact
from palimpsest.statistics import Estimate, wilson

KEPT = 0.8  # share of the facts in a repeated draw of a layer


@dataclass(frozen=True)
class NullClaim(Plain):
    """One empty claim: its kind, where it points, which of the confirmation facts it has."""

    kind: str
    centre: int
    facts: tuple[str, ...]


@dataclass(frozen=True)
class NullRate(Plain):
    """How often one criterion passed empty claims of one kind."""

    criterion: str
    kind: str
    passed: int
    of: int
    rate: Estimate


@dataclass(frozen=True)
class NullAudit(Plain):
    """What empty claims passed.

    Attributes:
        criteria: one rate for each criterion and kind of null it has.
        kinds: kind to the share of its (claim, criterion) pairs that passed.
        rate: that share over all kinds.
        severity: one minus it, with Wilson's interval at the number of empty claims; None where nothing could be asked.
        claims: how many empty claims of each kind.
        procedural: criteria that no null can be matched to, because they are computed from the claim.
        unmatched: other criteria without a matched null in these rows.
        failed: sentences of experiments that had no answer to an empty claim.
        evidence: the record of `severity`, for C1.
    """

    criteria: tuple[NullRate, ...]
    kinds: Mapping[str, Estimate]
    rate: Estimate | None
    severity: Estimate | None
    claims: Mapping[str, int]
    procedural: tuple[str, ...]
    unmatched: tuple[str, ...]
    failed: tuple[str, ...]
    evidence: tuple[Evidence, ...]


def null_audit(
    setting: Setting,
    facts: Mapping[str, Fact],
    rows: Rows,
    claim: Claim,
    rules: Rules,
    *,
    draws: int,
    seed: int,
    experiments: Mapping[str, Experiment],
    untrained: Rows | None = None,
) -> NullAudit:
    """Ask stored rows about claims known to be empty.

    Args:
        setting, facts, rows: those of the audit; rows without errors.
        claim, rules: its readings decide which parts of the criteria are looked at.
        draws: empty claims over all kinds; 50 or more tell a severity of 0.95 from one of 0.80.
        seed: of the draws.
        experiments: name to what concludes.
        untrained: rows of re-initialised models, where there are any.

    Raises:
        SettingError: draws is below 1.
    """
    if draws < 1:
        raise SettingError(
            f"A null audit needs at least one draw, got {draws}; 60 tell a severe audit from a lenient one."
        )
    generator = np.random.default_rng(seed)
    passed: dict[tuple[str, str], list[bool]] = {}
    failed: dict[str, None] = {}
    claims = null_claims(setting, draws, generator, with_untrained=bool(untrained))
    for one in claims:
        asked = untrained if one.kind == "untrained" and untrained else rows
        found, silent = _concluded(one, setting, facts, asked, rules, experiments, generator)
        failed |= dict.fromkeys(silent)
        for criterion, did in _passes(found, claim, rules, one.kind).items():
            passed.setdefault((criterion, one.kind), []).append(did)
    order = {name: i for i, name in enumerate(rules.criteria)}
    rates = tuple(
        NullRate(criterion, kind, sum(answers), len(answers), wilson(sum(answers), len(answers)))
        for (criterion, kind), answers in sorted(passed.items(), key=lambda pair: (order[pair[0][0]], pair[0][1]))
    )
    procedural = tuple(name for name in rules.criteria if rules.procedural(name))
    every = [did for answers in passed.values() for did in answers]
    severity = _severity(every, len(claims))
    return NullAudit(
        criteria=rates,
        kinds={
            kind: wilson(sum(outcomes), len(outcomes))
            for kind in NULL_KINDS
            if (outcomes := [one for (_, of), answers in passed.items() if of == kind for one in answers])
        },
        rate=wilson(sum(every), len(every)) if every else None,
        severity=severity,
        claims={kind: sum(one.kind == kind for one in claims) for kind in NULL_KINDS},
        procedural=procedural,
        unmatched=tuple(
            name for name in rules.criteria if name not in procedural and all(name != of for of, _ in passed)
        ),
        failed=tuple(failed),
        evidence=() if severity is None else (_evidence(severity, rates),),
    )


def null_claims(
    setting: Setting, draws: int, generator: np.random.Generator, *, with_untrained: bool
) -> list[NullClaim]:
    """Empty claims: two fifths about other layers, two fifths about dealt facts, one fifth about untrained models."""
    kinds = [NULL_KINDS[index] for index in (0, 2, 0, 2, 1) if with_untrained or NULL_KINDS[index] != "untrained"]
    order = [int(one) for one in generator.permutation(other_layers(setting))]
    made: list[NullClaim] = []
    seen: set[tuple[str, int]] = set()
    for draw in range(draws):
        kind = kinds[draw % len(kinds)]
        already = sum(one.kind == kind for one in made)
        centre = order[already % len(order)] if kind != "facts" and order else setting.place.centre
        names = setting.confirmation
        if (kind, centre) in seen and kind != "facts":
            keep = generator.permutation(len(names))[: max(1, round(KEPT * len(names)))]
            names = tuple(names[i] for i in sorted(keep))
        seen.add((kind, centre))
        if kind != "layers" or order:
            made.append(NullClaim(kind, centre, names))
    return made


def other_layers(setting: Setting) -> list[int]:
    """Measured layers whose window shares no layer with the claimed one; without any, all measured layers but the centre."""
    claimed = set(setting.place.layers(setting.n_layers))
    others = [layer for layer in setting.layers if layer != setting.place.centre]
    apart = [
        layer for layer in others if not claimed & set(replace(setting.place, centre=layer).layers(setting.n_layers))
    ]
    return apart or others


def dealt(rows: Sequence[Row], generator: np.random.Generator) -> list[Row]:
    """The rows with every number dealt anew among them, place by place; ids, words and what has no counterpart stay."""
    values = _dealt([{name: value for name, value in row.items() if name != "id"} for row in rows], generator)
    return [{**row, **value} for row, value in zip(rows, values, strict=True)]


def _dealt(values: list[Any], generator: np.random.Generator) -> list[Any]:
    if all(isinstance(one, Mapping) for one in values):
        names = [name for name in values[0] if all(name in one for one in values)]
        columns = {name: _dealt([one[name] for one in values], generator) for name in names}
        return [{**one, **{name: columns[name][i] for name in names}} for i, one in enumerate(values)]
    if all(isinstance(one, list | tuple) for one in values) and len({len(one) for one in values}) == 1:
        dealt_columns = [_dealt(list(column), generator) for column in zip(*values, strict=True)]
        return [[column[i] for column in dealt_columns] for i in range(len(values))]
    if all(one is None or (isinstance(one, int | float) and not isinstance(one, bool)) for one in values):
        return [values[i] for i in generator.permutation(len(values))]
    return values


def _concluded(
    null: NullClaim,
    setting: Setting,
    facts: Mapping[str, Fact],
    rows: Rows,
    rules: Rules,
    experiments: Mapping[str, Experiment],
    generator: np.random.Generator,
) -> tuple[list[Evidence], list[str]]:
    """Evidence for an empty claim from every experiment with an endpoint matched to it."""
    asked = [one.experiment for one in rules.endpoints.values() if null.kind in one.nulls]
    kept = set(setting.confirmation) - set(null.facts)
    used = {name: [row for row in own if row["id"] not in kept] for name, own in rows.items()}
    if null.kind == "facts":
        used = {name: dealt(own, generator) if own else [] for name, own in used.items()}
    moved = replace(setting.at(null.centre), confirmation=null.facts)
    found: list[Evidence] = []
    silent: list[str] = []
    for name in dict.fromkeys(asked):
        one = experiments.get(name)
        if one is None or not any(used.get(need) for need in (name, *one.needs)):
            continue
        try:
            found += one.conclude(moved, facts, used)
        except (PalimpsestError, ArithmeticError, LookupError, ValueError) as error:
            silent.append(f"{name} has no answer to a claim of the kind {null.kind}: {error}")
    return found, silent


def _passes(evidence: Sequence[Evidence], claim: Claim, rules: Rules, kind: str) -> dict[str, bool]:
    """Whether each criterion passes in any reading by the parts that are matched to this kind of null, where they were measured."""
    found = counted(evidence, rules)
    p = adjusted(found, frozenset(rules.endpoints))
    passes: dict[str, bool] = {}
    for name in rules.criteria:
        for tag in dict.fromkeys(reading.tag for reading in claim.readings):
            parts = [one for part in rules.parts_for(name, tag) if (one := _matched(part, rules, kind)) is not None]
            if all(part.cap for part in parts):
                continue
            status, _, _ = combine([judge_part(part, found, p, rules.significance) for part in parts])
            if status is not Status.NOT_TESTED:
                passes[name] = passes.get(name, False) or status is Status.PASS
    return passes


def _matched(part: Part, rules: Rules, kind: str) -> Part | None:
    """The part with its matched endpoints only; None where it has none."""
    bars = tuple(bar for bar in part.of if kind in rules.endpoints[bar.endpoint].nulls)
    return replace(part, of=bars, need=min(part.need, len(bars))) if bars else None


def _severity(passed: Sequence[bool], claims: int) -> Estimate | None:
    if not passed:
        return None
    share = 1 - sum(passed) / len(passed)
    around = wilson(floor(claims * share + 1e-9), claims)  # rounded down: no claim is called failed that half passed
    return replace(
        around,
        value=share,
        low=min(around.low, share),
        high=max(around.high, share),
        clusters=claims,
        method=f"share of {len(passed)} matched criteria that fail, Wilson's interval at {claims} empty claims",
    )


def _evidence(severity: Estimate, rates: Sequence[NullRate]) -> Evidence:
    return Evidence(
        experiment="null audit",
        endpoint="severity",
        criteria=("C1",),
        family="procedural",
        mode="observational",
        estimate=severity,
        note="Share of criteria with a matched null that claims known to be empty do not pass.",
        data={"rates": [one.to_json() for one in rates]},
    )
