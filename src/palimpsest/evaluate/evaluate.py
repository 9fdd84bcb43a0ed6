"""`evaluate`: measure facts with a suite, before and after editing, resumable and with every record kept."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from palimpsest.edit import Edit, SecondMoment, editor
from palimpsest.edit.registry import Editor
from palimpsest.errors import InputError, PalimpsestError, SettingError, did_you_mean
from palimpsest.evaluate.counterfact import CounterFact
from palimpsest.evaluate.scores import Record, Scores
from palimpsest.facts import Fact
from palimpsest.model import Model
from palimpsest.runs import Plan, Progress, Run

SUITES = {"counterfact": CounterFact}


def evaluate(
    model: Model,
    facts: Sequence[Fact],
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
        facts: with the answers the suite needs; a fact that fails is kept with its error.
        edit: an edit to apply.
        method: or a method that edits each fact by itself.
        suite: a name from `SUITES`.
        dose: of the edit.
        out: a folder for plan.json, samples.jsonl and results.json; the same call resumes an interrupted run.
        shard: "i/n", this process's share of the facts (needs `out`).
        progress: called with (done, total, label).
        settings: of the method.

    Raises:
        InputError: there are no facts, or both an edit and a method.
        SettingError: an unknown suite or method, or another plan in `out`.
        WeightError: the edit was made for other weights.
        OutputError: `out` cannot be written.
    """
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
    plan = Plan([fact.id for fact in facts], _plan_settings(model, facts, edit, method, suite, dose, settings))
    measure = SUITES[suite]()
    by_id = {fact.id: fact for fact in facts}
    prepared: list[Editor] = []

    def prepare() -> None:
        """What every fact needs. An error here is not a fact's and ends the work; a finished run comes not here."""
        if method is not None:
            prepared.append(editor(model, method, progress=progress, **settings))
        if edit is not None:
            with edit.applied(model, dose):
                pass

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
        if method is not None:
            made = prepared[0].edit([fact])
            record["edit"] = dict(made.notes)
        if made is not None:
            with made.applied(model, dose):
                (record["post"],) = measure.measure(model, [fact])
        return record

    if out is None:
        prepare()
        records = _in_memory(by_id, one, progress)
        return Scores(tuple(records), plan.settings)
    with Run(Path(out), plan, shard) as run:
        if run.remaining:
            prepare()
        scores = Scores(tuple(run.map(one, progress)), plan.settings)
        if shard is None:
            run.finish(scores.summary())
    return scores


def _plan_settings(
    model: Model,
    facts: Sequence[Fact],
    edit: Edit | None,
    method: str | None,
    suite: str,
    dose: float,
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    content = json.dumps([fact.to_json() for fact in facts], sort_keys=True)
    plan: dict[str, Any] = {"model": model.name, "suite": suite, "method": method, "dose": dose}
    plan["facts"] = f"sha256:{hashlib.sha256(content.encode()).hexdigest()}"  # ids alone would not tell a changed file
    if edit is not None:
        plan["edit"] = {"method": edit.method, "settings": dict(edit.settings), "facts": [f.id for f in edit.facts]}
    plan["settings"] = {name: _plain(value) for name, value in settings.items() if not callable(value)}
    return plan


def _plain(value: Any) -> Any:
    """A setting as it stands in the plan: a long text or an object by its hash or name, so that the plan stays short."""
    if isinstance(value, str) and len(value) > 200:
        return f"sha256:{hashlib.sha256(value.encode()).hexdigest()}"
    if isinstance(value, SecondMoment):
        return {**value.provenance, "count": value.count}
    return value if isinstance(value, str | int | float | list | tuple | None) else type(value).__name__


def _in_memory(by_id: Mapping[str, Fact], one: Any, progress: Progress | None) -> list[Record]:
    records: list[Record] = []
    for name in by_id:
        try:
            records.append({"id": name, **one(name)})
        except PalimpsestError as error:
            records.append({"id": name, "error": str(error)})
        if progress:
            progress(len(records), len(by_id), name)
    return records
