"""`evaluate`: measure facts with a suite, before and after editing, resumable and with every record kept."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from palimpsest.edit import Edit, editor
from palimpsest.edit.artefact import versions
from palimpsest.edit.registry import Editor
from palimpsest.errors import InputError, PalimpsestError, SettingError, did_you_mean
from palimpsest.evaluate.counterfact import CounterFact
from palimpsest.evaluate.scores import Record, Scores
from palimpsest.facts import Fact
from palimpsest.model import Model
from palimpsest.runs import Plan, Progress, Run, merge

SUITES = {"counterfact": CounterFact}


def evaluate(
    model: Model,
    facts: Fact | Sequence[Fact],
    *,
    edit: Edit | None = None,
    method: str | None = None,
    suite: str = "counterfact",
    dose: float = 1.0,
    out: str | PathLike[str] | None = None,
    shard: str | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> Scores:
    """Measure `facts` on the unedited model and on the edited one.

        scores = palimpsest.evaluate(model, facts, method="rome")    # one edit per fact, each undone before the next
        scores = palimpsest.evaluate(model, facts, edit=edit)        # one edit, all facts
        scores = palimpsest.evaluate(model, facts)                   # no edit

    Args:
        model: left as it was found.
        facts: one or several, with the answers the suite needs; a fact that fails is kept with its error.
        edit: an edit to apply.
        method: or a method that edits each fact by itself.
        suite: a name from `SUITES`.
        dose: of the edit.
        out: a folder for plan.json, samples.jsonl and results.json; the same call resumes an interrupted run.
        shard: "i/n", this process's share of the facts (needs `out`); once every shard is done, the same call without it
            merges them.
        progress: called with (done, total, label).
        settings: of the method.

    Raises:
        InputError: there are no facts, or both an edit and a method.
        SettingError: an unknown suite or method, or another plan in `out`.
        WeightError: the edit was made for other weights.
        OutputError: `out` cannot be written.
    """
    facts = [facts] if isinstance(facts, Fact) else list(facts)
    if suite not in SUITES:
        raise SettingError(f"There is no suite {suite!r}.{did_you_mean(suite, SUITES)}")
    if edit is not None and method is not None:
        raise InputError("Give an edit to measure, or a method that makes one per fact, not both.")
    if settings and method is None:
        raise SettingError(f"The setting {next(iter(settings))!r} is a method's, but no method is named (method=...).")
    if not facts:
        raise InputError("There are no facts to evaluate; the file may be empty or every record bad.")
    if shard is not None and out is None:
        raise SettingError("A shard needs an output folder (out=...), where the shards are merged.")
    made_by = None if method is None else editor(model, method, progress=progress, **settings)
    if edit is not None:
        with edit.applied(model, dose):  # an edit that does not fit is no fact's fault
            pass
    measure = SUITES[suite]()
    by_id = {fact.id: fact for fact in facts}

    def one(name: str | int) -> Record:
        fact = by_id[str(name)]
        (pre,) = measure.measure(model, [fact])
        record: Record = {
            "relation": fact.relation,
            "subject": fact.subject,
            "eligible": pre["nll_true"] < pre["nll_new"],
            "pre": pre,
        }
        made = edit
        if made_by is not None:
            made = made_by.edit([fact])
            record["edit"] = dict(made.notes)
        if made is not None:
            with made.applied(model, dose):
                (record["post"],) = measure.measure(model, [fact])
        return record

    everything = _plan_settings(model, facts, edit, made_by, suite, dose)
    if out is not None:
        everything["weights"] = model.fingerprint()
    plan = Plan([fact.id for fact in facts], everything)
    if out is None:
        return Scores(tuple(_in_memory(by_id, one, progress)), plan.settings)
    if shard is None and any(Path(out).glob("samples-*-of-*.jsonl")) and not (Path(out) / "samples.jsonl").is_file():
        merge(Path(out))
    with Run(Path(out), plan, shard) as run:
        scores = Scores(tuple(run.map(one, progress)), plan.settings)
        if shard is None:
            run.finish(scores.summary())
    return scores


def _plan_settings(
    model: Model, facts: Sequence[Fact], edit: Edit | None, made_by: Editor | None, suite: str, dose: float
) -> dict[str, Any]:
    """Everything the numbers depend on, so that a run is taken up again only where it would go on the same."""
    content = json.dumps([fact.to_json() for fact in facts], sort_keys=True)
    plan: dict[str, Any] = {"model": model.name, "suite": suite, "dose": dose, "versions": versions()}
    plan["facts"] = _hash(content)  # ids alone would not tell a changed file
    plan["method"] = made_by.name if made_by else edit.method if edit else None
    if made_by is not None:
        plan["method_settings"] = json.loads(json.dumps(dict(made_by.card)))
    if edit is not None:
        plan["edit"] = {"settings": dict(edit.settings), "sha256": edit.fingerprint()}
    return plan


def _hash(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _in_memory(
    by_id: Mapping[str, Fact], one: Callable[[str | int], Record], progress: Progress | None
) -> list[Record]:
    records: list[Record] = []
    for name in by_id:
        try:
            records.append({"id": name, **one(name)})
        except PalimpsestError as error:
            records.append({"id": name, "error": str(error)})
        if progress:
            progress(len(records), len(by_id), name)
    return records
