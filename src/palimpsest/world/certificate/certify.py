"""`certify`: run instruments on organisms whose storage place is known, and say how well they find it.

    found = certify(instruments(), organisms, out="run/certificate/")
    print(found.table())

The models are copied, and the organisms are applied to the copies; nothing that is handed over changes. Organisms that failed
their acceptance tests are left out and named, because nobody knows where their facts are; so are kinds without a place to find
(null, shuffled, distributed).
"""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from palimpsest.errors import InputError, OutputError, PalimpsestError, SettingError
from palimpsest.facts import Fact
from palimpsest.model import Model, load
from palimpsest.runs import Plan, Progress, Run
from palimpsest.runs.json_text import plain
from palimpsest.world.certificate.certificate import Certificate
from palimpsest.world.certificate.contrasts import Discrimination, Dissociation, discriminations, dissociation
from palimpsest.world.certificate.instrument import Evidence, Instrument, Reading
from palimpsest.world.certificate.measures import Finding, finding
from palimpsest.world.organisms.organism import Organism

LOCATED = ("mlp", "attention", "rank-one", "alias")  # kinds with one planted layer
CROSSED = "crossed"
LEAST = 2  # organisms of a kind that a finding needs


def certify(
    instruments: Instrument | Sequence[Instrument],
    organisms: Sequence[Organism],
    models: Mapping[str, Model] | None = None,
    *,
    facts: int = 40,
    failed: bool = False,
    resamples: int = 2000,
    seed: int = 0,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> Certificate:
    """Certify instruments; the same call with the same `out` takes an interrupted run up again.

    Args:
        instruments: one or several; see `palimpsest.world.certificate.instruments`.
        organisms: of any kinds; each instrument reads those whose planted modules it looks at.
        models: the unchanged base of each organism, by the name the organism gives it; loaded by that name when None.
        facts: at most so many of each organism are read, whole subjects in a drawn order.
        failed: read organisms that failed their acceptance tests as well.
        resamples: of each bootstrap.
        seed: of the choice of facts and of the bootstrap.
        out: folder for what every instrument said (samples.jsonl) and for the certificate (results.json); nothing is written
            when None.
        progress: called with (done, total, label).

    Raises:
        SettingError: two instruments have one name, or `out` holds another run.
        InputError: two organisms have one name, a base is missing, or no organism can be read.
        WeightError: an organism was made from other weights than those of its base here.
        OutputError: `out` cannot be written.
    """
    tools = {one.name: one for one in ([instruments] if isinstance(instruments, Instrument) else instruments)}
    if not isinstance(instruments, Instrument) and len(tools) < len(instruments):
        raise SettingError("Two instruments have one name; give each its own.")
    used, left_out = chosen(organisms, failed=failed)
    needed = sorted({one.base for one in used.values()})
    models = {name: load(name) for name in needed} if models is None else models
    if missing := sorted(set(needed) - set(models)):
        raise InputError(
            f"The base {missing[0]!r} of some organisms is not among {sorted(models)}; load it and hand it over."
        )
    asked = {name: some_facts(one, facts, seed) for name, one in used.items()}
    work = {
        f"{tool.name}/{name}": (tool, organism)
        for name, organism in used.items()
        for tool in tools.values()
        if tool.sees(organism.places)
    }
    for one in used.values():  # a wrong base is no fault of an instrument, and must not be recorded as one
        one.edit.check_fits(models[one.base])
    twins = {name: copied(models[name]) for name in needed}

    def measured(item: Any) -> dict[str, Any]:
        tool, organism = work[item]
        with organism.applied(twins[organism.base]) as model:
            found = read(tool, model, models[organism.base], organism, asked[organism.name])
        return {"evidence": [one.to_json() for one in found]}

    settings = {
        "instruments": {name: plain(dict(tool.settings)) for name, tool in tools.items()},
        "facts": facts,
        "failed": failed,
        "seed": seed,
    }
    content = {name: organism.edit.fingerprint() for name, organism in used.items()}
    if out is None:
        records = _worked(list(work), measured, progress)
        return _certificate(records, used, asked, left_out, settings, resamples)
    bases = {name: models[name].fingerprint() for name in twins}
    with Run(Path(out), Plan(list(work), settings | {"organisms": content, "bases": bases})) as run:
        records = run.map(measured, progress)
        certificate = _certificate(records, used, asked, left_out, settings, resamples)
        run.finish(certificate.to_json())
    return certificate


def chosen(organisms: Sequence[Organism], *, failed: bool = False) -> tuple[dict[str, Organism], dict[str, str]]:
    """(organisms that have a place to find, by name; why the others are left out).

    Raises:
        InputError: two have one name, or none is left.
    """
    used: dict[str, Organism] = {}
    left_out: dict[str, str] = {}
    for one in organisms:
        if one.name in used or one.name in left_out:
            raise InputError(f"Two organisms are called {one.name!r}; give each its own name.")
        if one.kind not in (*LOCATED, CROSSED):
            left_out[one.name] = f"the kind {one.kind!r} has no layer to find"
        elif not (failed or one.acceptance.accepted):
            left_out[one.name] = f"it failed its acceptance tests: {'; '.join(one.acceptance.reasons)}"
        else:
            used[one.name] = one
    if not used:
        raise InputError(f"None of the {len(organisms)} organisms can be read; the reasons: {left_out}.")
    return used, left_out


def some_facts(organism: Organism, most: int, seed: int) -> tuple[Fact, ...]:
    """Whole subjects in a drawn order until `most` facts are reached; all where there are not more."""
    if most < 1:
        raise SettingError(f"At least one fact of each organism must be read, got facts={most}.")
    if len(organism.facts) <= most:
        return organism.facts
    subjects = list(dict.fromkeys(fact.subject for fact in organism.facts))
    order = [subjects[i] for i in np.random.default_rng(seed).permutation(len(subjects))]
    kept: set[str] = set()
    for subject in order:
        size = sum(fact.subject in (kept | {subject}) for fact in organism.facts)
        if size <= most or not kept:
            kept.add(subject)
    return tuple(fact for fact in organism.facts if fact.subject in kept)


def copied(model: Model) -> Model:
    """The same model with weights of its own."""
    twin = load(copy.deepcopy(model.net), tokenizer=model.tokenizer, check=False)
    twin.name = model.name
    return twin


def read(
    instrument: Instrument, model: Model, base: Model, organism: Organism, facts: Sequence[Fact]
) -> list[Evidence]:
    """What an instrument says about one organism, by those of its readings that can see it.

    Raises:
        InputError: what it gave has not one row a fact and one column a layer for each reading.
    """
    found = instrument.read(model, base, facts)
    shapes = {np.asarray(one).shape for one in found}
    if len(found) != len(instrument.readings) or shapes != {(len(facts), model.n_layers)}:
        raise InputError(
            f"The instrument {instrument.name!r} must give {len(instrument.readings)} arrays of shape "
            f"{(len(facts), model.n_layers)}, got {len(found)} of {sorted(shapes)}; correct its read."
        )
    return [
        Evidence.of(reading, organism, facts, np.asarray(scores, dtype=np.float64))
        for reading, scores in zip(instrument.readings, found, strict=True)
        if reading.sees(organism.places)
    ]


def judged(
    evidence: Sequence[Evidence], *, resamples: int = 2000, seed: int = 0
) -> tuple[list[Finding], list[Discrimination], list[Dissociation], dict[str, str]]:
    """(findings, storage against entity, dissociations, what could not be had and why), from what instruments said."""
    findings, entity, crossed = list[Finding](), list[Discrimination](), list[Dissociation]()
    failures: dict[str, str] = {}
    for reading in dict.fromkeys(one.reading for one in evidence):
        own = {
            kind: [one for one in evidence if (one.reading, one.kind) == (reading, kind)]
            for kind in (*LOCATED, CROSSED)
        }
        for kind in LOCATED:
            if not own[kind]:
                continue
            try:
                if len(own[kind]) < LEAST:
                    raise InputError(f"{len(own[kind])} organisms are too few for a finding, which needs {LEAST}")
                findings.append(finding(own[kind], resamples=resamples, seed=seed))
            except InputError as error:
                failures[f"{reading.label}, {kind}"] = str(error)
        if own["alias"]:
            try:
                entity += discriminations(own["mlp"], own["alias"], seed=seed)
            except InputError as error:
                failures[f"{reading.label}, storage against entity"] = str(error)
        for one in own[CROSSED]:
            try:
                crossed.append(dissociation(one, resamples=resamples, seed=seed))
            except InputError as error:
                failures[f"{reading.label}, {one.organism}"] = str(error)
    return findings, entity, crossed, failures


def _worked(items: Sequence[str], function: Any, progress: Progress | None) -> list[dict[str, Any]]:
    """What `Run.map` gives, without a folder."""
    records: list[dict[str, Any]] = []
    for done, item in enumerate(items, 1):
        try:
            records.append({"id": item, **function(item)})
        except (OutputError, SettingError):  # no fault of the item
            raise
        except PalimpsestError as error:
            records.append({"id": item, "error": str(error)})
        if progress:
            progress(done, len(items), item)
    return records


def _certificate(
    records: Sequence[Mapping[str, Any]],
    used: Mapping[str, Organism],
    asked: Mapping[str, Sequence[Fact]],
    left_out: Mapping[str, str],
    settings: Mapping[str, Any],
    resamples: int,
) -> Certificate:
    evidence = [Evidence.from_json(one) for record in records for one in record.get("evidence", ())]
    findings, entity, crossed, failures = judged(evidence, resamples=resamples, seed=settings["seed"])
    return Certificate(
        tuple(findings),
        tuple(entity),
        tuple(crossed),
        {name: _card(one, len(asked[name])) for name, one in used.items()},
        left_out,
        {str(record["id"]): str(record["error"]) for record in records if "error" in record} | failures,
        {**settings, "resamples": resamples, "readings": [label.label for label in _readings(evidence)]},
    )


def _readings(evidence: Sequence[Evidence]) -> list[Reading]:
    return list(dict.fromkeys(one.reading for one in evidence))


def _card(organism: Organism, facts: int) -> dict[str, Any]:
    places = {name: [f"{module}-{layer}" for module, layer in found] for name, found in organism.places.items()}
    return {"kind": organism.kind, "base": organism.base, "places": places, "facts": facts}
