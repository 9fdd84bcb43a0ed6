"""`audit`: from a claim about a model to a report, resumable at every fact.

    report = audit(model, claim="rome-2022", size="standard", out="audit/")

Its folder holds

    claim.json       the claim as it was before any evidence, with its hash; a changed prediction is refused from then on
    setting.json     facts, splits, layers, place: decided on the discovery facts; and the plan
    runs/NAME/       every experiment's rows, one line a fact (`palimpsest.runs`)
    evidence.jsonl   what the rows say, one line an endpoint
    report.json      verdicts, artefacts and evidence: what the page is made of

What is computed from the rows is computed anew each time: rules and claims that have no frozen predictions yet can change without
measuring again.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from palimpsest.audit.artefacts import artefacts
from palimpsest.audit.claim import Claim, Scope, check_names, read_claim, require_unchanged
from palimpsest.audit.evidence import Evidence
from palimpsest.audit.experiment import Experiment, chosen_experiments
from palimpsest.audit.gates import effect_gate
from palimpsest.audit.nulls import null_audit
from palimpsest.audit.planning import AuditPlan
from palimpsest.audit.preparing import CHOOSING, LOCATING, UNTRAINED_FACTS, begun, prepare
from palimpsest.audit.report_data import AuditReport
from palimpsest.audit.rules import Rules, read_rules
from palimpsest.audit.running import concluded, measured, run_rows, untrained_rows
from palimpsest.audit.scoring import score_all
from palimpsest.edit.artefact import versions
from palimpsest.errors import SettingError, did_you_mean
from palimpsest.facts import Fact
from palimpsest.model import Model
from palimpsest.runs import Progress, atomic_write, check_writable
from palimpsest.runs.json_text import plain

SIZES = ("smoke", "standard", "full")
NULL_DRAWS = {"smoke": 10, "standard": 100, "full": 200}
CLAIM, EVIDENCE, REPORT = "claim.json", "evidence.jsonl", "report.json"


def audit(
    model: Model,
    facts: Sequence[Fact] | None = None,
    *,
    claim: str | Path | Claim = "rome-2022",
    size: str = "standard",
    out: str | Path | None = None,
    rules: str | Path = "mv27-formal",
    minutes: float | None = None,
    only: Sequence[str] | None = None,
    seed: int = 0,
    command: str = "",
    progress: Progress | None = None,
) -> AuditReport:
    """Measure what a claim needs, score every reading of it, and say what may be said.

    Args:
        model: what the claim is about; left as it was found.
        facts: with true and new answers and paraphrases; the shipped ones, or the made world's for a model of it, when None.
        claim: a shipped claim's name, a file, or a `Claim`.
        size: "smoke", "standard" or "full": facts, noise draws, draws of the null audit.
        out: where everything is kept; the same call takes an interrupted audit up. Nothing is kept when None.
        rules: a preset's name or a file.
        minutes: for all of it, the choice of facts and place too; experiments give up facts until the plan fits.
        only: names of the experiments to run beside tracing; all when None. What is not run is not tested, never opinion.
        seed: of every draw.
        command: the command line that makes this report again, to be shown in it.
        progress: is told what is running and what is left.

    Raises:
        InputError: too few facts that the model knows for this size; a prediction was changed after evidence existed.
        RecordError: a claim or rules file cannot be read, or names what nothing defines.
        SettingError: an unknown size, claim, rule set or experiment; the folder holds another audit; the evidence there is
            from another model.
        OutputError: the folder cannot be written.
    """
    preset = read_rules(rules)
    read, made = _read(claim, preset), _chosen(only)
    if out is None:
        with TemporaryDirectory() as folder:
            return _audit(
                model, facts, read, preset, made, Path(folder), _checked(size), minutes, seed, command, progress
            )
    return _audit(model, facts, read, preset, made, Path(out), _checked(size), minutes, seed, command, progress)


def plan_audit(
    model: Model,
    facts: Sequence[Fact] | None = None,
    *,
    claim: str | Path | Claim = "rome-2022",
    size: str = "standard",
    rules: str | Path = "mv27-formal",
    minutes: float | None = None,
    only: Sequence[str] | None = None,
    seed: int = 0,
) -> AuditPlan:
    """What `audit` would do, and how long it is expected to take: asks which facts are known, and times a forward pass.

    Args and Raises: as in `audit`.
    """
    read, made = _read(claim, read_rules(rules)), _chosen(only)
    with TemporaryDirectory() as folder:
        every, kept = chosen_experiments(None), Path(folder)
        prepared = prepare(model, facts, read, every, kept, size=_checked(size), minutes=minutes, seed=seed, dry=True)
    return prepared.plan.of(made)


def _read(claim: str | Path | Claim, rules: Rules) -> Claim:
    """The claim, whose criteria and endpoints the rules know."""
    if not isinstance(claim, Claim):
        return read_claim(claim, rules)
    check_names(claim, rules)
    return claim


def _chosen(only: Sequence[str] | None) -> dict[str, Experiment]:
    """The experiments to run; tracing always, because the gate G2 rests on its total effects."""
    named = chosen_experiments(only)
    return named if only is None else chosen_experiments([*only, CHOOSING])


def _checked(size: str) -> str:
    if size not in SIZES:
        raise SettingError(f"An audit has a size of {', '.join(SIZES)}, got {size!r}.{did_you_mean(size, SIZES)}")
    return size


def _audit(
    model: Model,
    facts: Sequence[Fact] | None,
    claim: Claim,
    rules: Rules,
    experiments: Mapping[str, Experiment],
    folder: Path,
    size: str,
    minutes: float | None,
    seed: int,
    command: str,
    progress: Progress | None,
) -> AuditReport:
    store_claim(folder, claim)
    every = chosen_experiments(None)  # the plan is of all, so that what is left for later finds its share
    prepared = prepare(model, facts, claim, every, folder, size=size, minutes=minutes, seed=seed, progress=progress)
    bench, setting, plan = prepared.bench, prepared.bench.setting, prepared.plan.of(experiments)
    rows = {
        name: run_rows(one, bench, folder / "runs" / name, progress, plan.label(name))
        for name, one in experiments.items()
    }
    evidence, silent = list[Evidence](), dict[str, str]()
    for name, one in experiments.items():
        found, why = concluded(one, setting, bench.facts, rows)
        evidence += found
        if why:
            silent[name] = why
    good = {name: measured(own) for name, own in rows.items()}
    untrained = untrained_rows(bench, experiments, LOCATING, UNTRAINED_FACTS[size], folder / "untrained", progress)
    nulls = null_audit(
        setting,
        bench.facts,
        good,
        claim,
        rules,
        draws=NULL_DRAWS[size],
        seed=seed,
        experiments=experiments,
        untrained=untrained,
    )
    evidence += nulls.evidence
    lines = [json.dumps(plain(found.to_json()), ensure_ascii=False) for found in evidence]
    atomic_write(folder / EVIDENCE, "".join(f"{line}\n" for line in lines))
    gates = {**prepared.gates, "G2 effect": effect_gate(bench, good.get("tracing", []))}
    tested = Scope.tested(model.name, prepared.chosen.confirmation)
    readings = score_all(claim, evidence, rules, weights=setting.weights, gates=gates, tested=tested)
    report = AuditReport(
        claim=claim.to_json(),
        claim_sha256=claim.sha256,
        model=model.name,
        weights=setting.weights,
        setting=setting.to_json(),
        gates=gates,
        readings=readings,
        evidence=[found.to_json() for found in evidence],
        artefacts=artefacts(evidence, readings),
        nulls=nulls.to_json(),
        plan=plan.to_json(),
        left_out=[
            *plan.left_out(),
            *(f"{name}: {why}" for name, why in silent.items()),
            *(f"{fact}: {why}" for fact, why in prepared.chosen.left_out.items()),
        ],
        versions=versions(),
        command=command,
        facts={
            fact.id: {"subject": fact.subject, "relation": fact.relation, "prompt": fact.prompt}
            for fact in bench.facts.values()
        },
    )
    atomic_write(folder / REPORT, json.dumps(plain(report.to_json()), ensure_ascii=False) + "\n")
    return report


def store_claim(folder: Path, claim: Claim) -> None:
    """The claim as it is before any evidence; from then on it must be the same.

    Raises:
        InputError: a prediction was changed after evidence existed.
    """
    path = check_writable(folder) / CLAIM
    if path.is_file() and begun(folder):
        return require_unchanged(claim, json.loads(path.read_text("utf-8"))["sha256"])
    atomic_write(path, json.dumps({**claim.to_json(), "sha256": claim.sha256}, indent=1, ensure_ascii=False) + "\n")
    return None
